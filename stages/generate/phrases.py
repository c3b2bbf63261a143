"""A caption's noun phrases and their places in its text, found by patterns over the tags of its words.

An edit names characters of the caption, so what no edit names stays as it was written. What does not surely begin and
end as a noun phrase is not taken for one: a phrase missed costs a proposal, one that is none a bad negative.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from stages.generate.surface import sounds_vowel
from stages.text.inflection import third_person, without_third_person
from stages.text.words import FUNCTION, PLACES, TOKEN, Word, is_verb, lexicon, parse, word_set

_GROUPS = word_set(
    """group crowd bunch couple pair number lot herd flock team row line pack crew family lots variety assortment array
    collection selection family audience orchestra"""
)
_NO_THINGS = word_set(
    """top front back side middle center centre edge left right bottom background foreground way end other others
    one ones each kind sort type part something someone somebody everyone nothing anything same
    photo photograph picture image view closeup close-up shot scene"""
)
_THINGS_IN_ING = word_set(
    """building painting clothing wedding railing ceiling crossing landing string ring swing wing thing king opening
    frosting topping pudding earring drawing bedding flooring evening morning"""
)
_COUNTS = word_set("several many few both multiple various numerous")
_TO_BE = word_set("is are was were has have does do")
_DETERMINERS = word_set("a an the his her its their")
_PLURALS = word_set("people men women children police")
_ADJECTIVAL = re.compile(r"\d.*-|.*-\w+(?:ed|en|ing)$")
"""A compound that says what a thing is like: "hand-painted", "3-piece"."""

_LETTERS = (  # the first that holds; a noun is n or m (plural), a finite verb z
    ("a", word_set("a an")),
    ("t", word_set("the this these those another each every some any no")),
    ("h", word_set("his her its their my your our")),
    ("&", word_set("and or , &")),
    ("c", _COUNTS),
    ("z", _TO_BE),
    ("x", _NO_THINGS),
    ("i", PLACES | {"of", "to", "like"}),
    ("k", word_set("who that which")),
    ("o", FUNCTION),
)
_BY_TAG = {"CD": "c", "JJ": "j", "JJR": "j", "JJS": "j", "VBG": "v", "VBN": "w", "VBD": "w", "VBZ": "z", "VBP": "z",
           "VB": "b", "RB": "r", "NN": "n", "NNS": "m", "IN": "i", "TO": "i"}  # fmt: skip

_PHRASE = re.compile(
    r"(?:[ath]?j*qf)?(?:[ath](?:[rj]*h)?c?[rjvwx]*(?:&[rjw]*[jw])*|c?(?:r*j+(?:&r*j+)*)?)(?P<noun>[nm]*[nm])"
)


_OPEN = re.compile(r"[athc][rjvwxbu]+$|(?:^|j)v$")
"""Before a noun without determiner: one that waits for its noun ("a stop sign"), a participle of its own ("living")."""


class Edit(NamedTuple):
    """Characters start..stop of the caption become `text`."""

    start: int
    stop: int
    text: str


Places = tuple[int, int]
"""Words first..stop of a caption, stop left out."""


class Phrase(NamedTuple):
    """A noun phrase.

    Attributes:
        place: its words.
        noun: those of its noun, a compound whole.
        is_plural: its verb stands in the plural.
        determiner: letter of its first word: a, t "the", h possessive, c count, q "a group of"; "" when it has none.
    """

    place: Places
    noun: Places
    is_plural: bool
    determiner: str


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with the edits made. Raises ValueError when two overlap."""
    pieces, end = [], 0
    for start, stop, new in sorted(edits):
        if start < end:
            raise ValueError(f"edits overlap at character {start}")
        pieces += [text[end:start], new]
        end = stop
    return "".join([*pieces, text[end:]])


