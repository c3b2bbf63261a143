"""What `units` promises: pairs of what the caption names, a thing or a relation, and a text that is false of the image.

Whether a unit is said is judged by its words, in the caption's order. What belongs to what is not: of "a boy with a
kite walks a dog" the words "a kite walks a dog" pass.
"""

from collections.abc import Iterator
from itertools import pairwise

from pipeline.negative_types import FOIL, NEXT
from stages.generate.case import Case
from stages.text.words import ARTICLES, Word, lexicon, word_set, words_of

_UNSAID = ARTICLES | word_set("is are there")
"""What a unit may say beside the caption's words: "a gate" for "the gate", "a cup is on a table"."""


def pairs(line: str) -> Iterator[tuple[str, str]]:
    """Each unit and its foil; what is no pair is left out."""
    for one in line.strip().removesuffix(".").split(NEXT):
        unit, *foils = (text.strip() for text in one.split(FOIL))
        if unit and len(foils) == 1 and foils[0]:
            yield unit, foils[0]


def line(units: list[tuple[str, str]]) -> str:
    """The line that `pairs` reads."""
    return NEXT.join(map(FOIL.join, units))


def not_said(case: Case) -> bool:
    """A unit has a word that the caption lacks or has elsewhere, or an adjective of another thing."""
    caption, unit = (_told(words) for words in (case.before, case.after))
    left = iter([word.lemma for word in caption])
    neighbours = {(one.lemma, other.lemma) for one, other in pairwise(caption)}
    describing = [(one, other) for one, other in pairwise(unit) if one.is_adjective or one.tag == "CD"]
    return (
        not unit
        or not all(word.lemma in left for word in unit)
        or any((one.lemma, other.lemma) not in neighbours for one, other in describing)
    )


def may_hold(case: Case) -> bool:
    """A word of the foil that the unit lacks, or one for the same, is said by a caption of the image."""
    said = {word.lemma for text in case.siblings for word in words_of(text) if word.is_content}
    return any(not said.isdisjoint(lexicon().related(word.lemma) | {word.lemma}) for word in case.gained)


def _told(words: tuple[Word, ...]) -> list[Word]:
    return [word for word in words if word.lower not in _UNSAID]
