"""One candidate beside its caption: what went, came, moved and was counted otherwise, found once for all rules.

Words are compared by stem and in order, so that an ending changes nothing.
"""

from collections import Counter
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from stages.generate.paraphrase import Rewrite
from stages.text.inflection import verb_stem
from stages.text.words import ARTICLES, PLACES, QUANTIFIERS, Word, is_known, word_set, words_of

NEAR = 2
"""Unchanged words between two changed spans that still count as one place."""

QUANTITIES = QUANTIFIERS - ARTICLES
RELATING = PLACES | word_set("next front top alongside off up down as while when")

_AGREEMENT = word_set(
    """a an the some this that these those his her hers its it's their theirs him them he she it they himself herself
    itself themselves is are was were be been being has have do does and with of to there who which"""
)
_AGREEMENT_STEMS = frozenset(map(verb_stem, _AGREEMENT))
_OPENING = word_set("a an the his her its their")
_NO_LOSS = _AGREEMENT | QUANTIFIERS
_SAME_QUANTITY = {"bunch": "group", "lots": "many", "several": "many", "numerous": "many", "pair": "couple"}


class Edit(NamedTuple):
    """Words a..b of the caption became words c..d of the candidate."""

    a: int
    b: int
    c: int
    d: int

    def old(self, case: "Case") -> tuple[Word, ...]:
        """The words that went."""
        return case.before[self.a : self.b]

    def new(self, case: "Case") -> tuple[Word, ...]:
        """The words that came."""
        return case.after[self.c : self.d]


def _changed(one: list[str], other: list[str]) -> list[Edit]:
    """Where two texts differ, as difflib tells it."""
    if len(one) == len(other) > 4:
        places = [place for place, (old, new) in enumerate(zip(one, other, strict=True)) if old != new]
        at = places[0] if places else 0
        # One word for another that stand nowhere else, in a text with no pair of words twice: what difflib finds too,
        # in twenty times the time.
        is_plain = len(places) == 1 and one[at] not in other and other[at] not in one
        if is_plain and len(set(pairwise(one))) == len(one) - 1:
            return [Edit(at, at + 1, at, at + 1)]
    codes = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return [Edit(a, b, c, d) for code, a, b, c, d in codes if code != "equal"]


