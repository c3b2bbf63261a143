"""What keeps the meaning of a caption: another order of its parts, or other words for the same thing.

`is_reordering`: "A and B" for "B and A", "A next to B" for "B next to A", a place moved first. `Rewrite`: whether a
text says neither less nor more than the caption, word by word, as far as the lexicon can tell. Texts are compared as
words in lower case without articles; what an article would have told (where a phrase starts) is kept beside each word.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from stages.text.inflection import verb_stem
from stages.text.words import ARTICLES, FUNCTION, PLACES, QUANTIFIERS, Word, lexicon, parse, word_set, words_of

_JOINING = word_set("and or , &")
_BESIDE = word_set("beside near alongside")
_BESIDE_PHRASES = (("next", "to"), ("close", "to"), ("together", "with"), ("along", "with"))
_SIGNS = _JOINING | _BESIDE
_OPENING = PLACES.union(first for first, _ in _BESIDE_PHRASES)
"""How a text may begin whose place was moved to the front."""

_TOLD_OTHERWISE = ARTICLES | word_set(", & beside next close together along to with")
"""What a reordering may have that its caption lacks: "beside" and "next to" are one."""
_CLINGING = word_set("of with that who which wearing holding")


class Piece(NamedTuple):
    """A word, whether an article stands before it, and whether it is an adjective."""

    lower: str
    starts: bool
    describes: bool


def is_reordering(caption: str, text: str) -> bool:
    """True when the text says what the caption says, in another order of its parts."""
    if not lowers(text) <= _may_say(caption):
        return False
    one = _pieced(caption)
    if not one.is_joined and _OPENING.isdisjoint((_first(caption), _first(text))):
        return False
    other = _pieced(text)
    before, after = one.words, other.words
    if one.bag != other.bag or before == after:
        return False
    together = one.is_joined and len(before) == len(after) and _parts_reordered(one.pieces, before, after)
    return together or _place_moved(before, after)


@lru_cache(maxsize=4096)
def lowers(text: str) -> frozenset[str]:
    """A text's words, commas and "&" in lower case."""
    return frozenset([word.lower for word in parse(text) if word.is_word or word.text in ",&"])


@lru_cache(maxsize=4096)
def _may_say(caption: str) -> frozenset[str]:
    return lowers(caption) | _TOLD_OTHERWISE


def _first(text: str) -> str:
    return next((word.lower for word in words_of(text) if word.lower not in ARTICLES), "")


class _Pieced(NamedTuple):
    """A text in pieces: they, their words, the words in order of the alphabet, one comma left out, and whether any of
    them joins others."""

    pieces: list[Piece]
    words: list[str]
    bag: list[str]
    is_joined: bool


@lru_cache(maxsize=4096)
def _pieced(text: str) -> _Pieced:
    pieces = _pieces(text)
    words = [piece.lower for piece in pieces]
    bag = sorted(words)
    if "," in bag:
        bag.remove(",")
    return _Pieced(pieces, words, bag, not _SIGNS.isdisjoint(words))


def _pieces(text: str) -> list[Piece]:
    pieces: list[Piece] = []
    starts = False
    for word in parse(text):
        if word.lower in ARTICLES:
            starts = True
        elif word.is_word or word.text in ",&":
            if pieces and (pieces[-1].lower, word.lower) in _BESIDE_PHRASES:
                pieces[-1] = Piece("beside", pieces[-1].starts, False)
            else:
                pieces.append(Piece(word.lower, starts, word.is_adjective))
            starts = False
    return pieces


def _parts_reordered(pieces: list[Piece], before: list[str], after: list[str]) -> bool:
    """Some stretch of both is the same parts, joined by "and", in another order; or all of it, joined by "beside"."""
    size = len(before)
    start = next(i for i in range(size) if before[i] != after[i])
    end = next(i for i in range(size) if before[-1 - i] != after[-1 - i])
    for i in range(start + 1):
        whole = all(word in FUNCTION for word in before[:i])
        shares_adjective = i > 0 and pieces[i - 1].describes and not pieces[i].starts
        for stop in range(size, size - end - 1, -1):
            joining = _SIGNS if whole and (stop == size or before[stop] not in _CLINGING) else _JOINING
            some = before[i:stop]
            if not joining.isdisjoint(some) and _parts(some, joining) == _parts(after[i:stop], joining):
                heads = (pieces[k + 1].starts for k in range(i, stop - 1) if before[k] in joining)
                # "a red cup and a jug": the adjective belongs to the first part alone, so the parts may not change
                if not (shares_adjective and any(heads)):
                    return True
    return False


