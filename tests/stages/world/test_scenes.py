"""The built-in world's scenes: images show what their scene graphs say."""

import json
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.world.scenes import COLOURS, INVERSE, NARROW, SHAPES, TEXTURES, WIDE, Kind, Scene, draw, make_scene

quick = settings(max_examples=60, deadline=None)
keys = st.integers(0, 10**9).map(str)


@quick
@given(keys)
def test_a_scene_is_unambiguous_and_survives_json(key: str) -> None:
    scene = make_scene(key, WIDE)
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    for a in range(len(scene.things)):
        for b in range(len(scene.things)):
            if a != b:
                assert scene.relations(a, b), "two things stand in some relation"
                assert {INVERSE[r] for r in scene.relations(a, b)} == scene.relations(b, a)
                one, two = scene.things[a], scene.things[b]
                if not scene.relations(a, b) & {"inside", "around", "front", "behind"}:
                    for gap in (abs(one.x - two.x), abs(one.y - two.y)):
                        assert gap <= 0.081 or gap >= 0.2
    kinds = Counter((thing.shape, thing.colour) for thing in scene.things)
    assert max(kinds.values()) == 1 or max(kinds.values()) >= len(scene.things) - 1


def test_scenes_have_one_to_four_things_and_some_stand_beside_others() -> None:
    """What the test above asks of pairs of things is asked of many."""
    scenes = [make_scene(str(number), WIDE) for number in range(200)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    apart = [
        scene
        for scene in scenes
        if len(scene.things) > 1 and scene.relations(0, 1) <= {"left", "right", "above", "below"}
    ]
    assert len(apart) > 20


def test_the_image_shows_the_colours_at_the_places_of_the_scene() -> None:
    for i, (name, _) in enumerate(COLOURS.items()):
        scene = make_scene(f"colour {i}", WIDE, [Kind("circle", name, "plain", "large")])
        thing = scene.things[0]
        pixels = np.asarray(draw(scene), dtype=int)
        assert pixels.shape == (64, 64, 3)
        assert np.abs(pixels[round(thing.y * 64 - 0.5), round(thing.x * 64 - 0.5)] - thing.rgb).max() <= 3
        distance = {
            other: sum((a - b) ** 2 for a, b in zip(thing.rgb, rgb, strict=True)) for other, rgb in COLOURS.items()
        }
        assert min(distance, key=distance.get) == name


def test_every_shape_and_texture_draws_a_different_silhouette_or_paint() -> None:
    seen = set()
    for shape in SHAPES:
        for texture in TEXTURES:
            if (shape, texture) == ("ring", "hollow"):
                continue
            scene = make_scene("same place", WIDE, [Kind(shape, "red", texture, "large")])
            seen.add(draw(scene).tobytes())
    assert len(seen) == len(SHAPES) * len(TEXTURES) - 1


def test_the_thing_in_front_hides_the_one_behind() -> None:
    kinds = [Kind("square", "red", "plain", "large"), Kind("circle", "blue", "plain", "large")]
    scene = make_scene("hide", NARROW, kinds, layout="overlap")
    front, back = scene.things[1], scene.things[0]
    assert scene.relations(1, 0) == {"front"}
    # A point of the front circle towards the square's centre lies on both.
    x, y = front.x + 0.35 * (back.x - front.x), front.y + 0.35 * (back.y - front.y)
    pixel = np.asarray(draw(scene), dtype=int)[int(y * 64), int(x * 64)]
    assert np.abs(pixel - front.rgb).sum() < np.abs(pixel - back.rgb).sum()


def test_the_narrow_concepts_leave_some_of_the_wide_ones_out() -> None:
    assert set(NARROW.shapes) < set(WIDE.shapes)
    assert set(NARROW.colours) < set(WIDE.colours)
    assert set(NARROW.textures) < set(WIDE.textures)
    things = [thing for i in range(200) for thing in make_scene(f"narrow {i}", NARROW).things]
    assert {thing.shape for thing in things} == set(NARROW.shapes)
    assert {thing.colour for thing in things} == set(NARROW.colours)
    assert {thing.texture for thing in things} == set(NARROW.textures)
