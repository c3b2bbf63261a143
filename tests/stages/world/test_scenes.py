"""The built-in world: its pictures are what its scene graphs say, its captions are true, its evaluation sets exact."""

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.world.datasets import write_benchmarks, write_pairs
from stages.world.language import (
    REWRITES,
    WORDINGS,
    Facts,
    Phrase,
    captions,
    content_words,
    holds,
    parse,
    rewrites,
    write,
)
from stages.world.scenes import COLOURS, INVERSE, NARROW, SHAPES, TEXTURES, WIDE, Kind, Scene, draw, make_scene
from tests.paths import real

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


def test_the_picture_shows_the_colours_at_the_places_of_the_scene() -> None:
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


def test_scene_i_does_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    few = list(write_pairs(tmp_path / "few", 3, 5, WIDE))
    many = list(write_pairs(tmp_path / "many", 6, 5, WIDE))
    assert [(p.name, p.captions, p.scene) for p in few] == [(p.name, p.captions, p.scene) for p in many[:3]]
    assert few[0].path.read_bytes() == many[0].path.read_bytes()
    assert many[0].scene != next(write_pairs(tmp_path / "other", 1, 6, WIDE)).scene


def test_a_killed_writer_resumes_without_drawing_again(tmp_path: Path) -> None:
    writing = write_pairs(tmp_path, 4, 0, NARROW)
    first = next(writing)
    writing.close()
    first.path.write_bytes(b"kept")
    assert len(list(write_pairs(tmp_path, 4, 0, NARROW))) == 4
    assert first.path.read_bytes() == b"kept"


def test_the_narrow_concepts_leave_some_of_the_wide_ones_out() -> None:
    assert set(NARROW.shapes) < set(WIDE.shapes)
    assert set(NARROW.colours) < set(WIDE.colours)
    assert set(NARROW.textures) < set(WIDE.textures)
    for i in range(200):
        for thing in make_scene(f"narrow {i}", NARROW).things:
            assert thing.shape in NARROW.shapes and thing.colour in NARROW.colours
            assert thing.texture in NARROW.textures


@quick
@given(keys, st.sampled_from((WIDE, NARROW)))
def test_every_caption_parses_back_and_is_true(key: str, concepts) -> None:
    scene = make_scene(key, concepts)
    made = captions(scene, concepts, key, 3)
    assert len(set(made)) == 3
    for caption in made:
        facts = parse(caption)
        assert facts is not None and write(facts) == caption and holds(facts, scene)
        assert caption[0].isupper() and caption.endswith(".") and " a o" not in caption


@quick
@given(keys, st.sampled_from(REWRITES))
def test_rewrites_keep_to_their_kind_and_are_false(key: str, kind: str) -> None:
    # A third thing in the picture can make a rewriting true by accident, so this looks at pictures of two.
    rng = random.Random(key)
    shapes, colours = rng.sample(WIDE.shapes, 2), rng.sample(WIDE.colours, 2)
    textures, sizes = ("plain", "striped"), ("small", "large")
    kinds = [Kind(*fields) for fields in zip(shapes, colours, textures, sizes, strict=True)]
    scene = make_scene(key, WIDE, kinds, "apart")
    caption = captions(scene, WIDE, key, 1)[0]
    for facts in rewrites(parse(caption), kind, WIDE):
        text = write(facts)
        assert parse(text) == facts
        lost, gained = content_words(caption) - content_words(text), content_words(text) - content_words(caption)
        if kind.startswith("replace"):
            assert sum(lost.values()) == sum(gained.values()) == 1
        else:
            assert not lost and not gained and text != caption
        assert not holds(facts, scene), (caption, text)


def test_truth_is_judged_by_place_number_and_attribute() -> None:
    kinds = [Kind("star", "red", "striped", "small"), Kind("heart", "blue", "plain", "large")]
    scene = next(
        scene
        for scene in (make_scene(f"pair {i}", WIDE, kinds, "apart") for i in range(99))
        if scene.relations(0, 1) == {"above"}
    )
    truths = {
        "A red star is above a blue heart.": True,
        "Above the blue heart there is a red star.": True,
        "Above the red star there is a blue heart.": False,
        "Below the red star there is a blue heart.": True,
        "a large blue heart has a striped star over it": True,
        "The star is red and the heart is blue.": True,
        "The star is blue and the heart is red.": False,
        "There is exactly one star.": True,
        "There are two stars in the picture.": False,
        "There are no moons.": True,
        "There is no blue heart.": False,
        "A red star and a red star.": False,
        "A plain red star.": False,
        "A red star, a blue heart and a green moon.": False,
        "A red star is to the left of a blue heart.": False,
    }
    assert {text: holds(parse(text), scene) for text in truths} == truths


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Red star above.",
            "A red blue star.",
            "A red star is above.",
            "not applicable",
            "A dog is above a star.",
        ),
        *("Two star.", "A stars.", "A red star is above a blue heart. Or not.", "There is a star star."),
    ],
)
def test_what_is_not_in_the_language_does_not_parse(text: str) -> None:
    assert parse(text) is None


@quick
@given(st.data())
def test_parse_is_the_inverse_of_write_for_every_wording(data: st.DataObject) -> None:
    wording = data.draw(st.sampled_from([w for w in WORDINGS if w.number == "one"]))
    noun, colour = st.sampled_from(SHAPES), st.sampled_from(list(COLOURS))
    phrases = tuple(
        Phrase(data.draw(st.sampled_from(("a", "the"))), () if wording.predicates else (data.draw(colour),), n)
        for n in data.draw(st.tuples(*[noun] * wording.size))
    )
    relations = tuple(data.draw(st.sampled_from(("above", "to the left of", "in front of"))) for _ in wording.links)
    predicates = tuple(("large", data.draw(colour))[k % 2] for k in range(len(wording.predicates)))
    facts = Facts(wording, phrases, relations, predicates)
    assert parse(write(facts)) == facts


