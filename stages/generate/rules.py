"""The generator that needs no model: rewrites by part of speech, for real English and the built-in world alike.

Each type of `PROPOSALS` proposes rewrites in an order drawn from the request's seed; the first one that the checks
accept is the response, and "not applicable" when none is, or when the type is not in the table. Replacement words come
from the corpus itself, drawn by their frequency, from the same kind where the lexicon knows it (a colour for a colour),
never one that could still be true: no synonym, no wider or narrower word, no word of another caption of the same image.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import Any

from pipeline.artifact import path_digest
from pipeline.negative_types import PARAPHRASE
from pipeline.stage import Inputs
from stages.generate.checks import NOT_APPLICABLE, validate
from stages.language_models.base import Backend, Corpus, Message, Request, Response, Settings, Ticker
from stages.text.inflection import lemma, plural
from stages.text.words import LEXICON, PLACES, QUANTIFIERS, TOKEN, Word, lexicon, parse

VERSION = 1
MOST_PROPOSALS = 40
"""Rewrites tried per request."""

SAMPLE = 50_000
"""Captions the vocabulary is counted from."""

_NOT_REPLACED = QUANTIFIERS | {"top", "front", "back", "side", "way", "next", "left", "right", "middle", "own", "same"}


@dataclass
class Vocabulary:
    """Words of the corpus with their frequency, by part of speech (NN, NNS, JJ) and by base form.

    Attributes:
        counts: part of speech -> word -> how often.
    """

    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {"NN": Counter(), "NNS": Counter(), "JJ": Counter()}
    )

    @classmethod
    def of(cls, captions: Iterable[str]) -> "Vocabulary":
        """Count the words of these captions; words seen once in a large corpus are left out as likely misspelt."""
        found = cls()
        total = 0
        for caption in captions:
            total += 1
            for word in parse(caption):
                if word.tag in found.counts and word.is_content and word.lower.isalpha() and len(word.lower) > 2:
                    found.counts[word.tag][word.lower] += 1
        if total > 1000:
            for tag, counted in found.counts.items():
                found.counts[tag] = Counter({word: count for word, count in counted.items() if count > 1})
        return found

    def draw(self, word: Word, tag: str, rng: random.Random) -> Iterator[str]:
        """Words to put in place of `word`: first of its own kind, then of its part of speech, without end."""
        near = sorted(lexicon().siblings(word.lemma))
        if near:
            surface = [self._as(tag, name) for name in near]
            weights = [1 + self.counts[tag][name] for name in surface]
            yield from rng.choices(surface, weights, k=12)
        common = self.counts[tag].most_common(400)
        if common:
            words, weights = [name for name, _ in common], [count for _, count in common]
            while True:
                yield from rng.choices(words, weights, k=12)

    def _as(self, tag: str, name: str) -> str:
        if tag != "NNS":
            return name
        known = next((word for word in self.counts["NNS"] if lemma(word) == name), None)
        return known or plural(name)


class RulesBackend(Backend):
    """No model: `generate.model` is not looked at."""

    needs_prompt = False
    is_paid = False
    repairs = False

    def identity(self, settings: Settings) -> str:
        """The rules' version."""
        return f"rules {VERSION}"

    def source(self, settings: Settings, prompt: str, inputs: Inputs) -> dict[str, Any]:
        """The corpus, whose words are used, and the lexicon."""
        facts = {"pairs": inputs["pairs"].digest, "lexicon": path_digest(LEXICON)}
        return {**super().source(settings, prompt, inputs), **facts}

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> "Rules":
        """Count the words of the corpus."""
        return Rules(Vocabulary.of(corpus(SAMPLE)))


