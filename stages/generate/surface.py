"""The surface of a negative made equal to its caption's, so that a full stop or a capital never gives it away."""

import re
from itertools import pairwise

from stages.text.words import Word, is_known, parse

_CONSONANT_VOWEL = ("uni", "use", "usu", "euro", "one", "once", "ufo", "utensil", "unicorn")
_SILENT_H = ("hour", "honest", "honor", "honour", "heir")


def match_surface(caption: str, text: str) -> str:
    """Give a candidate the caption's surface: case, final punctuation, spacing, "a"/"an", no wrapping quotes.

    A classifier that sees text alone must not tell a negative by a full stop. Meaning and words stay as they are.
    """
    text = " ".join(text.split())
    caption = " ".join(caption.split())
    if len(text) > 2 and text[0] in "\"'“‘" and text[-1] in "\"'”’" and caption[:1] not in "\"'“‘":
        text = text[1:-1].strip()
    end = re.search(r"\s*[.!?…]*$", caption)
    text = re.sub(r"[\s.!?,;:…]+$", "", text) + (end.group() if end else "")
    text = re.sub(r"\s+([.,;:!?])", r"\1", text)
    if re.search(r"\w [.,;:!?](\s|$)", caption):
        text = re.sub(r"(?<=\w)([.,;:!?])(?=\s|$)", r" \1", text)
    return _match_articles(caption, _match_case(caption, text))


def _match_case(caption: str, text: str) -> str:
    if caption.isupper() and sum(letter.isalpha() for letter in caption) > 3:
        return text.upper()
    as_written = {word.lower: word.text for word in parse(caption)[1:]}
    first = parse(caption)[0].text if caption else ""
    pieces, position = [], 0
    for index, word in enumerate(parse(text)):
        start = text.index(word.text, position)
        pieces.append(text[position:start])
        shown = word.text
        if word.is_word and shown != "I":
            shown = as_written.get(word.lower, shown.lower() if word.lower == first.lower() else shown)
            if index and shown[:1].isupper() and word.lower not in as_written and shown[1:].islower():
                shown = shown if not is_known(shown.lower()) else shown.lower()
            if index == 0 and first[:1].isupper():
                shown = shown[:1].upper() + shown[1:]
            elif index == 0 and word.lower not in as_written:
                shown = shown[:1].lower() + shown[1:] if shown[1:].islower() or len(shown) == 1 else shown
        pieces.append(shown)
        position = start + len(word.text)
    return "".join(pieces) + text[position:]


def _match_articles(caption: str, text: str) -> str:
    if any(_article_wrong(one, two) for one, two in pairwise(parse(caption))):
        return text

    def mended(match: re.Match[str]) -> str:
        article, gap, word = match.groups()
        right = "an" if sounds_vowel(word) else "a"
        if len(word) == 1 or word.isupper():
            return match.group()
        return (right if article.islower() else right.capitalize()) + gap + word

    return re.sub(r"\b([Aa]n?)(\s+)([^\W\d_][\w'’-]*)", mended, text)


def _article_wrong(one: Word, two: Word) -> bool:
    return one.lower in ("a", "an") and two.is_word and (one.lower == "an") != sounds_vowel(two.lower)


def sounds_vowel(word: str) -> bool:
    """True when the word takes "an"."""
    word = word.lower()
    if word.startswith(_SILENT_H):
        return True
    return (word[:1] in "aeiou" and not word.startswith(_CONSONANT_VOWEL)) or word in ("8", "11", "18")
