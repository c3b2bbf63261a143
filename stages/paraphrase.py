"""Orders of words that keep the meaning: "A and B" for "B and A", "A next to B" for "B next to A", a place moved first.

Texts are compared as words in lower case without articles; what an article would have told (where a phrase starts) is
kept beside each word.
"""

from collections import Counter
from typing import NamedTuple

from stages.words import ARTICLES, FUNCTION, PLACES, parse, word_set

_JOINING = word_set("and or , &")
_BESIDE = word_set("beside near alongside")
_BESIDE_PHRASES = (("next", "to"), ("close", "to"), ("together", "with"), ("along", "with"))
_CLINGING = word_set("of with that who which wearing holding")


class Piece(NamedTuple):
    """A word, whether an article stands before it, and whether it is an adjective."""

    lower: str
    starts: bool
    describes: bool


def is_reordering(caption: str, text: str) -> bool:
    """True when the text says what the caption says, in another order of its parts."""
    one, other = _pieces(caption), _pieces(text)
    before, after = [piece.lower for piece in one], [piece.lower for piece in other]
    if before == after or Counter(before) != Counter(after):
        return False
    return _parts_reordered(one, before, after) or _place_moved(before, after)


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
    signs = _JOINING | _BESIDE
    if not any(word in signs for word in before):
        return False
    size = len(before)
    start = next(i for i in range(size) if before[i] != after[i])
    end = next(i for i in range(size) if before[-1 - i] != after[-1 - i])
    for i in range(start + 1):
        whole = all(word in FUNCTION for word in before[:i])
        shares_adjective = i > 0 and pieces[i - 1].describes and not pieces[i].starts
        for stop in range(size, size - end - 1, -1):
            joining = signs if whole and (stop == size or before[stop] not in _CLINGING) else _JOINING
            if _parts(before[i:stop], joining) == _parts(after[i:stop], joining):
                heads = (pieces[k + 1].starts for k in range(i, stop - 1) if before[k] in joining)
                # "a red cup and a jug": the adjective belongs to the first part alone, so the parts may not change
                if not (shares_adjective and any(heads)):
                    return True
    return False


def _parts(words: list[str], joining: frozenset[str]) -> Counter[tuple[str, ...]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word in joining:
            parts.append([])
        else:
            parts[-1].append(word)
    return Counter(tuple(part) for part in parts if part)


def _place_moved(before: list[str], after: list[str]) -> bool:
    """One is the other with a stretch that begins with a place word moved from the end to the front."""
    before, after = [word for word in before if word != ","], [word for word in after if word != ","]
    return any(
        one[i] in PLACES and one[i] == other[0] and other == one[i:] + one[:i]
        for one, other in ((before, after), (after, before))
        for i in range(1, len(one))
    )
