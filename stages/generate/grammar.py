"""Grammar that a candidate breaks and its caption does not: determiners, number, agreement, a full stop inside.

A grammar of a few patterns over word classes, no parser: a fault counts only when the candidate has more of it than its
caption, so that what the tagger or the writer of the caption got wrong is held against neither. A word that the caption
has too is of the class that it has there, as an edit takes words from where the tagger reads them best.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from operator import gt

from stages.text.words import PLACES, lexicon, word_set, words_of

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
    re.compile(r"^[ath]j*n+(?:o[athc]?j*[nm]+)?b"),  # "a cafe sit", "a hill with dogs climb"
    re.compile(r"^[athjc]*[nm]+[ath]j*n+[zvb]"),  # "a road a man rides on"
    re.compile(r"[ath]o[ath]"),  # "a flying a"
)
_ANY_FAULT = re.compile("|".join(fault.pattern for fault in _FAULTS))
_NONE = [0] * len(_FAULTS)
_TORN = {
    " s": re.compile(r"\s['’]\s+s\b"),
    "of ": re.compile(r"\bof (?:the )?(?:front|middle|side|edge|back|bottom|top)\b(?! of\b)"),
    "there ": re.compile(
        r"\bthere (?:(?:is|are|was|were) (?:the|his|her|its|their|this|that)|(?:are|were) an?)\b", re.IGNORECASE
    ),
}
"""What a rewrite may tear apart, by letters that it has in lower case: most texts have none of them."""

_BASE = "base"
"""Tag of a verb without ending whose subject is a plural."""

_AFTER_VERBS = ("IN", "DT", "RB", "PRP$", "TO")

_INSIDE = re.compile(r"(?<!\d)\.(?=\s*[^\W\d])")
_VERB = re.compile(r"a[jn]*n(m)(?![nm])")
_PHRASE = re.compile(r"([athc]?)(?:[jn]+&)?[jrn]*n(?![nm])")


def is_worse(caption: str, text: str) -> bool:
    """True when some pattern of bad grammar is in the candidate more often than in its caption."""
    classes = _classes(caption, text)
    return any(map(gt, _faults(classes), _faults(_classes(caption, caption))))


def loses_article(caption: str, text: str) -> bool:
    """True when a singular noun that always has a determiner in the caption stands without one: "towed on hummer"."""
    before, after = _bare(caption, caption), _bare(caption, text)
    brief = next(iter(before.values()), False)  # a caption that begins so leaves articles out
    opening = next(iter(after), None) if brief else None
    return any(bare and before.get(noun) is False for noun, bare in after.items() if noun != opening)


def tears_apart(caption: str, text: str) -> bool:
    """True for "of front" from "front of", "swing ' s", and "there is the dock" from "there is a boat"."""
    lower = text.lower()
    return any(
        letters in lower and len(torn.findall(text)) > len(torn.findall(caption)) for letters, torn in _TORN.items()
    )


def stop_inside(caption: str, text: str) -> bool:
    """True when a sentence ends inside the text more often than in the caption: "is sitting down . the snowboarder"."""
    return "." in text[:-1] and len(_INSIDE.findall(text)) > len(_INSIDE.findall(caption))


@lru_cache(maxsize=4096)
def _classes_of(caption: str) -> Mapping[str, str]:
    """The letter of each of the caption's words.

    One in -s after "a dog" is a verb, which the tagger takes for a plural. So is a base form right after a plural
    ("people sit"), whose tag becomes _BASE.
    """
    words = words_of(caption)
    tags = {word.lower: word.tag for word in reversed(words)}
    for one, two, three in zip(words, words[1:], words[2:], strict=False):
        if one.tag == "NNS" and two.tag == "VB" and (two.lower not in lexicon().nouns or three.tag in _AFTER_VERBS):
            tags[two.lower] = _BASE
    classes = {word.lower: _class(word.lower, word.lemma, tags[word.lower]) for word in words}
    for match in _VERB.finditer("".join([classes[word.lower] for word in words])):
        verb = words[match.start(1)]
        classes[verb.lower] = _class(verb.lower, verb.lemma, "VBZ")
    return classes


@lru_cache(maxsize=4096)
def _classes(caption: str, text: str) -> str:
    """A letter for each of a text's words, those of the caption as they are there."""
    own = _classes_of(caption)
    return "".join([own.get(word.lower) or _class(word.lower, word.lemma, word.tag) for word in words_of(text)])


@lru_cache(maxsize=4096)
def _faults(classes: str) -> list[int]:
    """How often each of `_FAULTS` is there."""
    return [len(fault.findall(classes)) for fault in _FAULTS] if _ANY_FAULT.search(classes) else _NONE


@lru_cache(maxsize=65536)
def _class(lower: str, lemma: str, tag: str) -> str:
    """One letter: a, t "the", h possessive, c count, n and m noun, j adjective, z, v and b verb, o for the rest."""
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
    if lower in _SINGULAR_VERBS or (tag == "VBZ" and lower != lemma):
        return "z"
    if lower in _PLURAL_VERBS or tag == "VBP":
        return "v"
    if tag == _BASE:
        return "b"
    if tag.startswith("NN"):
        return "o" if {lower, lemma} & _COLLECTIVE else "m" if tag.endswith("S") else "n"
    if tag.startswith("JJ") or tag == "VBN":
        return "j"
    if lower in _PARTICLES:
        return "k"
    return "r" if tag == "RB" else "o"


@lru_cache(maxsize=4096)
def _bare(caption: str, text: str) -> Mapping[str, bool]:
    """Each singular noun at the end of its phrase in a text -> whether it stands somewhere without determiner."""
    words = words_of(text)
    bare: dict[str, bool] = {}
    for match in _PHRASE.finditer(_classes(caption, text)):
        head = words[match.end() - 1].lemma
        opens = match.start() == 0 or words[match.start() - 1].lower in _BEFORE_PHRASES
        if match[1] or opens:
            bare[head] = bare.get(head, False) or not match[1]
    return bare
