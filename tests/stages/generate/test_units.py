"""Units of captions and their foils, by rules and checks; in the built-in world the scene graph proves both."""

from collections import Counter

import pytest

from pipeline.negative_types import UNITS
from stages.generate import unit_checks
from stages.generate.checks import validate
from stages.generate.rules import Rules, Vocabulary
from stages.language_models.base import Request
from stages.world.language import captions, holds, parse
from stages.world.scenes import NARROW, Scene, make_scene

CAPTION = "A boy with a red kite walks a dog along the shore."


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("a boy / a girl", None),
        ("a red kite / a blue kite", None),
        ("a boy with a kite / a kite with a boy", None),
        ("a dog is along the shore / a dog is beside the shore", None),
        ("a cat / a horse", "not_said"),
        ("a red dog / a brown dog", "not_said"),
        ("a dog with a kite / a dog with a ball", "not_said"),
        ("a dog / a puppy", "still_true"),
        ("a dog / a kite", "may_hold"),
        ("a dog / a boat", "may_hold"),
        ("a boy / the boy", "identical"),
        ("a boy with a kite / a boy without a kite", None),
        ("a boy", "not_units"),
        ("a boy / a girl / a man", "not_units"),
    ],
)
def test_a_unit_is_said_and_its_foil_is_not_true(pair: str, reason: str | None) -> None:
    found = validate(UNITS, CAPTION, pair, ["A boat behind a boy."])
    assert (found.status, found.reason) == ("rejected" if reason else "accepted", reason)


def test_what_passes_of_a_line_is_kept() -> None:
    line = "a boy / a girl; a cat / a horse; a red kite / a blue kite"
    found = validate(UNITS, CAPTION, f"{line}.")
    assert (found.status, found.text) == ("accepted", "a boy / a girl; a red kite / a blue kite")
    assert list(unit_checks.pairs(found.text or "")) == [("a boy", "a girl"), ("a red kite", "a blue kite")]
    assert validate(UNITS, "A boy without a kite.", "a boy / a girl").reason == "already_denied"
    assert validate(UNITS, CAPTION, "Not applicable.").status == "not_applicable"


def is_true(text: str, scene: Scene) -> bool | None:
    """What the scene graph says of a unit or foil; None where it is not in the world's language."""
    facts = next(filter(None, map(parse, (f"There is {text}.", f"There are {text}.", text))), None)
    return None if facts is None else holds(facts, scene)


def test_in_the_built_in_world_every_unit_is_true_and_every_foil_false() -> None:
    scenes = {str(key): make_scene(str(key), NARROW) for key in range(150)}
    told = {key: captions(scene, NARROW, key, 2) for key, scene in scenes.items()}
    rules = Rules(Vocabulary.of(caption for found in told.values() for caption in found))
    units: Counter[bool | None] = Counter()
    foils: Counter[bool | None] = Counter()
    lines = 0
    for key, scene in scenes.items():
        known = (*told[key], *(thing.shape for thing in scene.things))
        for caption in told[key]:
            (response,) = rules.respond(UNITS, [], [Request(caption, 0, 1, 99, known)])
            verdict = validate(UNITS, caption, response.text, known)
            if verdict.status == "accepted":
                lines += 1
                for unit, foil in unit_checks.pairs(verdict.text or ""):
                    units[is_true(unit, scene)] += 1
                    foils[is_true(foil, scene)] += 1
    assert units.keys() == {True} and foils[True] == 0, (units, foils)
    assert lines > 250 and foils[False] > 600, (lines, foils)
