"""The generator that needs no model: rewrites by part of speech, for real English and the built-in world alike.

Each type of `PROPOSALS` proposes rewrites in an order drawn from the request's seed, as edits of the caption's
characters (phrases.py). The checks take the first that passes; what they reject before it is in the table with its
reason. "Not applicable" when there is nothing to propose, or when the type is not in the table. Replacement words come
from the corpus itself, drawn by their frequency: a thing for a thing, of the same kind where the lexicon knows it; a
quality only for another of its kind, which contradicts it (brown and white, not brown and large). None could still be
true: no synonym, no wider or narrower word, no word of another caption of the same image. A caption in another language
is refused.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, combinations, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.artifact import path_digest
from pipeline.negative_types import ABSENCE, NEGATION, PARAPHRASE, UNITS
from pipeline.stage import Inputs
from stages.generate import unit_checks
from stages.generate.checks import NOT_APPLICABLE
from stages.generate.denial_checks import is_negator
from stages.generate.people import PRONOUNS, is_another, is_somebody, sex
from stages.generate.phrases import Caption, Edit, Phrase, edited
from stages.generate.surface import sounds_vowel
from stages.language_models.base import FOREIGN, Backend, Corpus, Message, Request, Response, Settings
from stages.text.inflection import lemma, plural
from stages.text.words import LEXICON, PLACES, Word, is_english, lexicon, parse, word_set

VERSION = 4
MOST_PROPOSALS = 12
"""Rewrites proposed per request."""

SAMPLE = 50_000
"""Captions the vocabulary is counted from."""

_KEPT = word_set("one other another same only lone own such first second third last next")
"""Describing words that are not replaced."""

_BEFORE_NO = word_set("with and has have there is are")
"""Words after which a thing may be denied by "no"."""

_CONSPICUOUS = word_set("animal vehicle instrument toy board appliance shape")
"""Kinds of thing that some caption names where they are to be seen."""

_HAVING = word_set("has have")
_RELATION = re.compile("(?=.)z?[rvw]*[xi]*")
"""Between two things, as letters of words: "rides a", "is standing on top of"."""

_SYMMETRIC = word_set("and or , & with near beside next by alongside of")
_LIMBS = word_set("front hind")
_GRADES = word_set("bright dark light pale deep")
_SHADES = word_set("navy royal sky baby neon hot lime forest")
_BELONGINGS = word_set("clothing part")
"""Kinds of what somebody has, which may be true in their place: the diver is under water, and so is his shirt."""


class Urn(NamedTuple):
    """Words to draw from, with the running total of their weights."""

    words: list[str]
    totals: list[float]

    @classmethod
    def of(cls, weighted: Iterable[tuple[str, float]]) -> "Urn":
        """Words with their weights."""
        pairs = list(weighted)
        return cls([word for word, _ in pairs], list(accumulate(weight for _, weight in pairs)))

    def drawn(self, rng: random.Random, count: int) -> list[str]:
        """Some of the words, each as often as its weight says; the same may come twice."""
        return rng.choices(self.words, cum_weights=self.totals, k=count)


@dataclass
class Vocabulary:
    """Words of the corpus with their frequency.

    Attributes:
        counts: every word.
        nouns: those that stand alone in a noun phrase, by how they stand: a (an article), t (another determiner),
            "" (none), m (plural).
    """

    counts: Counter[str] = field(default_factory=Counter)
    nouns: dict[str, Counter[str]] = field(default_factory=lambda: {how: Counter() for how in ("a", "t", "", "m")})
    _urns: dict[tuple[str, str | None], "Urn"] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, captions: Iterable[str]) -> "Vocabulary":
        """Count the words of these captions; words seen once in a large corpus are left out as likely misspelt."""
        found = cls()
        total = 0
        for caption in map(_caption, captions):
            total += 1
            found.counts.update(word.lower for word in caption.words if word.is_content)
            for phrase in caption.phrases:
                first, stop = phrase.noun
                if stop - first == 1 and (name := caption.words[first].lower).isalpha() and len(name) > 2:
                    found.nouns[_how(caption, phrase)][name] += 1
        if total > 1000:
            for counted in (found.counts, *found.nouns.values()):
                for word in [word for word, count in counted.items() if count == 1]:
                    del counted[word]
        return found

    def things(self, word: str, how: str, rng: random.Random) -> Iterator[str]:
        """Nouns to put in place of one with this base form: first of its own kind, then any, without end."""
        near = self._near(word, how)
        if near.words:
            yield from near.drawn(rng, 12)
        common = self._common[how]
        while common.words:
            yield from common.drawn(rng, 12)

    def qualities(self, word: str, rng: random.Random) -> Iterator[str]:
        """Describing words of the same kind as this one."""
        near = self._near(word, None)
        if near.words:
            yield from near.drawn(rng, 24)

    @cached_property
    def _common(self) -> dict[str, "Urn"]:
        """The things most often named, by how they stand."""
        known = lexicon()
        most = {how: counted.most_common(400) for how, counted in self.nouns.items()}
        return {how: Urn.of((w, n) for w, n in found if known.is_thing(lemma(w))) for how, found in most.items()}

    def _near(self, word: str, how: str | None) -> "Urn":
        """Words of the same kind: of thing, as they stand, or of quality, where `how` is None."""
        if (word, how) not in self._urns:
            names = sorted(lexicon().siblings(word, quality=how is None))
            if how is not None:
                names = [self._as(name, how) for name in names if self._may_stand(name, how)]
            self._urns[word, how] = Urn.of((name, self._weight(name)) for name in names)
        return self._urns[word, how]

    def _weight(self, name: str) -> float:
        return 0.1 + self.counts[name]

    def _as(self, name: str, how: str) -> str:
        return plural(name) if how == "m" and name not in lexicon().plural_only else name

    def _may_stand(self, name: str, how: str) -> bool:
        known = lexicon()
        if name in known.plural_only:
            return how == "m"
        return how == "t" or (name in known.uncounted) == (how == "")


def _how(caption: Caption, phrase: Phrase) -> str:
    if phrase.is_plural:
        return "m"
    if caption.words[phrase.place[0]].lower in ("some", "any"):  # "some cake": as without
        return ""
    return phrase.determiner if phrase.determiner in ("a", "") else "t"


class RulesBackend(Backend):
    """No model."""

    has_model = False
    needs_prompt = False
    is_paid = False
    repairs = False
    is_plain = True

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

    def respond(self, kind: str, prefix: list[Message], requests: Sequence[Request]) -> Iterator[Response]:
        """Responses in the order of the requests; the prompt is not looked at."""
        return (self._respond(kind, request) for request in requests)

    def facts(self) -> dict[str, Any]:
        """Size of the vocabulary."""
        return {"vocabulary": len(self._vocabulary.counts)}

    def close(self) -> None:
        """Nothing to release."""

    def _respond(self, kind: str, request: Request) -> Response:
        if not is_english(request.caption):
            return Response(None, FOREIGN)
        task = Task(
            _caption(request.caption),
            random.Random(request.seed),
            _words_of(request.avoid, request.caption),
            self._vocabulary,
        )
        proposed = PROPOSALS[kind](task) if kind in PROPOSALS else ()
        texts = dict.fromkeys(edited(request.caption, edits) for edits in islice(proposed, MOST_PROPOSALS))
        texts.pop(request.caption, None)
        first, *others = texts or (NOT_APPLICABLE,)
        return Response(first, "stop", others=tuple([Response(text, "stop") for text in others]))


Proposals = Iterator[tuple[Edit, ...]]


@dataclass(frozen=True)
class Task:
    """A caption to rewrite.

    Attributes:
        caption: the caption.
        rng: decides the order of the proposals.
        avoid: base forms that no replacement may mean.
        vocabulary: of the corpus.
    """

    caption: Caption
    rng: random.Random
    avoid: frozenset[str]
    vocabulary: Vocabulary


def replaceable_nouns(caption: Caption) -> list[Phrase]:
    """Noun phrases whose noun another may replace."""
    return [phrase for phrase in caption.phrases if phrase.determiner != "q" and not _is_idiom(caption, phrase)]


def replaceable_adjectives(caption: Caption) -> list[tuple[int, Phrase]]:
    """Each describing word or number that another may replace, with its noun phrase."""
    return [
        (i, phrase)
        for i, phrase in caption.adjectives(numbers=True)
        if caption.words[i].lower not in _KEPT and not _graded(caption, i)
    ]


def _noun_replacements(task: Task) -> Proposals:
    """One noun, a compound whole, in place of another; first those whose kind is known."""
    caption, known = task.caption, lexicon()
    phrases = replaceable_nouns(caption)
    task.rng.shuffle(phrases)
    phrases.sort(key=lambda phrase: not known.siblings(caption.words[phrase.noun[1] - 1].lemma))
    for phrase in phrases:
        old = caption.words[phrase.noun[1] - 1]
        draws = task.vocabulary.things(old.lemma, _how(caption, phrase), task.rng)
        for new in _contradicting(task, old, draws):
            if not _is_another(caption, phrase, lemma(new)):
                continue
            if edits := caption.replaced({phrase.noun: new}):
                yield edits


def _adjective_replacements(task: Task) -> Proposals:
    """One describing word or number in place of another of its kind."""
    caption, known = task.caption, lexicon()
    places = replaceable_adjectives(caption)
    task.rng.shuffle(places)
    for place, phrase in places:
        old = caption.words[place]
        draws = task.vocabulary.qualities(old.lower, task.rng)
        for new in _contradicting(task, old, draws):
            if (new == "one" and old.tag == "CD") or _said_twice(caption, place, new):
                continue
            head = caption.words[phrase.noun[1] - 1].lemma
            if known.is_absurd(new, head) or (old.lower == "little" and new == "old" and not _lives(head)):
                continue
            if edits := caption.replaced({(place, place + 1): new}):
                yield edits


def _contradicting(task: Task, old: Word, draws: Iterator[str]) -> Iterator[str]:
    """The words drawn, each once, without those that could be true as well; at most a third of all proposals."""
    known, tried = lexicon(), {old.lower}
    taken = task.avoid | {old.lemma}
    found = 0
    for new in islice(draws, 48):
        base = lemma(new)
        if new in tried:
            continue
        tried.add(new)
        if taken.isdisjoint(known.related(base)):
            yield new
            found += 1
            if found == MOST_PROPOSALS // 3:
                return


def _noun_swaps(task: Task) -> Proposals:
    """Two noun phrases, or their nouns alone, in each other's place; things of a known kind and equal number first."""
    caption = task.caption
    pairs = [(one, other, whole) for one, other in combinations(caption.phrases, 2) for whole in (True, False)]
    task.rng.shuffle(pairs)

    def clumsiness(item: tuple[Phrase, Phrase, bool]) -> tuple[bool, bool]:
        one, other, _ = item
        things = [lexicon().is_thing(caption.words[phrase.noun[1] - 1].lemma) for phrase in (one, other)]
        return one.is_plural != other.is_plural, not all(things)

    for one, other, whole in sorted(pairs, key=clumsiness):
        if _is_symmetric(caption, one, other) or not _changes_roles(caption, (one, other)):
            continue
        if lexicon().same_or_wider(*(caption.words[phrase.noun[1] - 1].lemma for phrase in (one, other))):
            continue
        if not _fits(task, (one, other), (1, 0)) or not (whole or _stand_alike(task, one, other)):
            continue
        places = (one.place, other.place) if whole else (one.noun, other.noun)
        if edits := caption.dealt(places, (1, 0)):
            yield edits


