"""Words of a caption: tokens, parts of speech, base forms, and what the lexicon knows of them.

The tagger is TextBlob's PatternTagger, whose lexicon ships with the
package and works offline; `data/lexicon/english.yaml` adds the words captions are made of.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import yaml

from pipeline.artifact import digest, file_sha256
from pipeline.assets import DATA
from stages.text.inflection import lemma

TAGGER_VERSION = 1
"""Raised whenever `parse` would give another text other words, tags or base forms."""

LEXICON = DATA / "lexicon" / "english.yaml"

TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['’-][^\W\d_]+)*|[^\w\s]|_")


def word_set(words: str) -> frozenset[str]:
    """The words of a blank-separated list."""
    return frozenset(words.split())


FUNCTION = word_set(
    """a an the this that these those some any each every his her hers its their theirs my your our he she it they them
    him himself herself itself themselves one's i you we us me who whom whose which there here is are was were be been
    being am has have had having do does did and or but nor as while so than then of to too also not no n't"""
)
ARTICLES = word_set("a an the some")
PLACES = word_set(
    """in on at by near beside behind under over above below beneath across against along around between inside outside
    into onto through toward towards with without from during before after off upon within among amid next"""
)
QUANTIFIERS = word_set(
    """several many few multiple various numerous another other one single all both no lots couple bunch group pair
    dozen some"""
)


@dataclass(frozen=True, slots=True)
class Word:
    """One token of a caption.

    Attributes:
        text: as written.
        lower: in lower case.
        lemma: base form (singular, no third-person s), lower case.
        tag: Penn tag, or the token itself for punctuation.
        is_word: False for punctuation.
    """

    text: str
    lower: str
    lemma: str
    tag: str
    is_word: bool

    @property
    def is_noun(self) -> bool:
        """Tagged a noun, or a noun of the lexicon not used as an adjective here."""
        return self.tag.startswith("NN")

    @property
    def is_adjective(self) -> bool:
        """Tagged an adjective."""
        return self.tag.startswith("JJ")

    @property
    def may_be_noun(self) -> bool:
        """Some reading of the word is a noun."""
        known = lexicon()
        return (
            self.is_noun
            or self.lemma in known.nouns
            or (known.is_thing(self.lemma) and self.lemma not in known.adjectives)
        )

    @property
    def may_modify(self) -> bool:
        """Some reading of the word says which or what kind of thing: adjective, number, participle, quantifier."""
        return (
            self.tag[:2] in ("JJ", "CD")
            or self.tag in ("VBN", "VBG", "VBD", "RB", "PDT")
            or self.lemma in lexicon().adjectives
            or self.lower in QUANTIFIERS
            or self.lower.endswith(("ed", "ing", "y", "en", "less", "ful", "ish"))
            or "-" in self.lower
        )

    @property
    def is_content(self) -> bool:
        """Neither punctuation nor a grammatical word."""
        return self.is_word and self.lower not in FUNCTION


@dataclass(frozen=True)
class Lexicon:
    """The data file, indexed. All words are base forms."""

    synonyms: Mapping[str, frozenset[str]]
    kind_of: Mapping[str, frozenset[str]]
    members: Mapping[str, tuple[str, ...]]
    vague: frozenset[str]
    qualities: frozenset[str]
    uncounted: frozenset[str]
    plural_only: frozenset[str]
    foreign: frozenset[str]
    nouns: frozenset[str]
    adjectives: frozenset[str]

    def stays_true(self, old: str, new: str) -> bool:
        """True when `new` in place of `old` leaves a caption true: a synonym, a wider word, a member of a vague one."""
        old_all, new_all = self._names(old), self._names(new)
        wider = any(self._kinds(name) & new_all for name in old_all)
        narrower = any(self._kinds(name) & old_all & self.vague for name in new_all)
        return bool(old_all & new_all) or wider or narrower

    def says_no_more(self, old: str, new: str) -> bool:
        """True when `new` is a synonym of `old` or a wider word."""
        new_all = self._names(new)
        return any(name in new_all or self._kinds(name) & new_all for name in self._names(old))

    def same_or_wider(self, one: str, other: str) -> bool:
        """True when one word is a synonym, a kind or a member of a kind of the other, as far as the lexicon knows."""
        one_all, other_all = self._names(one), self._names(other)
        return bool(
            one_all & other_all
            or any(self._kinds(name) & other_all for name in one_all)
            or any(self._kinds(name) & one_all for name in other_all)
        )

    def siblings(self, word: str, *, quality: bool = False) -> frozenset[str]:
        """Words that share a kind with this one, or else with its synonyms; what may mean the same is left out.

        Args:
            word: base form.
            quality: of kinds of quality (other colours); else of kinds of thing (other animals).
        """
        names = (word,) if word in self.kind_of else self._names(word)
        kinds = {kind for name in names for kind in self.kind_of.get(name, ())}
        near = {member for kind in kinds if (kind in self.qualities) == quality for member in self.members[kind]}
        return frozenset(member for member in near if not self.same_or_wider(word, member))

    def is_quality(self, word: str) -> bool:
        """True for a word of some kind of quality."""
        return not self.qualities.isdisjoint(self.kind_of.get(word, ()))

    def is_thing(self, word: str) -> bool:
        """True for a word that is a kind of thing, or of one."""
        return (
            bool(self.kind_of.get(word, frozenset()) - self.qualities) or word in self.members.keys() - self.qualities
        )

    def _names(self, word: str) -> frozenset[str]:
        return self.synonyms.get(word, frozenset()) | {word}

    def _kinds(self, word: str) -> frozenset[str]:
        direct = self.kind_of.get(word, frozenset())
        return direct.union(*(self._kinds(kind) for kind in direct)) if direct else direct


