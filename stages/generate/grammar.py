"""Grammar that a candidate breaks and its caption does not: determiners, number, agreement, a full stop inside.

A grammar of a few patterns over word classes, no parser: a fault counts only when the candidate has more of it than its
caption, so that what the tagger or the writer of the caption got wrong is held against neither. A word that the caption
has too is of the class that it has there, as an edit takes words from where the tagger reads them best.
"""

import re
from collections.abc import Mapping, Sequence

from stages.text.words import PLACES, Word, word_set

_POSSESSIVES = word_set("his her its their my your our")
_DEFINITE = word_set("the this that another each every some any no")
_COUNTS = word_set("two three four five six seven eight nine ten several many few both these those various multiple")
_COLLECTIVE = word_set(
    """group crowd couple team family bunch pair class band lot number herd flock people police cattle sheep deer fish
    dozen hundred thousand crew audience others rest"""
)
_PARTICLES = word_set("up down out off")
_SINGULAR_VERBS = word_set("is was has does")
_PLURAL_VERBS = word_set("are were have do")
_JOINS = word_set("and or , & nor")

_BEFORE_PHRASES = PLACES | _JOINS | {"of", "by", "as"}

_FAULTS = (
    re.compile(r"[ath][jrk]*[ath]"),  # "a frightened his father", "a broken down a truck"
    re.compile(r"[at]j&[ath]"),  # "a black and the water"
    re.compile(r"y[ath]"),  # "very a small boat"
    re.compile(r"[ath]j*z"),  # "to the swerves", "a red yellow bowls a ball"
    re.compile(r"cj*n(?![nm&])"),  # "three sand"
    re.compile(r"aj*m(?![nm])"),  # "a flowers"
    re.compile(r"^[athjcnm]*nv"),  # "a pile are"
    re.compile(r"^[athjcnm]*mz"),  # "the flowers walks"
)


def is_worse(before: Sequence[Word], after: Sequence[Word]) -> bool:
    """True when some pattern of bad grammar is in the candidate's words more often than in its caption's.

    Args:
        before: the caption's words, punctuation left out.
        after: the candidate's.
    """
    tags = _tags(before)
    one, other = _classes(before, tags), _classes(after, tags)
    return any(len(fault.findall(other)) > len(fault.findall(one)) for fault in _FAULTS)


def loses_article(before: Sequence[Word], after: Sequence[Word]) -> bool:
    """True when a singular noun that always has a determiner in the caption stands without one: "towed on hummer"."""
    tags = _tags(before)
    one, other = _bare(before, tags), _bare(after, tags)
    return any(one.get(noun) is False and bare for noun, bare in other.items())


def stop_inside(caption: str, text: str) -> bool:
    """True when a sentence ends inside the text more often than in the caption: "is sitting down . the snowboarder"."""
    inside = re.compile(r"(?<!\d)\.(?=\s*[^\W\d])")
    return len(inside.findall(text)) > len(inside.findall(caption))


def _tags(words: Sequence[Word]) -> dict[str, str]:
    """Tags of the caption's words; one in -s after "a dog" is a verb, which the tagger takes for a plural."""
    tags = {word.lower: word.tag for word in reversed(words)}
    for match in re.finditer(r"a[jn]*n(m)(?![nm])", _classes(words, tags)):
        tags[words[match.start(1)].lower] = "VBZ"
    return tags


def _classes(words: Sequence[Word], tags: Mapping[str, str]) -> str:
    return "".join(_class(word, tags.get(word.lower, word.tag)) for word in words)


def _class(word: Word, tag: str) -> str:
    """One letter: a, t "the", h possessive, c count, n and m noun, j adjective, z and v verb, o for the rest."""
    lower = word.lower
    if lower in ("a", "an"):
        return "a"
    if lower in _DEFINITE:
        return "t"
    if lower in _JOINS:
        return "&"
    if lower in _POSSESSIVES:
        return "h"
    if lower == "very":
        return "y"
    if lower in _COUNTS or (tag == "CD" and lower not in ("one", "1")):
        return "c"
    if lower in _SINGULAR_VERBS or (tag == "VBZ" and lower != word.lemma):
        return "z"
    if lower in _PLURAL_VERBS or tag == "VBP":
        return "v"
    if tag.startswith("NN"):
        return "o" if {lower, word.lemma} & _COLLECTIVE else "m" if tag.endswith("S") else "n"
    if tag.startswith("JJ") or tag == "VBN":
        return "j"
    if lower in _PARTICLES:
        return "k"
    return "r" if tag == "RB" else "o"


def _bare(words: Sequence[Word], tags: Mapping[str, str]) -> dict[str, bool]:
    """Each singular noun at the end of its phrase -> whether it stands somewhere without determiner."""
    classes = _classes(words, tags)
    bare: dict[str, bool] = {}
    for match in re.finditer(r"([athc]?)(?:[jn]+&)?[jrn]*n(?![nm])", classes):
        head = words[match.end() - 1].lemma
        opens = match.start() == 0 or words[match.start() - 1].lower in _BEFORE_PHRASES
        if match[1] or opens:
            bare[head] = bare.get(head, False) or not match[1]
    return bare
