"""What denies, by rules and checks; in the built-in world the scene graph proves what is false and what is true."""

import re
from collections import Counter

import pytest

from pipeline.negative_types import ABSENCE, NEGATION
from stages.generate.checks import validate
from stages.generate.likely_types import likely_types
from stages.generate.rules import Rules, Vocabulary
from stages.language_models.base import Request
from stages.world.language import captions, holds, parse
from stages.world.scenes import NARROW, Scene, make_scene

CAPTION = "A boy with a kite walks a dog along the shore."


def verdict(kind: str, text: str, *siblings: str, caption: str = CAPTION) -> str:
    found = validate(kind, caption, text, siblings)
    return found.reason or found.status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A boy with no kite walks a dog along the shore.", "accepted"),
        ("A boy without a kite walks a dog along the shore.", "accepted"),
        ("No boy with a kite walks a dog along the shore.", "accepted"),
        ("A boy with a kite does not walk a dog along the shore.", "accepted"),
        ("A boy with a kite walks a cat along the shore.", "not_denied_once"),
        ("A boy without a kite walks no dog along the shore.", "not_denied_once"),
        ("A boy without a ball walks a dog along the shore.", "not_only_denied"),
        ("A boy without a kite walks along the shore.", "not_only_denied"),
        ("A dog without a kite walks a boy along the shore.", "rearranged"),
    ],
)
def test_a_negation_denies_one_thing_that_the_caption_says(text: str, expected: str) -> None:
    assert verdict(NEGATION, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A boy with a kite walks a dog along the shore with no boat.", "accepted"),
        ("A boy with a kite but no ball walks a dog along the shore.", "accepted"),
        ("A boy with a kite, not wearing a hat, walks a dog along the shore.", "accepted"),
        ("A boy with a kite walks a dog along the shore with a boat.", "not_denied_once"),
        ("A boy with no kite walks a dog along the shore.", "nothing_absent"),
        ("A boy with a kite walks along the shore with no boat.", "word_lost"),
        ("A boy with a boat walks no dog with a kite along the shore.", "rearranged"),
        ("A boy with a boat and a kite walks no dog along the shore.", "not_absent"),
        ("A boy with a kite walks a dog along the shore with no puppy.", "named"),
        ("A boy with a kite walks a dog along the shore with no rider.", "named"),
    ],
)
def test_an_absence_adds_one_thing_that_is_not_there(text: str, expected: str) -> None:
    assert verdict(ABSENCE, text) == expected


def test_what_another_caption_names_is_not_absent() -> None:
    text = "A boy with a kite walks a dog along the shore with no boat."
    assert verdict(ABSENCE, text, "A sailboat behind a boy.") == "named"
    assert verdict(ABSENCE, text, "A tree behind a boy.") == "accepted"


@pytest.mark.parametrize("kind", (NEGATION, ABSENCE))
def test_a_caption_that_denies_is_not_denied_again(kind: str) -> None:
    caption = "A boy without a kite walks a dog."
    assert verdict(kind, "A boy without a kite walks no dog.", caption=caption) == "already_denied"
    rules = Rules(Vocabulary.of([CAPTION, caption]))
    assert next(iter(rules.respond(kind, [], [Request(caption, 0, 1, 99)]))).text == "not applicable"


def test_a_ready_made_negation_is_told_by_its_negator() -> None:
    assert likely_types(CAPTION, "A boy without a kite walks a dog along the shore.")[0] == NEGATION
    assert NEGATION not in likely_types(CAPTION, "A boy with a ball walks a dog along the shore.")


def is_true(text: str, scene: Scene) -> bool | None:
    """What the scene graph says of a rewritten caption; None where it is not in the world's language."""
    if added := re.fullmatch(r"(.+) (?:with no|and no|without an?) (\w+)\.", text):
        parts = [parse(f"{added[1]}."), parse(f"There is no {added[2]}.")]
        return None if None in parts else all(holds(part, scene) for part in parts if part)
    denied = " not " in text
    facts = parse(text.replace(" not ", " ", 1))
    return None if facts is None else holds(facts, scene) != denied


def test_in_the_built_in_world_every_negation_is_false_and_every_absence_true() -> None:
    scenes = {str(key): make_scene(str(key), NARROW) for key in range(150)}
    told = {key: captions(scene, NARROW, key, 2) for key, scene in scenes.items()}
    rules = Rules(Vocabulary.of(caption for found in told.values() for caption in found))
    seen: Counter[tuple[str, bool | None]] = Counter()
    for key, scene in scenes.items():
        shown = [thing.shape for thing in scene.things]
        for caption in told[key]:
            for kind in (NEGATION, ABSENCE):
                known = (*told[key], *shown) if kind == ABSENCE else tuple(told[key])
                for one in rules.respond(kind, [], [Request(caption, 0, 1, 99, known)]):
                    for response in (one, *one.others):
                        if validate(kind, caption, response.text, known).status == "accepted":
                            seen[kind, is_true(response.text or "", scene)] += 1
    assert seen[NEGATION, True] == seen[ABSENCE, False] == 0, seen
    assert seen[NEGATION, False] > 200 and seen[ABSENCE, True] > 200, seen
