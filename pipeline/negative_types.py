"""The negative types and the kinds of true text beside them: the only place that lists them."""

from collections.abc import Collection
from typing import Literal, get_args

NegativeType = Literal["reshuffle_order", "swap_nouns", "swap_adjectives", "replace_nouns", "replace_adjectives"]

NEGATIVE_TYPES: tuple[str, ...] = get_args(NegativeType)
"""The five negative types of the paper, in the order used everywhere: made by default, columns of every dataset."""

NEGATION = "negation"
"""The negative type that denies what the caption says."""

ALL_TYPES = (*NEGATIVE_TYPES, NEGATION)
"""Every negative type; those behind the five are made where `generate.types` names them, and only then are columns."""

PARAPHRASE = "paraphrase"
"""The kind of a rewrite that keeps the meaning; it stands beside the negative types in `negatives`."""

ABSENCE = "absence"
"""The kind of the caption that also says what the image lacks: true, made together with `negation`."""

TRUE_KINDS = (PARAPHRASE, ABSENCE)
"""What stands in `negatives` and is true of the image."""

UNITS = "units"
"""The kind of a line of what a caption names, its units, each with a foil: true and false texts in one."""

FOIL, NEXT = " / ", "; "
"""Such a line: "a red cup / a blue cup; a cup on a table / a cup under a table"."""

BESIDE = (*TRUE_KINDS, UNITS)
"""What stands in `negatives` and is no negative of the caption."""

KINDS = (*ALL_TYPES, *BESIDE)
"""Everything that can be asked for."""


def types_in(columns: Collection[str]) -> tuple[str, ...]:
    """The negative types among some columns, such as a dataset's, in the order used everywhere."""
    return tuple(kind for kind in ALL_TYPES if kind in columns)