@cache
def lexicon() -> Lexicon:
    """The lexicon file, read once."""
    data: dict[str, Any] = yaml.safe_load(LEXICON.read_text())
    synonyms: dict[str, set[str]] = {}
    for line in data["synonyms"]:
        for word in line:
            synonyms.setdefault(word, set()).update(line)
    kind_of: dict[str, set[str]] = {}
    for kind, members in data["kinds"].items():
        for word in members:
            kind_of.setdefault(word, set()).add(kind)
    return Lexicon(
        synonyms={word: frozenset(group) for word, group in synonyms.items()},
        kind_of={word: frozenset(kinds) for word, kinds in kind_of.items()},
        members={kind: tuple(members) for kind, members in data["kinds"].items()},
        vague=frozenset(data["vague"]),
        qualities=frozenset(data["qualities"]),
        uncounted=frozenset(data["uncounted"]),
        plural_only=frozenset(data["plural_only"]),
        foreign=frozenset(data["foreign"]),
        nouns=frozenset(data["nouns"]),
        adjectives=frozenset(data["adjectives"]),
    )


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Word, ...]:
    """Tokens of a text with their part of speech and base form."""
    tokens = TOKEN.findall(text)
    lowered = [token.lower() for token in tokens]
    tags = _tags(lowered)
    words = []
    for index, (token, lower, tag) in enumerate(zip(tokens, lowered, tags, strict=True)):
        base = lemma(lower)
        following = tags[index + 1] if index + 1 < len(tags) else ""
        previous = lowered[index - 1] if index else ""
        words.append(_word(token, lower, base, _settle(base, lower, tag, following, previous)))
    return tuple(words)


@lru_cache(maxsize=65536)
def _word(text: str, lower: str, base: str, tag: str) -> Word:
    return Word(text, lower, base, tag, text[0].isalnum())


def _settle(base: str, lower: str, tag: str, following: str, previous: str) -> str:
    """Correct the tagger with the lexicon: a word that is both is an adjective before a noun or adjective."""
    known = lexicon()
    if not lower[0].isalnum() or lower in FUNCTION:
        return tag
    both = base in known.nouns
    if lower in known.adjectives and not tag.startswith(("JJ", "CD")):
        return "JJ" if not both or following[:2] in ("NN", "JJ") else "NN"
    if both and tag.startswith(("VB", "JJ", "RB", "MD")):
        nominal = previous in ARTICLES or previous in ("his", "her", "their", "its", "of", "") or previous in PLACES
        return "NN" if nominal and following[:2] not in ("NN", "JJ") else tag
    return tag


def tagger_digest() -> str:
    """Identity of `parse` beside TextBlob's own version: the rules' version and the lexicon, 16 hex digits."""
    return digest([TAGGER_VERSION, file_sha256(LEXICON)])


def _tags(lowered: list[str]) -> list[str]:
    return [tag for _, tag in _tagger().find_tags(lowered)]


@cache
def _tagger() -> Any:
    from textblob.en import parser

    return parser


@lru_cache(maxsize=65536)
def is_known(word: str) -> bool:
    """True when the tagger's lexicon or ours holds the lower-case word or its base form."""
    forms = {word, lemma(word), *word.split("-")}
    for ending in ("ing", "ed", "er", "ers", "ly", "y"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word.removesuffix(ending)
            forms |= {stem, stem + "e", stem[:-1]}
    tagger, mine = _tagger().lexicon, lexicon()
    return any(form in tagger or form in mine.kind_of or form in mine.synonyms for form in forms)


@lru_cache(maxsize=4096)
def is_english(text: str) -> bool:
    """False when half of a text's words are unknown to the lexicons, or two are grammar words of other languages."""
    words = [word.lower for word in parse(text) if word.is_word and word.lower[0].isalpha()]
    foreign = sum(word in lexicon().foreign for word in words)
    return foreign < 2 and 2 * sum(map(is_known, words)) > len(words)