class Case:
    """One candidate beside its caption, parsed once for all rules.

    Attributes:
        caption, text: the true caption and the candidate.
        siblings: what else is known of the image: its captions.
        before, after: words of the caption and of the candidate, punctuation left out.
        new_signs: characters of the candidate that the caption does not have.
    """

    def __init__(self, caption: str, text: str, siblings: tuple[str, ...] = ()) -> None:
        self.caption, self.text, self.siblings = caption, text, siblings
        self.before, self.after = words_of(caption), words_of(text)
        self.new_signs = frozenset(text).difference(caption)

    @cached_property
    def edits(self) -> list[Edit]:
        """Changed spans, compared by base form; agreement and mended spelling left out."""
        spans = _changed([word.lemma for word in self.before], [word.lemma for word in self.after])
        return [span for span in spans if not _harmless(span.old(self), span.new(self))]

    @cached_property
    def spots(self) -> list[Edit]:
        """The edits, those at most NEAR words apart made one."""
        spots: list[Edit] = []
        for edit in self.edits:
            if spots and edit.a - spots[-1].b <= NEAR:
                edit = Edit(spots[-1].a, edit.b, spots.pop().c, edit.d)
            spots.append(edit)
        return spots

    @cached_property
    def rewrite(self) -> Rewrite:
        """The candidate as another way to say the caption, for the rules for paraphrases."""
        return Rewrite(self.caption, self.text)

    @cached_property
    def stems(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Stems of the caption's words that say something, and of the candidate's."""
        return _stems(self.caption), _stems(self.text)

    @cached_property
    def is_reordered(self) -> bool:
        """It has the caption's stems, each as often."""
        before, after = self.stems
        return len(before) == len(after) and sorted(before) == sorted(after)

    @cached_property
    def _exchanged(self) -> tuple[list[Word], list[Word]]:
        before, after = self.stems
        if self.is_reordered and _AGREEMENT_STEMS.isdisjoint(before):
            return [], []
        return _mended(_missing(self.before, after), _missing(self.after, before))

    @cached_property
    def lost(self) -> list[Word]:
        """Content words of the caption that the candidate lacks, compared by stem."""
        return self._exchanged[0]

    @cached_property
    def gained(self) -> list[Word]:
        """Content words of the candidate that the caption lacks, compared by stem."""
        return self._exchanged[1]

    @cached_property
    def lost_things(self) -> list[Word]:
        """The lost words that are none of relation ("next", "up")."""
        return [word for word in self.lost if word.lower not in RELATING]

    @cached_property
    def gone(self) -> list[Word]:
        """Of the lost things those of which nothing is left, however often they stood there."""
        left = set(self.stems[1])
        return [word for word in self.lost_things if left.isdisjoint(word.stems)]

    @cached_property
    def moved(self) -> list[Word]:
        """Content words on either side of a changed span that are in the other text too."""
        before, after = _content(self.before), _content(self.after)
        codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        moved = {lemma for code, a, b, c, d in codes if code != "equal" for lemma in before[a:b] + after[c:d]}
        both = set(before) & set(after)
        return [word for word in self.before if word.lemma in moved & both]

    @cached_property
    def requantified(self) -> tuple[Counter[str], Counter[str]]:
        """Words of number and quantity that the candidate lacks, and those that it brings."""
        before, after = _quantities(self.caption), _quantities(self.text)
        return (before - after, after - before) if before or after else (before, after)

    @cached_property
    def numbers_exchanged(self) -> bool:
        """One noun became plural and another singular: "some plants and a horse", "a plant and some horses"."""
        before, after = (
            {word.lemma: word.lower != word.lemma for word in words if word.is_noun}
            for words in (self.before, self.after)
        )
        changes = {(before[noun], after[noun]) for noun in before.keys() & after.keys()}
        return {(True, False), (False, True)} <= changes


@lru_cache(maxsize=4096)
def gist(text: str) -> tuple[str, ...]:
    """A text's base forms without articles and "is": its words but for case, endings and punctuation."""
    return tuple([word.lemma for word in words_of(text) if word.lower not in ARTICLES and word.lemma != "be"])


def is_action(word: Word) -> bool:
    """True for a verb and a participle."""
    return word.tag.startswith("VB") or word.lower.endswith("ing")


def describes(words: tuple[Word, ...], index: int) -> bool:
    """True for an adjective, number, quantifier, participle, and for a noun before a noun, or after an article."""
    word, *others = words[index : index + 3]
    if word.may_modify or not others:
        return word.may_modify
    if index and words[index - 1].lower in _OPENING:
        is_joined = others[0].tag in ("VBN", "VBD", "JJ") and len(others) > 1 and others[1].may_be_noun
        return is_joined or others[0].may_be_noun
    return word.may_be_noun and others[0].may_be_noun and not others[0].tag.startswith("VB")


def _missing(words: tuple[Word, ...], stems: tuple[str, ...]) -> list[Word]:
    """Content words without a counterpart among the stems, each of which counts once."""
    left: dict[str, int] = {}
    for stem in stems:
        left[stem] = left.get(stem, 0) + 1
    missing = []
    for word in words:
        stems = word.stems
        if left.get(stems[0]) and (len(stems) == 1 or all(map(left.get, stems))):
            for stem in stems:
                left[stem] -= 1
        elif word.is_content and word.lower not in _NO_LOSS:
            missing.append(word)
    return missing


def _mended(lost: list[Word], gained: list[Word]) -> tuple[list[Word], list[Word]]:
    """Both without words that are one but for a blank or a slip: "lap top" and "laptop", "bluebery" and "blueberry"."""
    if not (lost and gained):
        return lost, gained
    lost, gained = list(lost), list(gained)
    for some, others in ((lost, gained), (gained, lost)):
        for pair in list(pairwise(some)):
            for word in others:
                if verb_stem(word.lower) == verb_stem("".join(one.lower for one in pair)):
                    some[:] = [one for one in some if one not in pair]
                    others.remove(word)
                    break
    for old in list(lost):
        for new in gained:
            if _harmless((old,), (new,)):
                lost.remove(old)
                gained.remove(new)
                break
    return lost, gained


@lru_cache(maxsize=4096)
def _stems(text: str) -> tuple[str, ...]:
    """Stems of the content words and of those of relation and number."""
    return tuple([stem for word in words_of(text) if word.lower not in _AGREEMENT for stem in word.stems])


@lru_cache(maxsize=4096)
def _quantities(text: str) -> Counter[str]:
    said = [word.lower for word in words_of(text) if word.tag == "CD" or word.lower in QUANTITIES]
    return Counter([_SAME_QUANTITY.get(word, word) for word in said])


def _content(words: tuple[Word, ...]) -> list[str]:
    return [word.lemma for word in words if word.lower not in _AGREEMENT]


def _harmless(old: tuple[Word, ...], new: tuple[Word, ...]) -> bool:
    """Grammar words only ("his" for "her"), or the same letters but for a slip ("lap top", "keybord")."""
    if all(word.lower in _AGREEMENT or word.lower in PLACES for word in old + new):
        return True
    before, after = ("".join(word.lower for word in words) for words in (old, new))
    if before == after:
        return True
    is_slip = len(old) == len(new) == 1 and len(before) > 2 and not is_known(before)
    return is_slip and SequenceMatcher(None, before, after).ratio() >= 0.6