class Rules:
    """The rules as a language model. Deterministic: the same caption, seed and corpus give the same response."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def respond(self, kind: str, prefix: list[Message], requests: Sequence[Request], tick: Ticker) -> list[Response]:
        """Responses in the order of the requests; the prompt is not looked at."""
        responses = []
        for request in requests:
            responses.append(Response(self._rewrite(kind, request), "stop"))
            tick(1)
        return responses

    def facts(self) -> dict[str, Any]:
        """Sizes of the vocabulary, by part of speech."""
        return {"vocabulary": {tag: len(counted) for tag, counted in self._vocabulary.counts.items()}}

    def close(self) -> None:
        """Nothing to release."""

    def _rewrite(self, kind: str, request: Request) -> str:
        if kind not in PROPOSALS:
            return NOT_APPLICABLE
        avoid = _words_of(request.avoid, request.caption)
        task = _Task(_Caption.of(request.caption), random.Random(request.seed), avoid, self._vocabulary)
        for text in islice(PROPOSALS[kind](task), MOST_PROPOSALS):
            verdict = validate(kind, request.caption, text, request.avoid)
            if verdict.status == "accepted" and verdict.text:
                return verdict.text
        return NOT_APPLICABLE


@dataclass(frozen=True)
class _Caption:
    """A caption as (gap, token) pieces, so that pieces can move and the text be put together again."""

    words: tuple[Word, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "_Caption":
        gaps, end = [], 0
        for match in TOKEN.finditer(text):
            gaps.append(text[end : match.start()])
            end = match.end()
        return cls(parse(text), tuple(gaps))

    def nouns(self) -> list[int]:
        """Places of head nouns: a noun not followed by another noun."""
        last = len(self.words) - 1
        return [
            i
            for i, word in enumerate(self.words)
            if word.is_noun and word.is_content and (i == last or not self.words[i + 1].is_noun)
        ]

    def adjectives(self, *, numbers: bool = False) -> list[int]:
        """Places of adjectives that stand before a noun (adjectives may stand between)."""
        found = []
        for i, word in enumerate(self.words):
            describes = word.is_adjective or (numbers and word.tag == "CD" and word.lower.isalpha())
            if describes and word.lower not in QUANTIFIERS and self._head(i) is not None:
                found.append(i)
        return found

    def _head(self, place: int) -> int | None:
        for i in range(place + 1, len(self.words)):
            if self.words[i].is_noun:
                return i
            if self.words[i].tag[:2] not in ("JJ", "CD") and self.words[i].lower not in ("and", ","):
                return None
        return None

    def head(self, place: int) -> int:
        """Place of the noun an adjective describes; its own place when there is none."""
        found = self._head(place)
        return place if found is None else found

    def phrases(self) -> list[tuple[int, int]]:
        """Noun phrases as [start, stop): article or possessive, numbers, adjectives (joined by "and" too), nouns."""
        found: list[tuple[int, int]] = []
        start: int | None = None
        for i, word in enumerate(self.words):
            last = i + 1 == len(self.words)
            if word.tag in ("DT", "PRP$"):
                start = i
            elif word.tag == "CD" or word.is_adjective or word.is_noun:
                start = i if start is None else start
                if word.is_noun and (last or not self.words[i + 1].is_noun):
                    found.append((start, i + 1))
                    start = None
            elif start is None or word.lower not in ("and", ",") or last or not self.words[i + 1].is_adjective:
                start = None
        return found

    def replaced(self, place: int, new: str) -> str:
        """The text with one word in place of another."""
        tokens = [word.text for word in self.words]
        tokens[place] = new
        return "".join(gap + token for gap, token in zip(self.gaps, tokens, strict=True))

    def arranged(self, order: Sequence[int]) -> str:
        """The text with the words in another order, gaps made regular."""
        return " ".join(self.words[i].text for i in order)

    def exchanged(self, one: tuple[int, int], other: tuple[int, int]) -> str:
        """The text with two spans [start, stop) in each other's place; `one` comes first."""
        a, b, c, d = *one, *other
        everything = range(len(self.words))
        return self.arranged([*everything[:a], *everything[c:d], *everything[b:c], *everything[a:b], *everything[d:]])


@dataclass(frozen=True)
class _Task:
    """A caption to rewrite.

    Attributes:
        caption: the caption.
        rng: decides the order of the proposals.
        avoid: base forms that no replacement may mean.
        vocabulary: of the corpus.
    """

    caption: _Caption
    rng: random.Random
    avoid: frozenset[str]
    vocabulary: Vocabulary


def _noun_replacements(task: _Task) -> Iterator[str]:
    """One noun in place of another."""
    return _replacements(task, task.caption.nouns())


def _adjective_replacements(task: _Task) -> Iterator[str]:
    """One describing word in place of another."""
    return _replacements(task, task.caption.adjectives(numbers=True))


def _replacements(task: _Task, places: list[int]) -> Iterator[str]:
    known, words = lexicon(), task.caption.words
    places = [i for i in places if words[i].lower not in _NOT_REPLACED]
    task.rng.shuffle(places)
    places.sort(key=lambda i: not known.siblings(words[i].lemma))
    for place in places:
        word = words[place]
        tag = "JJ" if word.tag[:2] in ("JJ", "CD") else "NNS" if word.tag == "NNS" else "NN"
        tried: set[str] = set()
        for new in islice(task.vocabulary.draw(word, tag, task.rng), 48):
            base = lemma(new)
            if new in tried or (word.tag == "CD" and new == "one"):
                continue
            tried.add(new)
            if not any(known.same_or_wider(base, other) for other in task.avoid | {word.lemma}):
                yield task.caption.replaced(place, new)


