"""The type of a negative that came without one, by what it does to its caption."""

from collections.abc import Callable
from typing import NamedTuple

from pipeline.negative_types import NEGATION, NEGATIVE_TYPES
from stages.generate.case import Case
from stages.generate.denial_checks import denies
from stages.text.words import Word


class Change(NamedTuple):
    """What negatives of one type do to their caption, for telling the type of one that came without.

    Attributes:
        adds: they bring content words that the caption lacks; else they move its own.
        words: what the words that came or moved have in common; None when they may be any.
    """

    adds: bool
    words: Callable[[Word], bool] | None = None


def _is_describing(word: Word) -> bool:
    return word.is_adjective or word.tag == "CD"


CHANGES: dict[str, Change] = {
    "reshuffle_order": Change(adds=False),
    "swap_nouns": Change(adds=False, words=lambda word: word.is_noun),
    "swap_adjectives": Change(adds=False, words=_is_describing),
    "replace_nouns": Change(adds=True),
    "replace_adjectives": Change(adds=True, words=_is_describing),
}


def likely_types(caption: str, text: str) -> list[str]:
    """The negative types a ready-made negative may be of, the likeliest first; those nothing is known of come last."""
    case = Case(caption, text)
    words = case.gained or case.moved
    types = [kind for kind in NEGATIVE_TYPES if kind in CHANGES and CHANGES[kind].adds == bool(case.gained)]

    def is_told(kind: str) -> bool:
        condition = CHANGES[kind].words
        return condition is not None and all(map(condition, words))

    first = [kind for kind in types if is_told(kind)][:1]
    others = [kind for kind in types if kind not in first]
    return [*[NEGATION] * denies(case), *first, *others, *(kind for kind in NEGATIVE_TYPES if kind not in CHANGES)]
