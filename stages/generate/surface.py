"""The surface of a negative made equal to its caption's, so that a full stop or a capital never gives it away."""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from stages.text.words import Word, is_known, parse

_CONSONANT_VOWEL = ("uni", "use", "usu", "euro", "one", "once", "ufo", "utensil", "unicorn")
_SILENT_H = ("hour", "honest", "honor", "honour", "heir")
_CLOSING = " .!?,;:…"
_BEFORE_SIGN = re.compile(r"\s+([.,;:!?])")
_SIGN = re.compile(r"(?<=\w)([.,;:!?])(?=\s|$)")
_APART = re.compile(r"\w [.,;:!?](\s|$)")
_ARTICLE = re.compile(r"\b([Aa]n?)(\s+)([^\W\d_][\w'’-]*)")
_MAY_BE_WRONG = re.compile(r"\b[Aa](?:n\s|\s+[aeiouhAEIOUHİ])")
"""Every wrong article, and some right ones."""

_SIGNS = ".,;:!?"


def match_surface(caption: str, text: str) -> str:
    """Give a candidate the caption's surface: case, final punctuation, spacing, "a"/"an", no wrapping quotes.

    A classifier that sees text alone must not tell a negative by a full stop. Meaning and words stay as they are.
    """
    text = " ".join(text.split())
    form = _form(" ".join(caption.split()))
    if len(text) > 2 and text[0] in "\"'“‘" and text[-1] in "\"'”’" and not form.is_quoted:
        text = text[1:-1].strip()
    text = text.rstrip(_CLOSING)
    if text[-1:].isalnum() and not any(map(text.__contains__, _SIGNS)):
        text += form.after_word
    else:
        text = _spaced(text + form.end, apart=form.is_spaced)
    text = text.upper() if form.is_upper else _match_case(form, text)
    return text if form.errs or not _MAY_BE_WRONG.search(text) else _ARTICLE.sub(_mended, text)


def _spaced(text: str, *, apart: bool) -> str:
    text = _BEFORE_SIGN.sub(r"\1", text)
    return _SIGN.sub(r" \1", text) if apart else text


class _Form(NamedTuple):
    """A caption's surface.

    Attributes:
        end: its final punctuation, with the blank before it.
        after_word: the same as it stands after a letter or digit.
        is_quoted: it begins with a quote.
        is_spaced: signs stand apart from words.
        is_upper: it is in capitals.
        errs: an article is not that of its word.
        first: its first word, as written.
        written: word in lower case -> as written, the first left out.
        is_lower: all these are in lower case.
    """

    end: str
    after_word: str
    is_quoted: bool
    is_spaced: bool
    is_upper: bool
    errs: bool
    first: str
    written: Mapping[str, str]
    is_lower: bool


@lru_cache(maxsize=4096)
def _form(caption: str) -> _Form:
    words = parse(caption)
    end, is_spaced = caption[len(caption.rstrip(".!?…").rstrip()) :], bool(_APART.search(caption))
    return _Form(
        end=end,
        after_word=_spaced(f"a{end}", apart=is_spaced)[1:],
        is_quoted=caption[:1] in "\"'“‘",
        is_spaced=is_spaced,
        is_upper=caption.isupper() and sum(letter.isalpha() for letter in caption) > 3,
        errs=any(_article_wrong(one, two) for one, two in pairwise(words) if one.lower in ("a", "an")),
        first=words[0].text if words else "",
        written={word.lower: word.text for word in words[1:]},
        is_lower=all(word.lower == word.text for word in words[1:]),
    )


def _match_case(form: _Form, text: str) -> str:
    words = parse(text)
    if words and form.is_lower:
        start = text.index(words[0].text)
        stop = start + len(words[0].text)
        if text[stop:] == text[stop:].lower():  # as nearly always
            return text[:start] + _cased(form, words[0], is_first=True) + text[stop:]
    pieces: list[str] = []
    position = kept = 0
    for index, word in enumerate(words):
        start = text.index(word.text, position)
        position = start + len(word.text)
        shown = _cased(form, word, is_first=not index)
        if shown != word.text:
            pieces += (text[kept:start], shown)
            kept = position
    return "".join(pieces) + text[kept:]


def _cased(form: _Form, word: Word, *, is_first: bool) -> str:
    shown, written = word.text, form.written.get(word.lower)
    if not word.is_word or shown == "I":
        return shown
    if written:
        shown = written
    elif word.lower == form.first.lower():
        shown = word.lower
    if is_first and form.first[:1].isupper():
        return shown[:1].upper() + shown[1:]
    if written or not (shown[1:].islower() or (is_first and len(shown) == 1)):
        return shown
    if is_first:
        return shown[:1].lower() + shown[1:]
    return word.lower if shown[:1].isupper() and is_known(word.lower) else shown


def _mended(match: re.Match[str]) -> str:
    article, gap, word = match.groups()
    right = "an" if sounds_vowel(word) else "a"
    if len(word) == 1 or word.isupper():
        return match.group()
    return (right if article.islower() else right.capitalize()) + gap + word


def _article_wrong(one: Word, two: Word) -> bool:
    return two.is_word and (one.lower == "an") != sounds_vowel(two.lower)


@lru_cache(maxsize=65536)
def sounds_vowel(word: str) -> bool:
    """True when the word takes "an"."""
    word = word.lower()
    if word.startswith(_SILENT_H):
        return True
    return (word[:1] in "aeiou" and not word.startswith(_CONSONANT_VOWEL)) or word in ("8", "11", "18")