def _noun_swaps(task: _Task) -> Iterator[str]:
    """Two head nouns, or two noun phrases, in each other's place; equal number first, as verbs then still agree."""
    caption = task.caption
    nouns = [(i, i + 1) for i in caption.nouns()]
    spans = [(pair, 0) for pair in combinations(nouns, 2)] + [(pair, 1) for pair in combinations(caption.phrases(), 2)]
    task.rng.shuffle(spans)

    def clumsiness(item: tuple[tuple[tuple[int, int], tuple[int, int]], int]) -> tuple[bool, bool]:
        (one, other), _ = item
        first, second = caption.words[one[1] - 1], caption.words[other[1] - 1]
        return first.tag != second.tag, not (_is_thing(first) and _is_thing(second))

    for (one, other), _whole in sorted(spans, key=clumsiness):
        yield caption.exchanged(one, other)


def _adjective_swaps(task: _Task) -> Iterator[str]:
    """Two adjectives of different nouns in each other's place; then all adjectives of two nouns."""
    caption = task.caption
    places = caption.adjectives()
    pairs = [(a, b) for a, b in combinations(places, 2) if caption.head(a) != caption.head(b)]
    task.rng.shuffle(pairs)
    for a, b in pairs:
        yield caption.exchanged((a, a + 1), (b, b + 1))


def _reshuffles(task: _Task) -> Iterator[str]:
    """Noun phrases dealt anew among their places, or the phrases of the sentence in another order."""
    caption = task.caption
    phrases = caption.phrases()
    starts = [i for i, w in enumerate(caption.words) if i and (w.lower in PLACES or w.tag.startswith("VB"))]
    cuts = [0, *starts, len(caption.words)]
    segments = [range(a, b) for a, b in pairwise(cuts) if b > a]
    for _round in range(MOST_PROPOSALS):
        if len(phrases) > 2:
            dealt = task.rng.sample(phrases, len(phrases))
            order: list[int] = []
            position = 0
            for (start, stop), (new_start, new_stop) in zip(phrases, dealt, strict=True):
                order += [*range(position, start), *range(new_start, new_stop)]
                position = stop
            yield caption.arranged([*order, *range(position, len(caption.words))])
        elif len(phrases) == 2:
            yield caption.exchanged(*phrases)
        if len(segments) > 2:
            yield caption.arranged([i for segment in task.rng.sample(segments, len(segments)) for i in segment])


def _paraphrases(task: _Task) -> Iterator[str]:
    """Phrases around "and" or "next to" in each other's place, the last place moved to the front, a synonym."""
    caption = task.caption
    exchanged = [caption.exchanged(one, other) for one, other in pairwise(caption.phrases())]
    places = [i for i, word in enumerate(caption.words) if i and word.lower in PLACES]
    end = len(caption.words) - (not caption.words[-1].is_word)
    moved = [caption.arranged([*range(i, end), *range(i), *range(end, len(caption.words))]) for i in places[-1:]]
    renamed = [
        caption.replaced(i, plural(name) if word.tag == "NNS" else name)
        for i, word in enumerate(caption.words)
        if word.is_noun
        for name in sorted(lexicon().synonyms.get(word.lemma, ()))
    ]
    proposals = [*exchanged, *moved, *renamed]
    task.rng.shuffle(proposals)
    yield from proposals


PROPOSALS: dict[str, Callable[[_Task], Iterator[str]]] = {
    "reshuffle_order": _reshuffles,
    "swap_nouns": _noun_swaps,
    "swap_adjectives": _adjective_swaps,
    "replace_nouns": _noun_replacements,
    "replace_adjectives": _adjective_replacements,
    PARAPHRASE: _paraphrases,
}
"""How the rules write each type they can write."""


def _words_of(captions: Iterable[str], own: str) -> frozenset[str]:
    """Base forms of what the other captions of the image name; the caption's own words may stay."""
    return frozenset(w.lemma for caption in captions if caption != own for w in parse(caption) if w.is_content)


def _is_thing(word: Word) -> bool:
    return word.lemma in lexicon().kind_of or word.lemma in lexicon().members