def _adjective_swaps(task: Task) -> Proposals:
    """Two describing words of different things in each other's place, those of one kind first."""
    caption, known = task.caption, lexicon()
    found = [(i, phrase) for i, phrase in caption.adjectives() if caption.words[i].lower not in _KEPT | _LIMBS]

    def may_swap(a: int, one: Phrase, b: int, other: Phrase) -> bool:
        """Words of two kinds contradict only where one cannot be said of the other thing: "a wooden boy"."""
        words, heads = (
            [caption.words[i].lemma for i in places] for places in ((a, b), (one.noun[1] - 1, other.noun[1] - 1))
        )
        absurd = list(map(known.is_absurd, words, reversed(heads)))
        tells_race = any(
            "color" in known.kinds(word) and is_somebody(head) and not odd
            for word, head, odd in zip(words, reversed(heads), absurd, strict=True)
        )
        return _of_one_kind(*words) or (any(absurd) and not tells_race)

    pairs = [(a, b) for (a, one), (b, other) in combinations(found, 2) if one != other and may_swap(a, one, b, other)]
    task.rng.shuffle(pairs)
    pairs.sort(key=lambda pair: not _of_one_kind(*(caption.words[i].lower for i in pair)))
    for a, b in pairs:
        one, other = caption.words[a], caption.words[b]
        clumsy = _said_twice(caption, a, other.lower) or _said_twice(caption, b, one.lower)
        graded = any(_graded(caption, place) or _is_shade(caption, place, _GRADES) for place in (a, b))
        if clumsy or graded or known.same_or_wider(one.lemma, other.lemma):
            continue
        if edits := caption.dealt(((a, a + 1), (b, b + 1)), (1, 0)):
            yield edits