@dataclass(frozen=True)
class Caption:
    """A caption as words that know their characters."""

    text: str

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """Its words and signs."""
        return parse(self.text)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        return [match.span() for match in TOKEN.finditer(self.text)]

    def span(self, place: Places) -> tuple[int, int]:
        """First and last character of some words, the latter left out."""
        return self._spans[place[0]][0], self._spans[place[1] - 1][1]

    def piece(self, place: Places) -> str:
        """The characters of some words, as they would stand inside the caption."""
        text = self.text[slice(*self.span(place))]
        return (
            text if place[0] else text[0].lower() + text[1:] if not text[1:2].isupper() and text[:2] != "I " else text
        )

    @cached_property
    def letters(self) -> str:
        """One letter per word: its class."""
        letters = "".join(self._letter(i) for i in range(len(self.words)))
        things = [lexicon().is_thing(word.lemma) for word in self.words]
        changed = list(letters)
        # A noun in -s after "a dog", and one that is no thing after "the dog" or before "a", is a verb ("a man surfs a
        # wave"); so is a noun or an infinitive right after a plural ("people transport bags"), and one in -ing after
        # who does it ("a man fishing") or after "is".
        for match in re.finditer(
            r"a[jvr]*n+(m)(?![nm])|(?:[thj](n)+|k)m(?=[athciro.&]|$)|(?<![athcjnm&])m(?=[ath])", letters
        ):
            place = match.end() - 1
            if match[1] or not things[place]:
                changed[place] = "z" if not match[2] or self._may_do(place - 1, place) else "u"
        for match in re.finditer(r"(?<![nma])m(b|n(?=[athcjirp&.]))", letters):
            if match[1] == "b" or not things[match.start() + 1]:
                changed[match.start() + 1] = "z"
        for match in re.finditer(r"[ath][jn]*(b)(?![nm])", letters):  # "a polar bear"
            if things[match.start(1)]:
                changed[match.start(1)] = "n"
        for place, word in enumerate(self.words):
            if changed[place] == "m" and not things[place]:  # "crawls", "stands ... and howls at"
                joins_verb = "z" in changed[:place] and letters[place - 1 : place + 2] == "&mi"
                changed[place] = "u" if joins_verb or is_verb(word.lemma) else "m"
            elif changed[place] == "n" and word.lower.endswith("ing") and word.lower not in _THINGS_IN_ING:
                following = changed[place + 1] if place + 1 < len(changed) else "."
                if place and changed[place - 1] in "zrnm" and following in "iathcr.&":
                    changed[place] = "v"
        return "".join(changed)

    def _may_do(self, doer: int, verb: int) -> bool:
        """True when a noun and one in -s behind it may be who does what: "the dog toys", not "the ocean waves"."""
        kinds = lexicon().kinds(self.words[doer].lemma)
        return not kinds.isdisjoint(("person", "animal")) or is_verb(self.words[verb].lemma)

    @cached_property
    def _quoted(self) -> frozenset[int]:
        """Places of words between double quotes, which are no part of the sentence."""
        marks = [i for i, word in enumerate(self.words) if word.text in '"“”']
        return frozenset(i for start, end in zip(marks[::2], marks[1::2], strict=False) for i in range(start, end))

    @cached_property
    def _is_title(self) -> bool:
        """Most words begin with a capital, which then says nothing."""
        capitals = [word.text[0].isupper() for word in self.words[1:] if word.is_word]
        return 2 * sum(capitals) > len(capitals)

    def _is_name(self, index: int) -> bool:
        """True for a noun with a capital inside the sentence, but for "a man in a Santa suit" and "a TV"."""
        word, before = self.words[index], self.words[index - 1].text
        if not index or not word.text[0].isupper() or self._is_title:
            return False
        return not lexicon().is_thing(word.lemma) or (index > 1 and before[0].isupper())

    def _letter(self, index: int) -> str:
        word = self.words[index]
        following = self.words[index + 1].lower if index + 1 < len(self.words) else ""
        if word.text in "'’" or (index and self.words[index - 1].text in "'’"):
            return "'"
        if (not word.is_word and word.text not in ",&") or index in self._quoted:
            return "."
        if word.lower.endswith(("'s", "’s")):
            return "h"
        if following == "of" and word.lower in _GROUPS:
            return "q"
        if word.lower == "of" and index and self.words[index - 1].lower in _GROUPS:
            return "f"
        if word.lower in ("up", "down"):
            return "i" if following in _DETERMINERS else "r"
        for letter, members in _LETTERS:
            if word.lower in members or (letter == "x" and word.lemma in members):
                return letter
        if word.tag.startswith("NN"):
            if (
                word.lower in lexicon().adjectives
                and lexicon().is_quality(word.lower)
                and not lexicon().is_thing(word.lower)
            ):
                return "j"
            if _ADJECTIVAL.match(word.lower):
                return "j"
            if self._is_name(index):
                return "x"
            return "m" if word.tag.endswith("S") or word.lower in _PLURALS else "n"
        return _BY_TAG.get(word.tag, "u")

    @cached_property
    def phrases(self) -> list[Phrase]:
        """Its noun phrases, in order."""
        found = []
        letters = self.letters
        for match in _PHRASE.finditer(letters):
            first, stop = match.span()
            determiner = match[0][0] if match[0][0] in "athc" else ""
            determiner = "q" if "q" in match[0] else determiner
            if self._is_doubtful(match, determiner):
                continue
            head = match[0][-1]
            is_plural = head == "m" or determiner == "q"
            noun = match.start("noun")
            while noun > first and f"{self.words[noun - 1].lower} {self.words[noun].lemma}" in lexicon().fixed:
                noun -= 1
            found.append(Phrase((first, stop), (noun, stop), is_plural, determiner))
        return found

    def _is_doubtful(self, match: re.Match[str], determiner: str) -> bool:
        """True when the phrase may begin earlier or end later, or is none: its noun lacks an article, or number."""
        letters, head = self.letters, match[0][-1]
        (first, stop), last = match.span(), self.words[match.end() - 1]
        before, after = letters[:first], letters[stop:]
        if before.endswith(tuple("jrcqathxfu'")) or after.startswith((*"cnmqxu'", "wn", "wm")):
            return True
        if last.lower in _GROUPS or last.lemma in _GROUPS or self._goes_on(stop):
            return True
        if letters[first] in "hq" and (before.endswith(("n", "m")) or _OPEN.search(before)):
            return True
        plurals = [self.words[i] for i in range(first, stop - 1) if letters[i] == "m"]
        if any(word.lower not in lexicon().plural_only for word in plurals):
            return True
        may_do = head == "m" or not lexicon().kinds(self.words[stop - 2].lemma).isdisjoint(("person", "animal"))
        if len(match["noun"]) > 1 and may_do and not lexicon().is_thing(last.lemma):  # "rope smiles", "a kitten fight"
            return True
        if determiner:
            is_one = self.words[first].lower in ("a", "an", "one", "1")
            counts_on = determiner == "c" and before.endswith(("n", "m"))  # "size 8"
            return counts_on or (determiner in "ac" and (head == "m") == is_one)
        if (
            before.endswith(("w", "n", "m", "x&", "iv", "inv"))
            or after.startswith(("j", "w", "b"))
            or _OPEN.search(before)
        ):
            return True
        is_countable = lexicon().is_thing(last.lemma) and last.lemma not in lexicon().uncounted
        return head == "n" and (("a" in before and is_countable) or (before.endswith("i") and after.startswith("v")))

    def _goes_on(self, stop: int) -> bool:
        """True when the word after a singular noun belongs to it, or to a noun behind it: "a rope net", "a swing set".

        Not so a participle: "a boy dressed as a pirate".
        """
        if self.letters[stop - 1] != "n" or stop == len(self.words):
            return False
        after, word = self.letters[stop:], self.words[stop].lower
        if word.endswith(("'s", "’s")):
            return True
        if re.match(r"&j+[nm]", after) and self.words[stop - 1].lemma in lexicon().adjectives:  # "a square, tall cake"
            return True
        is_said = word.endswith(("ed", "ing")) and after[1:2] in tuple("iorath.&")
        may_be_noun = after[0] in "wb" and word in lexicon().nouns
        return may_be_noun or (after[0] == "j" and not is_said) or bool(re.match(r"&[nj]+[jw][nm]", after))

    def adjectives(self, *, numbers: bool = False) -> list[tuple[int, Phrase]]:
        """Each word that says a quality (or a number) of a noun phrase's thing, with the phrase."""
        return [
            (i, phrase)
            for phrase in self.phrases
            for i in range(phrase.place[0], phrase.noun[0])
            if (self.letters[i] == "j" and not self._is_joined(i) and not (i and self._is_joined(i - 1)))
            or (numbers and self.words[i].tag == "CD" and self.words[i].lower.isalpha())
        ]

    def _is_joined(self, index: int) -> bool:
        """True for the first word of "old fashioned" and "stone paved"."""
        return (
            self.letters[index] in "jn"
            and self.letters[index + 1] in "jw"
            and self.words[index + 1].lower.endswith("ed")
        )

    def dealt(self, places: Sequence[Places], order: Sequence[int]) -> tuple[Edit, ...] | None:
        """Some stretches dealt anew among their places: at place i stands what stood at place order[i].

        None when a verb's number cannot be made that of its new subject.
        """
        moved = {places[i]: self.piece(places[j]) for i, j in enumerate(order) if i != j}
        by_place = {phrase.place: phrase for phrase in self.phrases}
        numbers = {
            by_place[places[i]]: by_place[places[j]].is_plural
            for i, j in enumerate(order)
            if places[i] in by_place and places[j] in by_place
        }
        return self.replaced(
            moved, {phrase: plural for phrase, plural in numbers.items() if plural != phrase.is_plural}
        )

    def replaced(
        self, new: Mapping[Places, str], numbers: Mapping[Phrase, bool] | None = None
    ) -> tuple[Edit, ...] | None:
        """Other text at some places; "a" and "an" before them, a capital at the start and verbs are mended.

        Args:
            new: place -> what shall stand there.
            numbers: phrases that become singular or plural -> whether plural.

        None when a verb cannot be made to agree.
        """
        edits = []
        for (first, stop), text in new.items():
            start, end = self.span((first, stop))
            if not self._spans[0][0] < start and self.text[start].isupper():
                text = text[0].upper() + text[1:]
            edits.append(Edit(start, end, text))
            if first and self.words[first - 1].lower in ("a", "an") and not any(p[1] == first for p in new):
                article = self.words[first - 1].text
                right = article[0] + ("n" if sounds_vowel(text) else "")
                if right != article:
                    edits.append(Edit(*self._spans[first - 1], right))
        for place, word in enumerate(self.words):
            if numbers and self.letters[place] == "z":
                form = self._agreeing(place, word, numbers)
                if form is None:
                    return None
                if form != word.lower:
                    edits.append(Edit(*self._spans[place], form))
        return tuple(sorted(edits))

    def _agreeing(self, place: int, word: Word, numbers: Mapping[Phrase, bool]) -> str | None:
        """A verb's form after its subject's number changed; its own when it did not, None when that is not sure."""
        subject = self._subject(place)
        if subject is None:
            return None if any(phrase.place[0] < place for phrase in numbers) else word.lower
        if subject not in numbers:
            return word.lower
        is_singular = without_third_person(word.lower) is not None
        if numbers[subject]:
            return without_third_person(word.lower)
        return word.lower if is_singular else third_person(word.lower)

    def _subject(self, verb: int) -> Phrase | None:
        """The phrase a verb stands after, or whose "in ..." or "wearing ..." it stands after; None when not sure."""
        by_end = {phrase.place[1]: phrase for phrase in self.phrases}
        end = verb
        while end and self.letters[end - 1] == "r":
            end -= 1
        if end and self.letters[end - 1] == "k":
            return by_end.get(end - 1)
        found = by_end.get(end)
        while found and found.place[0]:
            end = found.place[0]
            while end and self.letters[end - 1] in "ivwr":
                end -= 1
            if self.letters[found.place[0] - 1] == "&" or (end and self.letters[end - 1] == "&"):
                return None
            if end == found.place[0]:
                break
            found = by_end.get(end)
        return found
