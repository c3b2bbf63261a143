"""Words of a caption: tokens, parts of speech, base forms, and what the lexicon knows of them.

The tagger is TextBlob's PatternTagger, whose lexicon ships with the
package and works offline; `data/lexicon/english.yaml` adds the words captions are made of.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from itertools import chain
from typing import Any, NamedTuple

import yaml

from pipeline.artifact import digest, file_sha256
from pipeline.assets import DATA
from stages.text.inflection import lemma, verb_stem

TAGGER_VERSION = 2
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

_NOMINAL = ARTICLES | PLACES | word_set("his her their its of")
_COMPARED = re.compile(r"(?:(.)(?=\1))?(?:er|est)$")
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Word:
    """One token of a caption. `parse` gives equal words as one object, so what is asked of a word is found once.

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

    @cached_property
    def is_noun(self) -> bool:
        """Tagged a noun, or a noun of the lexicon not used as an adjective here."""
        return self.tag.startswith("NN")

    @cached_property
    def is_adjective(self) -> bool:
        """Tagged an adjective."""
        return self.tag.startswith("JJ")

    @cached_property
    def may_be_noun(self) -> bool:
        """Some reading of the word is a noun."""
        known = lexicon()
        return (
            self.is_noun
            or self.lemma in known.nouns
            or (known.is_thing(self.lemma) and self.lemma not in known.adjectives)
        )

    @cached_property
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

    @cached_property
    def is_content(self) -> bool:
        """Neither punctuation nor a grammatical word."""
        return self.is_word and self.lower not in FUNCTION

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """One stem, or that of each part of "t-shirt"; "larger" has that of "large", "people" that of "person"."""
        if self.lower == "people":
            return ("person",)
        if self.tag in ("JJR", "JJS"):
            return (verb_stem(_COMPARED.sub("", self.lower)),)
        return tuple(verb_stem(part) for part in self.lower.split("-") if part)


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The data file, indexed. All words are base forms."""

    synonyms: Mapping[str, frozenset[str]]
    kind_of: Mapping[str, frozenset[str]]
    members: Mapping[str, tuple[str, ...]]
    overlapping: Mapping[str, frozenset[str]]
    vague: frozenset[str]
    sorts: Mapping[str, frozenset[str]]
    absurd: tuple[tuple[frozenset[str], frozenset[str]], ...]
    fixed: frozenset[str]
    uncounted: frozenset[str]
    plural_only: frozenset[str]
    foreign: frozenset[str]
    nouns: frozenset[str]
    adjectives: frozenset[str]

    def stays_true(self, old: str, new: str) -> bool:
        """True when `new` in place of `old` may leave a caption true.

        It is a synonym, a wider word, a member of a vague one, or names what may well be in the same picture.
        """
        vaguely = not (self._wider(new) & self.vague).isdisjoint(self._names(old))
        return vaguely or self.says_no_more(old, new) or new in self.overlapping.get(old, _NOTHING)

    def says_no_more(self, old: str, new: str) -> bool:
        """True when `new` is a synonym of `old` or a wider word."""
        names = self._names(new)
        return not (names.isdisjoint(self._names(old)) and names.isdisjoint(self._wider(old)))

    def may_both_hold(self, old: str, new: str) -> bool:
        """True for words of two sorts of quality, where the lexicon knows both: what is large may be red as well."""
        sorts = [{sort for kind in self._wider(word) for sort in self.sorts.get(kind, ())} for word in (old, new)]
        return all(sorts) and sorts[0].isdisjoint(sorts[1])

    def same_or_wider(self, one: str, other: str) -> bool:
        """True when one word is a synonym, a kind or a member of a kind of the other, as far as the lexicon knows."""
        return other in self.related(one)

    @lru_cache(maxsize=65536)  # noqa: B019 - there is one lexicon
    def related(self, word: str) -> frozenset[str]:
        """The word, and all of which `same_or_wider` holds: of one meaning with it, a kind of it, or of its kind."""
        names = self._names(word)
        narrower = (self._members.get(name, _NOTHING) for name in names)
        near = self.overlapping.get(word, _NOTHING)
        return names.union(near, *map(self._names, names | self._wider(word)), *narrower)

    @lru_cache(maxsize=8192)  # noqa: B019 - there is one lexicon
    def siblings(self, word: str, *, quality: bool = False) -> frozenset[str]:
        """Words that share a kind with this one, or else with its synonyms; what may mean the same is left out.

        Args:
            word: base form.
            quality: of kinds of quality (other colours); else of kinds of thing (other animals).
        """
        names = (word,) if word in self.kind_of else self._names(word)
        kinds = {kind for name in names for kind in self.kind_of.get(name, ())}
        near = {member for kind in kinds if (kind in self.qualities) == quality for member in self.members[kind]}
        return frozenset(near - self.related(word))

    def kinds(self, word: str) -> frozenset[str]:
        """Every kind that is true of the word, the kinds of a kind among them."""
        return self._wider(word)

    def is_absurd(self, quality: str, thing: str) -> bool:
        """True when a thing of this kind cannot have the quality: a wooden boy, a young jacket."""
        kinds = {thing} | self._wider(thing)
        return any(quality in qualities and not kinds.isdisjoint(things) for qualities, things in self.absurd)

    def is_quality(self, word: str) -> bool:
        """True for a word of some kind of quality."""
        return not self.qualities.isdisjoint(self.kind_of.get(word, ()))

    def is_thing(self, word: str) -> bool:
        """True for a word that is a kind of thing, or of one."""
        return word in self._things

    @cached_property
    def qualities(self) -> frozenset[str]:
        """The kinds that tell a quality."""
        return frozenset(self.sorts)

    @cached_property
    def _things(self) -> frozenset[str]:
        kinds = self.members.keys() - self.qualities
        return frozenset(kinds).union(*(self.members[kind] for kind in kinds))

    def _names(self, word: str) -> frozenset[str]:
        return self.synonyms.get(word) or frozenset((word,))

    def _wider(self, word: str) -> frozenset[str]:
        return self._kinds.get(word, _NOTHING)

    @cached_property
    def _kinds(self) -> Mapping[str, frozenset[str]]:
        """Word -> every kind of it and of its synonyms, the kinds of a kind among them."""

        @cache
        def above(word: str) -> frozenset[str]:
            direct = self.kind_of.get(word, _NOTHING)
            return direct.union(*map(above, direct))

        known = self.synonyms.keys() | self.kind_of.keys()
        return {word: _NOTHING.union(*map(above, self._names(word))) for word in known}

    @cached_property
    def _members(self) -> Mapping[str, set[str]]:
        """Kind -> every word that `_kinds` says is of it."""
        members: dict[str, set[str]] = {}
        for word, kinds in self._kinds.items():
            for kind in kinds:
                members.setdefault(kind, set()).add(word)
        return members


@cache
def lexicon() -> Lexicon:
    """The lexicon file, read once."""
    data: dict[str, Any] = yaml.safe_load(LEXICON.read_text())

    def grouped(lines: list[list[str]]) -> dict[str, frozenset[str]]:
        return {word: frozenset().union(*(line for line in lines if word in line)) for word in chain(*lines)}

    kind_of: dict[str, set[str]] = {}
    for kind, members in data["kinds"].items():
        for word in members:
            kind_of.setdefault(word, set()).add(kind)
    return Lexicon(
        synonyms=grouped(data["synonyms"]),
        overlapping=grouped(data["overlapping"]),
        kind_of={word: frozenset(kinds) for word, kinds in kind_of.items()},
        members={kind: tuple(members) for kind, members in data["kinds"].items()},
        vague=frozenset(data["vague"]),
        sorts=grouped(data["qualities"]),
        absurd=tuple((frozenset(pair["qualities"]), frozenset(pair["things"])) for pair in data["absurd"]),
        fixed=frozenset(data["fixed"]),
        uncounted=frozenset(data["uncounted"]),
        plural_only=frozenset(data["plural_only"]),
        foreign=frozenset(data["foreign"]),
        nouns=frozenset(data["nouns"]),
        adjectives=frozenset(data["adjectives"]),
    )


@lru_cache(maxsize=16384)
def parse(text: str) -> tuple[Word, ...]:
    """Tokens of a text with their part of speech and base form."""
    tokens = [*chain.from_iterable(map(_tokens, text.split()))]
    words, opens = [], True
    for token, leads in zip(tokens, [*[token.leads for token in tokens[1:]], False], strict=False):
        words.append(token.readings[2 * leads + opens])
        opens = token.opens
    return tuple(words)


@lru_cache(maxsize=16384)
def words_of(text: str) -> tuple[Word, ...]:
    """The words of a text, punctuation left out."""
    return tuple([word for word in parse(text) if word.is_word])


class _Token(NamedTuple):
    """What is known of a token wherever it stands.

    Attributes:
        leads: what stands before it leads to a noun or adjective.
        opens: what stands after it opens a noun phrase.
        readings: the word it is, by 2 * (what follows leads) + (what stands before opens).
    """

    leads: bool
    opens: bool
    readings: tuple[Word, ...]


@lru_cache(maxsize=65536)
def _tokens(piece: str) -> tuple[_Token, ...]:
    """The tokens of what stands between blanks, which no token spans."""
    return tuple(map(_token, TOKEN.findall(piece)))


@lru_cache(maxsize=65536)
def _token(text: str) -> _Token:
    lower = text.lower()
    base, tag = lemma(lower), _tag(lower)
    tags = [_settle(base, lower, tag, leads, opens) for leads in (False, True) for opens in (False, True)]
    words = {tag: Word(text, lower, base, tag, text[0].isalnum()) for tag in tags}
    return _Token(tag.startswith(("NN", "JJ")), lower in _NOMINAL, tuple(words[tag] for tag in tags))


def _settle(base: str, lower: str, tag: str, leads: bool, opens: bool) -> str:
    """Correct the tagger with the lexicon: a word that is both is an adjective before a noun or adjective."""
    known = lexicon()
    if not lower[0].isalnum() or lower in FUNCTION:
        return tag
    both = base in known.nouns
    if lower in known.adjectives and not tag.startswith(("JJ", "CD")):
        return "JJ" if not both or leads else "NN"
    if both and tag.startswith(("VB", "JJ", "RB", "MD")):
        return "NN" if opens and not leads else tag
    return tag


def tagger_digest() -> str:
    """Identity of `parse` beside TextBlob's own version: the rules' version and the lexicon, 16 hex digits."""
    return digest([TAGGER_VERSION, file_sha256(LEXICON)])


@lru_cache(maxsize=65536)
def _tag(lower: str) -> str:
    """The tagger's tag of a lower-case word; it looks at no other words, so a word is tagged once."""
    return str(_tagger().find_tags([lower])[0][1])


@cache
def _tagger() -> Any:
    """TextBlob's English parser, without its package's `__init__`: that imports NLTK, SciPy and scikit-learn."""
    if "textblob" in sys.modules:
        return import_module("textblob.en").parser
    spec = find_spec("textblob")
    assert spec
    sys.modules["textblob"] = module_from_spec(spec)  # knows its folder, and is not executed
    try:
        return import_module("textblob.en").parser
    finally:
        del sys.modules["textblob"]


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


@lru_cache(maxsize=65536)
def is_verb(base: str) -> bool:
    """True for a lower-case base form that the tagger takes for a verb, and our lexicon for no noun."""
    return _tag(base).startswith("VB") and base not in lexicon().nouns


@lru_cache(maxsize=4096)
def is_english(text: str) -> bool:
    """False when half of a text's words are unknown to the lexicons, or two are grammar words of other languages."""
    words = [word.lower for word in parse(text) if word.is_word and word.lower[0].isalpha()]
    foreign = sum(word in lexicon().foreign for word in words)
    return foreign < 2 and 2 * sum(map(is_known, words)) > len(words)
