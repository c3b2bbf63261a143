"""The negative types: the only place that lists them."""

from typing import Literal, get_args

NegativeType = Literal["reshuffle_order", "swap_nouns", "swap_adjectives", "replace_nouns", "replace_adjectives"]

NEGATIVE_TYPES: tuple[str, ...] = get_args(NegativeType)
"""The five negative types of the paper, in the order used everywhere."""

PARAPHRASE = "paraphrase"
"""The kind of a rewrite that keeps the meaning; it stands beside the negative types in `negatives`."""
