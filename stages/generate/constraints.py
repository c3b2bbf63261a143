"""What alone may be written to one caption, where that is less than any plain line.

Where a word is replaced it is the caption with one place free: a noun or a describing word that the rules would
replace, by anything that does not begin as it does: the grammars of engines know no negation, so a pattern spells that
out. Where words move it is one of the rules' own proposals. Where the
rules see no place, or propose nothing, it is a line like any other. The caption and the request's seed alone decide,
not the other captions, so that responses stay cached when some are added.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from pipeline.artifact import path_digest
from stages.generate import rules
from stages.generate.checks import NOT_APPLICABLE
from stages.generate.phrases import Caption, Places
from stages.language_models.base import Request
from stages.text.words import LEXICON, is_english

VERSION = 1
LONGEST = 3
"""Words that may stand in a free place; there never are more than stood there, or a small model runs on."""

_LEAST = 3
"""Letters of such a word: "a" and "of" are none."""

_BY_TYPE = {
    "reshuffle_order": "choice",
    "swap_nouns": "choice",
    "swap_adjectives": "choice",
    "replace_nouns": "slot",
    "replace_adjectives": "slot",
}
_RULES = rules.Rules(rules.Vocabulary())
_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")


def is_constrained(structured: bool | str, kind: str) -> bool:
    """Whether the setting gives requests of a type constraints of their own."""
    return kind in _BY_TYPE and structured in (_BY_TYPE[kind], "both")


def constraint_source(structured: bool | str, kind: str) -> dict[str, Any]:
    """What decides the constraints of a type's requests, beside the caption; nothing where they have none."""
    if not is_constrained(structured, kind):
        return {}
    return {"constraints": f"{_BY_TYPE[kind]} {VERSION}, rules {rules.VERSION}", "lexicon": path_digest(LEXICON)}


def constrained(kind: str, requests: Sequence[Request]) -> list[Request]:
    """The requests, each with what is allowed, where the rules can tell."""
    allowed = _choices if _BY_TYPE[kind] == "choice" else _slots
    return [
        replace(request, allowed=allowed(kind, request)) if request.caption.isprintable() else request
        for request in requests
    ]


def _choices(kind: str, request: Request) -> dict[str, Any] | None:
    first = next(_RULES.respond(kind, [], [request]))
    texts = [one.text for one in (first, *first.others)]
    return None if texts[0] in (None, NOT_APPLICABLE) else {"choice": texts}


def _slots(kind: str, request: Request) -> dict[str, Any] | None:
    if not is_english(request.caption):
        return None
    caption = Caption(request.caption)
    if kind == "replace_nouns":
        places = [phrase.noun for phrase in rules.replaceable_nouns(caption)]
        patterns = [_freed(caption, place, min(place[1] - place[0], LONGEST)) for place in places]
    else:
        patterns = [_freed(caption, (i, i + 1), 1) for i, _ in rules.replaceable_adjectives(caption)]
    return {"regex": f"(?:{'|'.join(patterns)})"} if patterns else None


def _freed(caption: Caption, place: Places, most: int) -> str:
    """A pattern of the caption with other words in a place, at most so many, and "a" or "an" before them."""
    (first, last), text = place, caption.text
    start, stop = caption.span(place)
    old = caption.words[last - 1]
    root = old.lemma if old.lower.startswith(old.lemma) else old.lower
    root = root if set(root) <= set(ascii_lowercase) else ""
    before = _verbatim(text[:start])
    if first and caption.words[first - 1].lower in ("a", "an"):
        begin, end = caption.span((first - 1, first))
        before = f"{_verbatim(text[: begin + 1])}n?{_verbatim(text[end:start])}"
    free = _unlike(root, is_capital=text[start].isupper())
    further = f"(?: {_unlike(root)}){{0,{most - 1}}}" if most > 1 else ""
    return f"{before}{free}{further}{_verbatim(text[stop:])}"


def _unlike(root: str, least: int = _LEAST, *, is_capital: bool = False) -> str:
    """A pattern of words of at least so many Latin letters that do not begin with these."""
    letters = ascii_uppercase if is_capital else ascii_lowercase
    first = root[:1].upper() if is_capital else root[:1]
    rest = "[a-z]" * (least - 1) + "[a-z]*"
    other = f"[{letters.replace(first, '') if root else letters}]{rest}"
    if not root[1:]:
        return other
    return f"(?:{other}|{first}(?:{_unlike(root[1:], least - 1)}){'?' if least < 2 else ''})"


def _verbatim(text: str) -> str:
    """A pattern of this text alone, without the escapes that only Python knows."""
    return _SPECIAL.sub(r"\\\g<0>", text)