def _parts(words: list[str], joining: frozenset[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word in joining:
            parts.append([])
        else:
            parts[-1].append(word)
    return sorted(part for part in parts if part)


def _place_moved(before: list[str], after: list[str]) -> bool:
    """One is the other with a stretch that begins with a place word moved from the end to the front.

    The subject may then stand behind its verb: "at school pose four girls".
    """
    before, after = [word for word in before if word != ","], [word for word in after if word != ","]
    return any(
        one[i] in PLACES
        and one[i] == other[0]
        and other[: len(one) - i] == one[i:]
        and any(other[len(one) - i :] == one[k:i] + one[:k] for k in range(i))
        for one, other in ((before, after), (after, before))
        for i in range(1, len(one))
    )


# -- other words for the same thing ------------------------------------------------------------------------------------

_LIGHT = word_set(
    """wear wears wearing worn dressed located situated placed shown seen picture image photo photograph there have
    having has it who which that"""
)
_GENDER = {"he": "he", "him": "he", "his": "he", "she": "she", "her": "she", "hers": "she"}
_NEGATIONS = word_set("no not n't never without none nobody nothing")
_RELATIONS = {
    word: group[0]
    for group in (
        ("beside", "near", "next", "alongside", "close"),
        ("on", "upon", "atop", "onto", "top"),
        ("under", "beneath", "below", "underneath"),
        ("over", "above"),
        ("in", "inside", "within", "into"),
        ("around", "round"),
        ("across",), ("against",), ("behind",), ("between",), ("through",), ("outside",), ("before",), ("after",),
        ("toward", "towards"), ("left",), ("right",), ("front",), ("along",), ("among", "amid"),
    )
    for word in group
}  # fmt: skip


_COUNTING = QUANTIFIERS | _NEGATIONS
_SINGLE = ("one", "some")
_NO_CONTENT = _LIGHT | _COUNTING | PLACES | _RELATIONS.keys()


@dataclass(frozen=True)
class Rewrite:
    """A caption and a text that may say the same in other words."""

    caption: str
    text: str

    @cached_property
    def _before(self) -> tuple[Word, ...]:
        return words_of(self.caption)

    @cached_property
    def _after(self) -> tuple[Word, ...]:
        return words_of(self.text)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """Stem of a word the text brought -> stem of the caption's word it stands for: a synonym or a wider word."""
        lost, gained = _content(self.caption), _content(self.text)
        left = {stem: word for stem, word in lost.items() if stem not in gained}
        renamed = {}
        for stem, word in gained.items():
            if stem in lost:
                continue
            stands_for = next((old for old, w in left.items() if lexicon().says_no_more(w.lemma, word.lemma)), None)
            if stands_for is not None:
                renamed[stem] = stands_for
                del left[stands_for]
        return renamed

    @property
    def less(self) -> bool:
        """A content word of the caption has no counterpart in the text."""
        kept = _content(self.text).keys() | self._renamed.values()
        return not kept >= _content(self.caption).keys()

    @property
    def more(self) -> bool:
        """The text names something that stands for nothing in the caption."""
        return not _content(self.caption).keys() | self._renamed.keys() >= _content(self.text).keys()

    @property
    def counts_changed(self) -> bool:
        """Numbers, quantifiers or negations differ."""

        def told(words: tuple[Word, ...]) -> list[str]:
            return sorted(w.lower for w in words if (w.tag == "CD" or w.lower in _COUNTING) and w.lower not in _SINGLE)

        return told(self._before) != told(self._after)

    @property
    def relations_changed(self) -> bool:
        """Another relation in space: "on" for "under"."""

        def told(words: tuple[Word, ...]) -> Counter[str]:
            named = Counter(_RELATIONS[word.lower] for word in words if word.lower in _RELATIONS)
            return named + Counter(
                **{"in": sum(word.lemma == "wear" or word.lower in ("wearing", "worn") for word in words)}
            )

        def by(words: tuple[Word, ...]) -> int:
            return sum(word.lower == "by" for word in words)

        before, after = told(self._before), told(self._after)
        if not self._is_turned:  # "by the gate" is beside the gate
            before["beside"] += by(self._before)
            after["beside"] += by(self._after)
        return +before != +after

    @property
    def roles_changed(self) -> bool:
        """Its things stand in another order (unless turned into the passive), or an adjective describes another one."""
        if is_reordering(self.caption, self.text):
            return False
        ordered = self._order(self._before) == self._order(self._after) or self._is_turned
        return not ordered or self._bound(self._before) != self._bound(self._after)

    def _order(self, words: tuple[Word, ...]) -> list[str]:
        return [
            self._renamed.get(_stem(word), _stem(word)) for word in words if _is_content(word) and not word.is_adjective
        ]

    @cached_property
    def _is_turned(self) -> bool:
        """One is the other in the passive: X v Y ..., and Y is v ... by X."""

        def passive(active: list[str], passive: list[str]) -> bool:
            doer, *rest = active
            without = [stem for stem in passive if stem != doer]
            return len(rest) > 1 and passive[0] != doer and without == [rest[1], rest[0], *rest[2:]]

        before, after = self._order(self._before), self._order(self._after)
        added = Counter(word.lower for word in self._after)["by"] - Counter(word.lower for word in self._before)["by"]
        return bool(before and after) and (
            passive(before, after) if added == 1 else added == -1 and passive(after, before)
        )

    def _bound(self, words: tuple[Word, ...]) -> Counter[tuple[str, str]]:
        """(adjective, its noun): the next noun, or with "is" before it the last one."""
        found = []
        for i, word in enumerate(words):
            if not (word.is_adjective or word.tag == "CD") or not word.is_content:
                continue
            head = next((other for other in words[i + 1 : i + 4] if other.is_noun), None)
            if head is None or (i and words[i - 1].lemma == "be"):
                head = next((other for other in reversed(words[:i]) if other.is_noun), None)
            stem = _stem(word)
            noun = _stem(head) if head else ""
            found.append((self._renamed.get(stem, stem), self._renamed.get(noun, noun)))
        return Counter(found)


def _is_content(word: Word) -> bool:
    return word.lower in _GENDER or (word.is_content and word.lower not in _NO_CONTENT and word.tag != "CD")


@lru_cache(maxsize=4096)
def _content(text: str) -> Mapping[str, Word]:
    return {_stem(word): word for word in words_of(text) if _is_content(word)}


def _stem(word: Word) -> str:
    return _GENDER.get(word.lower) or verb_stem(word.lower)
