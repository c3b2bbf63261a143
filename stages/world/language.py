"""The built-in world's English: captions of a scene, their exact parse, and whether a sentence is true of a scene.

One table of wordings serves both directions, so `parse(write(facts)) == facts` by construction, and a caption rewritten
by anyone (a language model, a rule) can be judged: not in the language (`parse` gives None), false or true (`holds`).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations, product

from stages.world.scenes import COLOURS, INVERSE, SHAPES, SIZES, TEXTURES, Concepts, Kind, Scene

RELATION_WORDS = {
    "to the left of": "left",
    "on the left of": "left",
    "to the right of": "right",
    "on the right of": "right",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "inside": "inside",
    "within": "inside",
    "around": "around",
    "in front of": "front",
    "behind": "behind",
}
CATEGORY = {
    **dict.fromkeys(SIZES, "size"),
    **dict.fromkeys(TEXTURES, "texture"),
    **dict.fromkeys(COLOURS, "colour"),
}
"""Each adjective of the world with the one property it sets."""
PLACES = {"on the left": "left", "on the right": "right", "at the top": "top", "at the bottom": "bottom"}
_MEMBERS = {"size": SIZES, "texture": TEXTURES, "colour": tuple(COLOURS)}
_TELLS = {"size": 2, "texture": 3, "colour": 1}
"""How often captions that name nothing else name it."""
_NUMBERS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}
_NUMBERS |= {f"exactly {word}": number for word, number in _NUMBERS.items() if number}
_SEVERAL = ("several", "")
"""Determiners of a plural that claim two or more; the empty one is the bare plural ("red stars")."""


@dataclass(frozen=True)
class Phrase:
    """A noun phrase, words in the order they are written: "exactly two" + ("small", "red") + "star", plural."""

    determiner: str
    adjectives: tuple[str, ...]
    noun: str
    plural: bool = False

    def words(self) -> str:
        """The phrase as it is written, with the right article."""
        noun = f"{self.noun}s" if self.plural else self.noun
        rest = " ".join((*self.adjectives, noun))
        determiner = "an" if self.determiner == "a" and rest[0] in "aeiou" else self.determiner
        return f"{determiner} {rest}".strip()


@dataclass(frozen=True)
class Wording:
    """A sentence with slots: {n} phrase, {r} relation, {p} adjective and {l} place said of a phrase.

    links: for each {r}, the phrases it joins (subject, object), counted in the order they are written.
    predicates: for each {p}, the phrase it describes. located: for each {l}, the phrase it locates.
    weight: how often captions use it; 0 means it is only understood.
    """

    text: str
    links: tuple[tuple[int, int], ...] = ()
    predicates: tuple[int, ...] = ()
    located: tuple[int, ...] = ()
    weight: int = 1
    number: str = "one"

    @property
    def size(self) -> int:
        """How many phrases it joins."""
        return self.text.count("{n}")


_FORWARD, _BACKWARD = ((0, 1),), ((1, 0),)
WORDINGS = (
    Wording("{n}", weight=3),
    Wording("there is {n}", weight=3),
    Wording("there is {n} in the picture"),
    Wording("a picture of {n}"),
    Wording("this picture shows {n}"),
    Wording("you can see {n}"),
    Wording("{n} is {p}", predicates=(0,), weight=2),
    Wording("{n} is {p} and {p}", predicates=(0, 0), weight=2),
    Wording("{n} {l}", located=(0,), weight=4),
    Wording("there is {n} {l}", located=(0,), weight=4),
    Wording("{n} is {l}", located=(0,), weight=3),
    Wording("{l} there is {n}", located=(0,), weight=3),
    Wording("{n} is {r} {n}", _FORWARD, weight=10),
    Wording("{n} {r} {n}", _FORWARD, weight=8),
    Wording("there is {n} {r} {n}", _FORWARD, weight=8),
    Wording("{n} sits {r} {n}", _FORWARD, weight=4),
    Wording("{r} {n} there is {n}", _BACKWARD, weight=3),
    Wording("{r} {n} is {n}", _BACKWARD, weight=1),
    Wording("{r} {n} sits {n}", _BACKWARD),
    Wording("{n} has {n} {r} it", _BACKWARD),
    Wording("you can see {n} {r} {n}", _FORWARD, weight=3),
    Wording("this picture shows {n} {r} {n}", _FORWARD, weight=3),
    Wording("a picture of {n} {r} {n}", _FORWARD, weight=3),
    Wording("{n} and {n}", weight=3),
    Wording("there is {n} and {n}", weight=2),
    Wording("{n} is {p} and {n} is {p}", predicates=(0, 1), weight=7),
    Wording("{n} {l} and {n} {l}", located=(0, 1), weight=9),
    Wording("{n} is {l} and {n} is {l}", located=(0, 1), weight=6),
    Wording("{l} there is {n} and {l} {n}", located=(0, 1), weight=5),
    Wording("{n}, {n} and {n}", weight=2),
    Wording("there is {n}, {n} and {n}", weight=1),
    Wording("{n} is {r} {n} and {r} {n}", ((0, 1), (0, 2)), weight=3),
    Wording("{n} is {r} {n}, which is {r} {n}", ((0, 1), (1, 2)), weight=3),
    Wording("{n} is {r} {n}, and there is {n}", _FORWARD, weight=3),
    Wording("{n} is {p}, {n} is {p} and {n} is {p}", predicates=(0, 1, 2), weight=1),
    Wording("{n}", weight=3, number="many"),
    Wording("there are {n}", weight=4, number="many"),
    Wording("there are {n} in the picture", weight=2, number="many"),
    Wording("you can see {n}", number="many"),
    Wording("this picture shows {n}", number="many"),
    Wording("{n} and {n}", weight=2, number="many"),
    Wording("{r} {n} you can see {n}", _BACKWARD, weight=0),
    Wording("in the picture there is {n}", weight=0),
    Wording("in the picture there are {n}", weight=0, number="many"),
    Wording("in the picture there is {n} {r} {n}", _FORWARD, weight=0),
)


@dataclass(frozen=True)
class Facts:
    """What one sentence of the language says, and how: a wording with its slots filled, in the order of writing."""

    wording: Wording
    phrases: tuple[Phrase, ...]
    relations: tuple[str, ...] = ()
    predicates: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    def adjectives(self, phrase: int) -> tuple[str, ...]:
        """Everything said of a phrase's thing, before the noun and after "is"."""
        said = zip(self.wording.predicates, self.predicates, strict=True)
        return self.phrases[phrase].adjectives + tuple(word for target, word in said if target == phrase)

    def located(self, phrase: int) -> tuple[str, ...]:
        """Where a phrase's thing is said to be in the picture: "left", "right", "top", "bottom"."""
        said = zip(self.wording.located, self.places, strict=True)
        return tuple(PLACES[words] for target, words in said if target == phrase)

    def meaning(self) -> tuple[object, ...]:
        """Equal for two sentences that say the same in other words or in another order."""
        mentions = [
            (phrase.noun, tuple(sorted(self.adjectives(i))), self.located(i), _claimed_number(phrase))
            for i, phrase in enumerate(self.phrases)
        ]
        linked = set()
        for (subject, target), words in zip(self.wording.links, self.relations, strict=True):
            relation = RELATION_WORDS[words]
            if relation in ("right", "below", "around", "behind"):
                relation, subject, target = INVERSE[relation], target, subject
            linked.add((mentions[subject], relation, mentions[target]))
        return (frozenset(Counter(mentions).items()), frozenset(linked))