def _reshuffles(task: Task) -> Proposals:
    """Noun phrases dealt anew among their places, three of them if there are so many."""
    caption, phrases = task.caption, task.caption.phrases
    rounds: list[tuple[tuple[Phrase, ...], tuple[int, ...]]] = [
        (chosen, order)
        for chosen in combinations(phrases, 3)
        if _changes_roles(caption, chosen)
        for order in ((1, 2, 0), (2, 0, 1))
    ]
    task.rng.shuffle(rounds)
    pairs = [
        (pair, (1, 0))
        for pair in combinations(phrases, 2)
        if _changes_roles(caption, pair) and not _is_symmetric(caption, *pair)
    ]
    task.rng.shuffle(pairs)
    for chosen, order in (*rounds, *pairs):
        if not _fits(task, chosen, order):
            continue
        if edits := caption.dealt([phrase.place for phrase in chosen], order):
            yield edits


def _paraphrases(task: Task) -> Proposals:
    """Phrases around "and" or "next to" in each other's place, the last place moved to the front, a synonym."""
    caption = task.caption
    words = caption.words
    proposals = [caption.dealt((one.place, other.place), (1, 0)) for one, other in pairwise(caption.phrases)]
    places = [i for i, word in enumerate(words) if i and word.lower in PLACES]
    end = len(words) - (not words[-1].is_word) if words else 0
    for i in places[-1:]:
        moved = caption.piece((i, end)) if i < end else ""
        proposals.append(caption.replaced({(0, end): f"{moved} {caption.piece((0, i))}"}))
    for phrase in caption.phrases:
        place = phrase.noun[1] - 1
        for name in sorted(lexicon().synonyms.get(words[place].lemma, ())):
            new = plural(name) if words[place].tag == "NNS" else name
            proposals.append(caption.replaced({(place, place + 1): new}))
    task.rng.shuffle(proposals)
    yield from filter(None, proposals)