@quick
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(("a", "the", "red", "star", "stars", "above", "is", ",", "no", "two"))).map(" ".join)
)
def test_parse_never_fails(text: str) -> None:
    facts = parse(text)
    assert facts is None or content_words(write(facts)) == content_words(text)


# ---------------------------------------------------------------------------------------------- evaluation sets


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_benchmarks(folder, n=20, seed=3)
    return folder


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def test_the_same_arguments_give_the_same_bytes(sets: Path, tmp_path: Path) -> None:
    write_benchmarks(tmp_path, n=20, seed=3)
    assert _digest(tmp_path) == _digest(sets)


def test_sugarcrepe_has_the_real_shape_and_matched_surfaces(sets: Path) -> None:
    subsets = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
    assert sorted(path.stem for path in (sets / "sugarcrepe").glob("*.json")) == list(subsets)
    for subset in subsets:
        rows = json.loads((sets / "sugarcrepe" / f"{subset}.json").read_text())
        assert list(rows) == [str(i) for i in range(20)]
        for row in rows.values():
            assert list(row) == ["filename", "caption", "negative_caption"]
            assert Image.open(sets / "sugarcrepe" / "images" / row["filename"]).size == (64, 64)
            caption, negative = row["caption"], row["negative_caption"]
            scene = make_scene(f"test/sugarcrepe/3/{int(row['filename'][:-4])}", NARROW)
            assert holds(parse(caption), scene) and not holds(parse(negative), scene)
            assert caption != negative and negative[0].isupper() and negative.endswith(".") and parse(negative)
            lost, gained = (
                sum(c.values())
                for c in (
                    content_words(caption) - content_words(negative),
                    content_words(negative) - content_words(caption),
                )
            )
            if subset.startswith("swap"):
                assert lost == gained == 0
            elif subset in ("replace_att", "replace_obj"):
                assert lost == gained == 1
            elif subset.startswith("add"):
                assert lost == 0 and gained >= 1


def test_valse_rows_carry_votes_and_some_are_ruled_out(sets: Path) -> None:
    for subset in ("existence", "counting-small-quant", "relations", "plurals", "foil-it"):
        rows = json.loads((sets / "valse" / f"{subset}.json").read_text())
        valid = [row for row in rows.values() if row["mturk"]["caption"] >= 2]
        assert len(valid) == 20 < len(rows)
        for row in rows.values():
            if subset in ("existence", "relations", "foil-it"):
                scene = make_scene(f"test/valse/3/{subset}/{row['dataset_idx']}", WIDE)
                assert holds(parse(row["caption"]), scene) and not holds(parse(row["foil"]), scene)
            assert {"dataset", "original_split", "image_file", "linguistic_phenomena", "caption", "foil"} <= set(row)
            assert {"classes", "classes_foil", "mturk"} <= set(row)
            assert row["caption"] != row["foil"] and parse(row["caption"]) and parse(row["foil"])
            assert (sets / "valse" / "images" / row["image_file"]).is_file()


def test_aro_boxes_cut_the_scene_out_and_groups_are_large_enough(sets: Path) -> None:
    relation = json.loads((sets / "aro" / "visual_genome_relation.json").read_text())
    attribution = json.loads((sets / "aro" / "visual_genome_attribution.json").read_text())
    assert min(Counter(row["relation_name"] for row in relation).values()) >= 25
    assert min(Counter("_".join(row["attributes"]) for row in attribution).values()) >= 25
    for row in relation[:40] + attribution[:40]:
        assert sorted(content_words(row["true_caption"])) == sorted(content_words(row["false_caption"]))
        assert row["true_caption"] != row["false_caption"]
        picture = Image.open(sets / "aro" / "images" / row["image_path"])
        x, y, width, height = (row[f"bbox_{field}"] for field in "xywh")
        assert picture.size == (128, 64) and picture.crop((x, y, x + width, y + height)).size == (64, 64)
    for row in json.loads((sets / "aro" / "coco_order.json").read_text()):
        true, *foils = row["caption_options"]
        assert len(foils) == 4 and true not in foils
        assert all(sorted(foil.split()) == sorted(true.split()) for foil in foils)


def test_zero_shot_folders_agree_with_their_class_lists(sets: Path) -> None:
    folders = sorted(path.name for path in (sets / "zeroshot").iterdir())
    assert folders == ["objects_seen", "objects_unseen", "shapes_seen", "shapes_unseen"]
    for name in folders:
        root = sets / "zeroshot" / name
        classes = json.loads((root / "classes.json").read_text())
        assert classes["classnames"] == sorted(path.name for path in (root / "images").iterdir())
        assert all("{}" in template for template in classes["templates"]) and classes["metric"] == "top1"
        for label in classes["classnames"]:
            assert len(list((root / "images" / label).glob("*.png"))) >= 1
            assert (label.split()[-1] in NARROW.shapes) == name.endswith("_seen")


def test_rows_have_the_keys_of_the_real_files(sets: Path) -> None:
    for name in ("sugarcrepe/swap_obj", "valse/existence", "valse/counting-small-quant", "valse/relations"):
        theirs = json.loads(real(f"benchmarks/{name}.json").read_text())
        ours = json.loads((sets / f"{name}.json").read_text())
        assert type(theirs) is type(ours)
        row, other = next(iter(theirs.values())), next(iter(ours.values()))
        needed = {"filename", "caption", "negative_caption", "image_file", "foil", "mturk", "classes", "classes_foil"}
        assert set(row) & needed == set(other) & needed
        assert row.get("mturk", {}).keys() == other.get("mturk", {}).keys()