def _claimed_number(phrase: Phrase) -> int | None:
    """How many things a phrase claims: an exact number, -1 for two or more, None for at least one."""
    if phrase.determiner in _SEVERAL:
        return -1
    return _NUMBERS.get(phrase.determiner)


def write(facts: Facts) -> str:
    """The sentence: capital first letter, "a" or "an" as English wants it, full stop."""
    fill = {
        "n": iter(phrase.words() for phrase in facts.phrases),
        "r": iter(facts.relations),
        "p": iter(facts.predicates),
        "l": iter(facts.places),
    }
    text = re.sub(r"\{(.)\}", lambda slot: next(fill[slot[1]]), facts.wording.text)
    return f"{text[0].upper()}{text[1:]}."


# ---------------------------------------------------------------------------------------------- reading

_BY_SKELETON = {wording.text: wording for wording in reversed(WORDINGS)}
_MANY_BY_SKELETON = {wording.text: wording for wording in reversed(WORDINGS) if wording.number == "many"}


def _alternatives(words: Iterator[str] | tuple[str, ...]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_ADJECTIVE = f"(?:{_alternatives(tuple(CATEGORY))})"
_DETERMINERS = ("a", "an", "the", "several", *_NUMBERS)
_TOKEN = re.compile(
    rf"(?P<phrase>(?:(?P<determiner>{_alternatives(_DETERMINERS)}) )?(?P<adjectives>(?:{_ADJECTIVE} )*)"
    rf"(?P<noun>{_alternatives(SHAPES)})(?P<plural>s?))\b"
    rf"|(?P<relation>{_alternatives(tuple(RELATION_WORDS))})\b|(?P<place>{_alternatives(tuple(PLACES))})\b"
    rf"|(?P<predicate>{_ADJECTIVE})\b"
)


def parse(caption: str) -> Facts | None:
    """What a sentence says, or None where it is not in the language (or contradicts itself: "a red blue star").

    Case, the final full stop and the choice between "a" and "an" are forgiven; everything else must be right.
    """
    text = " ".join(caption.strip().lower().removesuffix(".").split())
    phrases: list[Phrase] = []
    relations: list[str] = []
    predicates: list[str] = []
    places: list[str] = []

    def slot(match: re.Match[str]) -> str:
        if match["phrase"]:
            determiner = "a" if match["determiner"] == "an" else match["determiner"] or ""
            phrases.append(Phrase(determiner, tuple(match["adjectives"].split()), match["noun"], bool(match["plural"])))
            return "{n}"
        if match["relation"]:
            relations.append(match["relation"])
            return "{r}"
        if match["place"]:
            places.append(match["place"])
            return "{l}"
        predicates.append(match["predicate"])
        return "{p}"

    skeleton = _TOKEN.sub(slot, text)
    table = _MANY_BY_SKELETON if any(phrase.plural for phrase in phrases) else _BY_SKELETON
    wording = table.get(skeleton)
    if wording is None or not all(_grammatical(phrase) for phrase in phrases):
        return None
    facts = Facts(wording, tuple(phrases), tuple(relations), tuple(predicates), tuple(places))
    return facts if _consistent(facts) else None


def _consistent(facts: Facts) -> bool:
    """Whether no thing is given two colours, two textures or two sizes."""
    for i in range(len(facts.phrases)):
        categories = [CATEGORY[word] for word in facts.adjectives(i)]
        if len(set(categories)) < len(categories):
            return False
    return True


def _grammatical(phrase: Phrase) -> bool:
    if phrase.determiner == "no":
        return True
    return phrase.plural == (phrase.determiner in _SEVERAL or _NUMBERS.get(phrase.determiner, 1) > 1)


def holds(facts: Facts, scene: Scene) -> bool:
    """Whether the sentence is true of the scene.

    "a", "an" and "the" claim a thing of their own for each phrase (two phrases never mean the same thing); a number
    claims exactly that many, "no" none, "several" and the bare plural two or more. A thing near the middle is on either
    side, so that no false sentence is a matter of opinion.
    """
    fitting = [
        [
            index
            for index, thing in enumerate(scene.things)
            if thing.shape == phrase.noun
            and all(getattr(thing, CATEGORY[word]) == word for word in facts.adjectives(i))
            and all(thing.is_at(place) for place in facts.located(i))
        ]
        for i, phrase in enumerate(facts.phrases)
    ]
    for phrase, fits in zip(facts.phrases, fitting, strict=True):
        claimed = _claimed_number(phrase)
        if claimed is not None and (len(fits) < 2 if claimed == -1 else len(fits) != claimed):
            return False
    single = [i for i, phrase in enumerate(facts.phrases) if _claimed_number(phrase) is None]
    linked = {i for link in facts.wording.links for i in link}
    chosen = sorted(linked | set(single))
    for things in product(*(fitting[i] for i in chosen)):
        if len(set(things)) == len(things):
            place = dict(zip(chosen, things, strict=True))
            if all(
                RELATION_WORDS[words] in scene.relations(place[subject], place[target])
                for (subject, target), words in zip(facts.wording.links, facts.relations, strict=True)
            ):
                return True
    return False


# ---------------------------------------------------------------------------------------------- captions of a scene

_SURFACES: dict[str, list[str]] = {}
for _words, _relation in RELATION_WORDS.items():
    _SURFACES.setdefault(_relation, []).append(_words)


def captions(scene: Scene, concepts: Concepts, key: str, count: int) -> list[str]:
    """`count` different true captions of a scene, in varied wordings, mentioning varied attributes."""
    rng = random.Random(key)
    found: dict[str, None] = {}
    while len(found) < count:
        facts = describe(scene, concepts, rng)
        if facts is not None and holds(facts, scene):
            found[write(facts)] = None
    return list(found)


def describe(scene: Scene, concepts: Concepts, rng: random.Random) -> Facts | None:
    """One attempt at a caption; None where the drawn wording does not suit the scene."""
    if rng.random() < concepts.negation:
        return _deny(concepts, rng)
    repeats = Counter(thing.kind for thing in scene.things)
    groups = list({thing.kind: (thing.kind, index) for index, thing in enumerate(scene.things)}.values())
    if max(repeats.values()) > 1 and rng.random() >= concepts.singular:
        return _count(repeats, concepts, rng)
    if rng.random() < 0.03:
        kind = rng.choice(groups)[0]
        plain = (w for w in WORDINGS if w.size == 1 and w.number == "one" and not w.predicates + w.located)
        wording = _choose(plain, rng)
        return Facts(wording, (replace(_phrase(kind, rng), determiner="exactly one"),))
    # Most captions of a crowded picture speak of two things, whose nouns and adjectives can be exchanged.
    size = min(len(groups), rng.choices((1, 2, 3), (4, 78, 18))[0])
    wording = _choose((w for w in WORDINGS if w.size == size and w.number == "one"), rng)
    mentioned = rng.sample(groups, size)
    relations = []
    for subject, target in wording.links:
        true = sorted(scene.relations(mentioned[subject][1], mentioned[target][1]))
        if not true:
            return None
        relations.append(rng.choice(_SURFACES[rng.choice(true)]))
    places = []
    for target in wording.located:
        thing = scene.things[mentioned[target][1]]
        clear = [words for words, place in PLACES.items() if thing.is_at(place, clearly=True)]
        if not clear:
            return None
        places.append(rng.choice(clear))
    kinds = [kind for kind, _ in mentioned]
    # As people do, many captions name of each thing what tells them apart; seldom the colour, which the others name.
    apart = [category for category in _MEMBERS if len({getattr(kind, category) for kind in kinds}) > 1]
    weights = [_TELLS[category] for category in apart]
    only = rng.choices(apart, weights)[0] if apart and rng.random() < 0.4 else None
    if not wording.predicates:
        bare = rng.random() < concepts.bare
        phrases = [Phrase("a", (), kind.shape) if bare else _phrase(kind, rng, only) for kind in kinds]
        if wording.links and rng.random() < 0.25:
            phrases[-1] = replace(phrases[-1], determiner="the")
        return Facts(wording, tuple(phrases), tuple(relations), places=tuple(places))
    # "The circle is red": the adjectives follow the verb, so the phrase before it stays bare.
    said = [_phrase(kind, rng, only).adjectives for kind in kinds]
    needed = Counter(wording.predicates)
    if any(len(said[i]) < needed[i] for i in needed):
        return None
    words = [word for i in range(size) for word in rng.sample(said[i], needed[i])]
    return Facts(wording, tuple(Phrase("the", (), kind.shape) for kind in kinds), (), tuple(words))


def _choose(wordings: Iterator[Wording], rng: random.Random) -> Wording:
    options = list(wordings)
    return rng.choices(options, [wording.weight for wording in options])[0]


def _phrase(kind: Kind, rng: random.Random, only: str | None = None) -> Phrase:
    """A noun with some of its adjectives, or with its size, texture or colour alone."""
    if only:
        return Phrase("a", (getattr(kind, only),), kind.shape)
    adjectives = []
    if rng.random() < 0.3:
        adjectives.append(kind.size)
    if rng.random() < (0.12 if kind.texture == "plain" else 0.6):
        adjectives.append(kind.texture)
    if rng.random() < 0.9:
        adjectives.insert(len(adjectives) - (rng.random() < 0.25 and kind.texture in adjectives), kind.colour)
    return Phrase("a", tuple(adjectives), kind.shape)


def _deny(concepts: Concepts, rng: random.Random) -> Facts:
    adjectives = (rng.choice(concepts.colours),) if rng.random() < 0.7 else ()
    number = rng.choice(("one", "many"))
    phrase = Phrase("no", adjectives, rng.choice(concepts.shapes), plural=number == "many")
    texts = ("there is {n}", "there is {n} in the picture", "there are {n}", "there are {n} in the picture")
    return Facts(_choose((w for w in WORDINGS if w.text in texts and w.number == number), rng), (phrase,))


def _count(repeats: Counter[Kind], concepts: Concepts, rng: random.Random) -> Facts:
    (kind, number), *others = repeats.most_common()
    word = next(word for word, value in _NUMBERS.items() if value == number)
    determiner = rng.choice((word, f"exactly {word}") if rng.random() < concepts.counted else _SEVERAL)
    phrases = [replace(_phrase(kind, rng), determiner=determiner, plural=True)]
    if others and rng.random() < 0.5:
        phrases.append(_phrase(others[0][0], rng))
    wording = _choose((w for w in WORDINGS if w.size == len(phrases) and w.number == "many"), rng)
    return Facts(wording, tuple(phrases))


# ---------------------------------------------------------------------------------------------- rewriting a caption


def rewrites(facts: Facts, kind: str, concepts: Concepts) -> list[Facts]:
    """Every rewriting of one negative type that says something else.

    Empty where there is none, and for a type that is not in REWRITES. The swaps and the reshuffle keep the caption's
    words; the replacements change exactly one of them for another of the same category that the caption does not use.
    Whether a rewriting is false is for `holds` to say.
    """
    if kind not in REWRITES or any(phrase.determiner == "no" for phrase in facts.phrases):
        return []
    meaning = facts.meaning()
    made = REWRITES[kind](facts, concepts)
    return list(dict.fromkeys(other for other in made if _consistent(other) and other.meaning() != meaning))


def content_words(caption: str) -> Counter[str]:
    """The caption's words as a multiset, with "an" counted as "a"."""
    return Counter("a" if word == "an" else word for word in re.findall(r"\w+", caption.lower()))


def _reshuffled(facts: Facts, concepts: Concepts) -> Iterator[Facts]:
    """The phrases in another order; articles stay, or an early "the" would tell the false caption without the image."""
    if len({phrase.plural for phrase in facts.phrases}) > 1:
        return
    for phrases in permutations(facts.phrases):
        placed = zip(phrases, facts.phrases, strict=True)
        yield replace(facts, phrases=tuple(replace(new, determiner=old.determiner) for new, old in placed))


def _nouns_swapped(facts: Facts, concepts: Concepts) -> Iterator[Facts]:
    for i, j in combinations(range(len(facts.phrases)), 2):
        one, two = facts.phrases[i], facts.phrases[j]
        if one.plural == two.plural:
            yield _with_phrases(facts, {i: replace(one, noun=two.noun), j: replace(two, noun=one.noun)})


def _adjectives_swapped(facts: Facts, concepts: Concepts) -> Iterator[Facts]:
    places = _adjective_places(facts)
    for (one, word), (two, other) in combinations(places, 2):
        yield _with_adjective(_with_adjective(facts, one, other), two, word)


def _nouns_replaced(facts: Facts, concepts: Concepts) -> Iterator[Facts]:
    used = {phrase.noun for phrase in facts.phrases}
    for i, phrase in enumerate(facts.phrases):
        for noun in concepts.shapes:
            if noun not in used:
                yield _with_phrases(facts, {i: replace(phrase, noun=noun)})


def _adjectives_replaced(facts: Facts, concepts: Concepts) -> Iterator[Facts]:
    places = _adjective_places(facts)
    used = {word for _, word in places}
    known = {*concepts.colours, *concepts.textures, *SIZES}
    for place, word in places:
        for other in _MEMBERS[CATEGORY[word]]:
            if other in known and (other not in used or CATEGORY[word] == "size") and other != word:
                yield _with_adjective(facts, place, other)


Place = tuple[int, int]
"""Where an adjective stands: (phrase, position) before a noun, (-1, position) after "is"."""


def _adjective_places(facts: Facts) -> list[tuple[Place, str]]:
    places = [((i, k), word) for i, phrase in enumerate(facts.phrases) for k, word in enumerate(phrase.adjectives)]
    return places + [((-1, k), word) for k, word in enumerate(facts.predicates)]


def _with_phrases(facts: Facts, changed: dict[int, Phrase]) -> Facts:
    return replace(facts, phrases=tuple(changed.get(i, phrase) for i, phrase in enumerate(facts.phrases)))


def _with_adjective(facts: Facts, place: Place, word: str) -> Facts:
    where, position = place
    if where < 0:
        return replace(
            facts, predicates=tuple(word if k == position else old for k, old in enumerate(facts.predicates))
        )
    phrase = facts.phrases[where]
    adjectives = tuple(word if k == position else old for k, old in enumerate(phrase.adjectives))
    return _with_phrases(facts, {where: replace(phrase, adjectives=adjectives)})


REWRITES: dict[str, Callable[[Facts, Concepts], Iterator[Facts]]] = {
    "reshuffle_order": _reshuffled,
    "swap_nouns": _nouns_swapped,
    "swap_adjectives": _adjectives_swapped,
    "replace_nouns": _nouns_replaced,
    "replace_adjectives": _adjectives_replaced,
}
"""By negative type, all candidates for a rewriting; the world writes no negatives of a type that is not here."""