def _denials(task: Task) -> Proposals:
    """A thing denied where it stands ("no hat", "without a hat"), or what is said of one ("is not riding")."""
    caption, words, letters = task.caption, task.caption.words, task.caption.letters
    if any(map(is_negator, words)):
        return
    proposals = []
    for phrase in caption.phrases:
        first, stop = phrase.place
        before = words[first - 1].lower if first else ""
        opens = not first and letters[stop : stop + 1] != "&"
        if phrase.determiner != "q" and (opens or (first and letters[first - 1] == "v") or before in _BEFORE_NO):
            noun = caption.piece((first + bool(phrase.determiner), stop))
            proposals.append(caption.replaced({(first, stop): f"no {noun}"}))
        if before == "with":
            proposals.append(caption.replaced({(first - 1, first): "without"}))
    ends = {phrase.place[1] for phrase in caption.phrases}
    for i, word in enumerate(words[1:], start=1):
        is_said = words[i - 1].lower in ("is", "are") and words[i - 2].lower != "there" and letters[i] in "ijvw"
        if is_said or (letters[i] == "v" and i in ends):
            proposals.append(caption.replaced({(i, i + 1): f"not {word.text}"}))
    task.rng.shuffle(proposals)
    yield from filter(None, proposals)


def _absences(task: Task) -> Proposals:
    """At the end, that a thing is not there, first one of a kind with one that is: "with no cat", "without a cat"."""
    caption, words = task.caption, task.caption.words
    if any(map(is_negator, words)):
        return
    end = len(words) - (not words[-1].is_word)
    known, there = lexicon(), task.avoid | {word.lemma for word in words if word.is_content}
    phrases = list(caption.phrases)
    task.rng.shuffle(phrases)
    for phrase in phrases:
        near = words[phrase.noun[1] - 1].lemma
        for name in dict.fromkeys(islice(task.vocabulary.things(near, "a", task.rng), 36)):
            related = known.related(lemma(name))
            if there.isdisjoint(related) and not _CONSPICUOUS.isdisjoint(related):
                article = "an" if sounds_vowel(name) else "a"
                added = task.rng.choice((f"with no {name}", f"without {article} {name}", f"and no {name}"))
                if edits := caption.replaced({(0, end): f"{caption.piece((0, end))} {added}"}):
                    yield edits


