"""What a caption binds together: attributes to objects, and objects to each other by a relation.

Read from the tags of `words.parse` by rules, without a parser of syntax: a noun phrase is adjectives and participles up
to the last noun of a row of nouns; "the dog is black" binds as "a black dog" does; what stands between two noun phrases
(verb, prepositions) is the relation. A number or a quantifier is no attribute, and a noun before a noun ("bathroom
mirror") is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stages.text.inflection import verb_stem
from stages.text.words import PLACES, QUANTIFIERS, Word, lexicon, parse, word_set

VERSION = 1
"""Raised whenever `bindings` would find others in a text that is tagged alike."""

_NO_ATTRIBUTE = QUANTIFIERS | word_set("other same own next such more most less different")
_NO_OBJECT = word_set("picture photo photograph image view scene background foreground thing")
_SIDES = word_set("left right top front back side middle bottom center centre edge corner")
"""Nouns that are part of a relation before "of": "to the left of", "on top of"."""
_CLAUSE = word_set("while as but because when where since although though if so")
_RELATIVE = word_set("that which who")
_NO_RELATION = _CLAUSE | _RELATIVE | {"being", "been"}

Attribute = tuple[str, str]
"""(attribute, object), base forms: ("red", "ball")."""

Relation = tuple[str, str, str]
"""(object, relation, object), base forms and stems of verbs: ("man", "rid", "horse"), ("cup", "on", "table")."""


class Bindings(NamedTuple):
    """All bindings of one or more texts."""

    attributes: frozenset[Attribute]
    relations: frozenset[Relation]


def bindings(text: str) -> Bindings:
    """The bindings of a caption; equal for "a red ball" and "Two balls are red"."""
    scan = _Scan()
    words = _settled(parse(text))
    for place, word in enumerate(words):
        scan.take(words, place, word)
    return Bindings(frozenset(scan.attributes), frozenset(scan.relations))


def _settled(words: Sequence[Word]) -> list[Word]:
    """The words with mistakes of the tagger mended: "a teddy bear and", "a man surfing in", "a man rides a"."""
    settled: list[Word] = []
    for place, word in enumerate(words):
        before = settled[-1].tag if settled else ""
        following = words[place + 1].tag if place + 1 < len(words) else ""
        if word.tag in ("VB", "VBP") and before in ("NN", "JJ", "DT") and word.is_content:
            settled.append(replace(word, tag="NN"))
        elif word.is_noun and before.startswith("NN") and _acts(word, following):
            settled.append(replace(word, tag="VBZ"))
        else:
            settled.append(word)
    return settled


def _acts(word: Word, following: str) -> bool:
    """A word tagged a noun, right after a noun, is a verb: what follows is its object or place."""
    if word.tag == "NNS" and following in ("DT", "PRP$", "CD"):
        return True
    goes_on = following in ("IN", "TO", "DT", "PRP$", "RB", "RP") and word.lemma not in lexicon().nouns
    return goes_on and (word.tag == "NNS" or word.lower.endswith("ing"))


@dataclass
class _Scan:
    """One pass over a caption.

    Attributes:
        pending: attributes whose noun is still to come.
        between: words since the last noun phrase.
        subject: the noun that verbs speak of; last: the latest noun; linked: subject of the latest relation.
        opening: preposition and noun that stand before any subject ("above a star there is a ring").
    """

    attributes: list[Attribute] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    between: list[Word] = field(default_factory=list)
    subject: str | None = None
    last: str | None = None
    linked: str | None = None
    opening: tuple[str, str] | None = None

    def take(self, words: Sequence[Word], place: int, word: Word) -> None:
        """Read the next word."""
        following = words[place + 1] if place + 1 < len(words) else None
        if word.lower in (".", ";", "!", "?"):
            self._forget()
        elif _is_counted(words, place):
            self.pending.clear()
        elif _is_attribute(words, place):
            self._attribute(words, place, word)
        elif word.is_noun and word.is_content and not _is_side(words, place):
            if following is None or not following.is_noun or _is_side(words, place + 1):
                self._bind(word.lemma, following)
        elif word.lower in ("and", ",") and following and following.is_adjective and self.pending:
            self.between.append(word)
        elif word.lower in ("it", "him", "her", "them"):
            self._refer()
        elif word.tag not in ("CD", "RB"):
            self.pending.clear()
            self.between.append(word)

    def _attribute(self, words: Sequence[Word], place: int, word: Word) -> None:
        """Said of the noun before it ("the dog is black"), or kept for the one to come."""
        if self.last and self._is_predicate() and not _has_noun_ahead(words, place):
            self.attributes.append((word.lemma, self.last))
        else:
            self.pending.append(word.lemma)

    def _is_predicate(self) -> bool:
        """Only a form of "be", adverbs and joined adjectives since the last noun."""
        said = [word for word in self.between if word.lower not in ("and", ",")]
        return bool(said) and all(word.lemma == "be" for word in said)

    def _bind(self, noun: str, following: Word | None) -> None:
        if noun in _NO_OBJECT:
            self._forget()
            return
        self.attributes += [(attribute, noun) for attribute in self.pending]
        self._relate(noun, following)
        self.pending.clear()
        self.between.clear()
        self.last = noun

    def _relate(self, noun: str, following: Word | None) -> None:
        said = [word.lower for word in self.between]
        relation, has_verb = _relation(self.between)
        if self.last is None:
            self.opening = (relation, noun) if relation not in ("", "of") and not has_verb else None
            self.subject = None if self.opening else noun
        elif self.opening and _has_no_place(self.between):
            self.relations.append((noun, *self.opening))
            self.opening, self.subject, self.linked = None, noun, noun
        elif "there" in said or not _CLAUSE.isdisjoint(said):
            self.subject = noun
        elif relation:
            joined = said[0] in ("and", ",")
            start = self.linked if joined and not has_verb else self.subject if has_verb else self.last
            if not _RELATIVE.isdisjoint(said):
                start = self.last
            start = start or self.last
            self.relations.append((start, relation, noun))
            self.linked = start
        elif self.last == self.subject or (following and following.tag.startswith("VB")):
            self.subject = noun

    def _refer(self) -> None:
        """ "A house has a tree behind it": what the house has is behind the house."""
        place, has_verb = _relation(self.between)
        if self.relations and place and not has_verb:
            start, relation, thing = self.relations[-1]
            if relation == "have" and thing == self.last:
                self.relations[-1] = (thing, place, start)

    def _forget(self) -> None:
        """Start anew, as at the beginning of a sentence."""
        self.subject = self.last = self.linked = self.opening = None
        self.pending.clear()
        self.between.clear()


def _is_counted(words: Sequence[Word], place: int) -> bool:
    """ "group of", "lots of", word by word: it says how many, and is no object."""
    first = place - (words[place].lower == "of")
    return (
        0 <= first < len(words) - 1 and words[first].lemma in QUANTIFIERS | {"lot"} and words[first + 1].lower == "of"
    )


def _is_side(words: Sequence[Word], place: int) -> bool:
    if place >= len(words) or words[place].lower not in _SIDES or (place and words[place - 1].is_noun):
        return False
    return place + 1 == len(words) or words[place + 1].lower in ("of", ".")


def _is_attribute(words: Sequence[Word], place: int) -> bool:
    """An adjective, or a participle that stands where adjectives stand."""
    word, known = words[place], lexicon().adjectives
    if word.lower in _NO_ATTRIBUTE or not word.is_content or word.lower in PLACES:
        return False
    following = words[place + 1] if place + 1 < len(words) else None
    if word.is_noun:
        # The tagger takes a colour before "and" or a participle for a noun: "a black and white cat".
        over = words[place + 1 : place + 3]
        joined = len(over) == 2 and over[0].lower in ("and", ",") and over[1].is_adjective
        stands = joined or (following is not None and following.tag in ("VBN", "VBD"))
        return word.lower in known and stands and _has_noun_ahead(words, place + joined)
    if word.tag in ("VBN", "VBG", "VBD") or (word.is_adjective and word.lower.endswith("ing")):
        before = words[place - 1] if place else None
        opening = ("DT", "PRP$", "JJ", "CD") if word.lower.endswith("ing") else ("DT", "PRP$", "JJ", "CD", "IN", "CC")
        opens = before is not None and (before.tag in opening or before.lower in known)
        return opens and following is not None and (following.is_noun or following.is_adjective)
    return word.is_adjective


def _has_noun_ahead(words: Sequence[Word], place: int) -> bool:
    """The adjective at `place` leads, over adjectives alone, to a noun."""
    for word in words[place + 1 :]:
        if word.is_noun:
            return True
        if not (word.is_adjective or word.tag in ("VBN", "VBD")):
            return False
    return False


def _relation(between: Sequence[Word]) -> tuple[str, bool]:
    """The relation as text, empty for none, and whether it has a verb."""
    said, has_verb = [], False
    for word in between:
        if word.lemma == "be" or word.lower in _NO_RELATION:
            continue
        if word.tag.startswith("VB") or word.lower.endswith("ing"):
            has_verb = True
            said.append("have" if word.lemma == "have" else verb_stem(word.lower))
        elif word.tag in ("IN", "TO", "RP") or word.lower in PLACES or word.lower in _SIDES or word.lower == "next":
            said.append(word.lower)
    return " ".join(said), has_verb


def _has_no_place(between: Sequence[Word]) -> bool:
    return not any(word.tag in ("IN", "TO") or word.lower in PLACES for word in between)