def _units(task: Task) -> Proposals:
    """One line: each thing with another noun or quality, and what the first thing has to do with the next as well."""
    caption = task.caption
    if any(map(is_negator, caption.words)):
        return
    said = task.avoid | _named(caption.text)
    units = [caption.piece(phrase.place) for phrase in caption.phrases if phrase.determiner != "q"]
    for one, other in pairwise(caption.phrases[:2]):
        between = caption.letters[one.place[1] : other.place[0]]
        has = any(word.lower in _HAVING for word in caption.words[one.place[1] : other.place[0]])  # "has a hat on"
        if one.place[0] == 0 and not has and _RELATION.fullmatch(between):
            units.append(caption.piece((0, other.place[1])))
    found = []
    for unit in dict.fromkeys(units):
        part = Task(_caption(unit), task.rng, said, task.vocabulary)
        for propose in (_noun_swaps, _noun_replacements, _adjective_replacements):
            foil = next((edited(unit, edits) for edits in propose(part)), None)
            if foil is not None:
                found.append((unit, foil))
    if found:
        yield (Edit(0, len(caption.text), unit_checks.line(found)),)


PROPOSALS: dict[str, Callable[[Task], Proposals]] = {
    "reshuffle_order": _reshuffles,
    "swap_nouns": _noun_swaps,
    "swap_adjectives": _adjective_swaps,
    "replace_nouns": _noun_replacements,
    "replace_adjectives": _adjective_replacements,
    NEGATION: _denials,
    PARAPHRASE: _paraphrases,
    ABSENCE: _absences,
    UNITS: _units,
}
"""How the rules write each type they can write."""


@lru_cache(maxsize=8192)
def _caption(text: str) -> Caption:
    """A caption, whose phrases are found once for all types."""
    return Caption(text)


def _words_of(captions: Iterable[str], own: str) -> frozenset[str]:
    """Base forms of what the other captions of the image name; the caption's own words may stay."""
    return frozenset[str]().union(*(_named(caption) for caption in captions if caption != own))


@lru_cache(maxsize=8192)
def _named(caption: str) -> frozenset[str]:
    return frozenset(word.lemma for word in parse(caption) if word.is_content)


def _is_another(caption: Caption, phrase: Phrase, new: str) -> bool:
    """True unless the phrase's thing may be called `new` as well, or what the caption says besides does not fit it."""
    known, words = lexicon(), caption.words
    old = words[phrase.noun[1] - 1].lemma
    if _is_who(caption, phrase) and not _lives(new):
        return False
    if not is_somebody(new):
        return bool(known.siblings(old)) or known.kinds(new).isdisjoint(_BELONGINGS)
    if not is_somebody(old):
        return known.is_thing(old)  # else it may be somebody whom the lexicon does not know
    tells = any(word.lower in PRONOUNS for word in words)
    return is_another(old, new) and not (tells and None not in (sexes := (sex(old), sex(new))) and sexes[0] != sexes[1])


def _lives(name: str) -> bool:
    return is_somebody(name) or "animal" in lexicon().kinds(name)


def _is_who(caption: Caption, phrase: Phrase) -> bool:
    """True when "who" follows the phrase."""
    return phrase.place[1] < len(caption.words) and caption.words[phrase.place[1]].lower in ("who", "whose", "whom")


def _fits(task: Task, phrases: Sequence[Phrase], order: Sequence[int]) -> bool:
    """True when each phrase can stand where another did: before "who", and without article where others have none."""
    caption = task.caption
    heads = [caption.words[phrase.noun[1] - 1].lemma for phrase in phrases]
    if any(_is_who(caption, phrase) and not _lives(heads[j]) for phrase, j in zip(phrases, order, strict=True)):
        return False
    if any(_is_idiom(caption, phrase) for phrase in phrases):
        return False
    return len({_lacks_article(task, phrase) for phrase in phrases}) == 1


def _lacks_article(task: Task, phrase: Phrase) -> bool:
    """True where a thing that can be counted stands without article: "Hiker climbing", "Bunch of bananas"."""
    caption, first = task.caption, phrase.place[0]
    if caption.letters[first] == "q":
        return caption.words[first].tag != "NNS"
    name = caption.words[phrase.noun[1] - 1].lower
    if phrase.is_plural or phrase.determiner or name in lexicon().uncounted:
        return False
    nouns = task.vocabulary.nouns
    return lexicon().is_thing(name) or nouns[""][name] < max(3, 4 * nouns["a"][name])


def _is_idiom(caption: Caption, phrase: Phrase) -> bool:
    """True for "at night", "on stage": no article behind a preposition, and nothing known that needs none."""
    first, name = phrase.place[0], caption.words[phrase.noun[1] - 1].lemma
    is_bare = not (phrase.is_plural or phrase.determiner or name in lexicon().uncounted or lexicon().is_thing(name))
    return is_bare and caption.letters[first - 1 : first] == "i"


def _changes_roles(caption: Caption, phrases: Sequence[Phrase]) -> bool:
    """True unless all of them say where or with what: "in the grass near a river" may be by a river in the grass."""
    return any(not phrase.place[0] or caption.letters[phrase.place[0] - 1] != "i" for phrase in phrases)


def _is_symmetric(caption: Caption, one: Phrase, other: Phrase) -> bool:
    """True when "and", "next to", "of" or the like stands right before the second of two neighbours."""
    between = [word.lower for word in caption.words[one.place[1] : other.place[0]] if word.lower != "to"]
    apart = any(one.place[1] <= phrase.place[0] < other.place[0] for phrase in caption.phrases)
    return not apart and bool(between) and between[-1] in _SYMMETRIC


def _stand_alike(task: Task, one: Phrase, other: Phrase) -> bool:
    """True when each noun can stand where the other does: both plural, or both seen after an article."""
    if "q" in (one.determiner, other.determiner) or one.is_plural != other.is_plural:
        return False
    ways = [_how(task.caption, phrase) for phrase in (one, other)]
    if one.is_plural or not any(ways):
        return True
    names = [task.caption.words[phrase.noun[1] - 1].lower for phrase in (one, other)]
    return all(ways) and all(task.vocabulary.nouns["a"][name] for name in names)


def _of_one_kind(one: str, other: str) -> bool:
    known = lexicon()
    return not (known.qualities & known.kind_of.get(one, frozenset())).isdisjoint(known.kind_of.get(other, ()))


def _said_twice(caption: Caption, place: int, new: str) -> bool:
    """True when the phrase would say two qualities of one kind, or one twice: "big small", "black and black"."""
    phrase = next(p for i, p in caption.adjectives(numbers=True) if i == place)
    old = caption.words[place].lower
    others = [caption.words[i].lower for i in range(*phrase.place) if i != place]
    known = lexicon()
    return any(
        known.says_no_more(word, new) or (_of_one_kind(word, new) and not _of_one_kind(word, old)) for word in others
    )


def _graded(caption: Caption, place: int) -> bool:
    """True for the "bright" of "bright red", and the "blue" of "navy blue"."""
    grades = caption.words[place].lower in _GRADES and _of_one_kind(caption.words[place + 1].lower, "red")
    return grades or _is_shade(caption, place, _SHADES)


def _is_shade(caption: Caption, place: int, before: frozenset[str]) -> bool:
    """True for a colour behind one of these words, or behind "yellowish"."""
    word, leading = caption.words[place].lower, caption.words[place - 1].lower
    return place > 0 and (leading in before or leading.endswith("ish")) and _of_one_kind(word, "red")
