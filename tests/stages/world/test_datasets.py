"""The built-in world as files: reproducible, resumable, and in the real benchmarks' own formats."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from stages.benchmarks.loaders import load
from stages.evaluate import blind
from stages.world.datasets import RARE, write_benchmarks, write_pairs, zeroshot_scene
from stages.world.language import content_words, holds, parse
from stages.world.scenes import NARROW, WIDE, Concepts, make_scene
from tests.paths import real


def test_scene_i_does_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    few = list(write_pairs(tmp_path / "few", 3, 5, WIDE))
    many = list(write_pairs(tmp_path / "many", 6, 5, WIDE))
    assert [(p.key, p.captions, p.scene) for p in few] == [(p.key, p.captions, p.scene) for p in many[:3]]
    assert few[0].path.read_bytes() == many[0].path.read_bytes()
    assert many[0].scene != next(write_pairs(tmp_path / "other", 1, 6, WIDE)).scene


def test_a_share_of_the_images_has_the_wide_concepts_and_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    narrow = list(write_pairs(tmp_path, 60, 5, NARROW))
    mixed = list(write_pairs(tmp_path, 60, 5, NARROW, wide_share=0.3))
    wide = [pair for pair in mixed if pair.key.startswith("scenes:wide:")]
    assert 8 <= len(wide) <= 28
    assert all(pair == narrow[i] for i, pair in enumerate(mixed) if pair not in wide)
    rare = {*WIDE.shapes} - {*NARROW.shapes}
    assert any(thing.shape in rare for pair in wide for thing in pair.scene.things)


def test_a_killed_writer_resumes_without_drawing_again(tmp_path: Path) -> None:
    writing = write_pairs(tmp_path, 4, 0, NARROW)
    first = next(writing)
    writing.close()  # type: ignore[attr-defined]
    first.path.write_bytes(b"kept")
    assert len(list(write_pairs(tmp_path, 4, 0, NARROW))) == 4
    assert first.path.read_bytes() == b"kept"


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
        if subset.startswith("add"):
            longer = [len(row["negative_caption"].split()) > len(row["caption"].split()) for row in rows.values()]
            assert longer.count(True) == longer.count(False) == 10


@pytest.mark.parametrize("subset", ["add_att", "add_obj"])
def test_an_added_word_is_not_told_by_counting_words(subset: str, tmp_path: Path) -> None:
    write_benchmarks(tmp_path, n=100, seed=3, size=32)
    (rows,) = (found for found in load("sugarcrepe", tmp_path, official=False) if found.name == subset)
    assert sum(right > wrong for right, wrong in blind.rule(rows)) < 80


def test_valse_rows_carry_votes_and_some_are_ruled_out(sets: Path) -> None:
    for subset in ("existence", "counting-small-quant", "relations", "plurals", "foil-it", "actant-swap"):
        rows = json.loads((sets / "valse" / f"{subset}.json").read_text())
        valid = [row for row in rows.values() if row["mturk"]["caption"] >= 2]
        assert len(valid) == 20 < len(rows)
        for row in rows.values():
            if subset in ("existence", "relations", "foil-it", "actant-swap"):
                scene = make_scene(f"test/valse/3/{subset}/{row['dataset_idx']}", WIDE)
                assert holds(parse(row["caption"]), scene) and not holds(parse(row["foil"]), scene)
            assert {"dataset", "original_split", "image_file", "linguistic_phenomena", "caption", "foil"} <= set(row)
            assert {"classes", "classes_foil", "mturk"} <= set(row)
            if subset == "actant-swap":
                assert content_words(row["caption"]) == content_words(row["foil"])
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
        image = Image.open(sets / "aro" / "images" / row["image_path"])
        x, y, width, height = (row[f"bbox_{field}"] for field in "xywh")
        assert image.size == (128, 64) and image.crop((x, y, x + width, y + height)).size == (64, 64)
    for row in json.loads((sets / "aro" / "coco_order.json").read_text()):
        true, *foils = row["caption_options"]
        assert len(foils) == 4 and true not in foils
        assert all(sorted(foil.split()) == sorted(true.split()) for foil in foils)


def test_zero_shot_folders_agree_with_their_class_lists(sets: Path) -> None:
    folders = sorted(path.name for path in (sets / "zeroshot").iterdir())
    assert folders == ["objects_common", "objects_rare", "shapes_common", "shapes_rare"]
    for name in folders:
        root = sets / "zeroshot" / name
        classes = json.loads((root / "classes.json").read_text())
        assert classes["classnames"] == sorted(path.name for path in (root / "images").iterdir())
        assert all("{}" in template for template in classes["templates"]) and classes["metric"] == "top1"
        for label in classes["classnames"]:
            assert len(list((root / "images" / label).glob("*.png"))) >= 1
            assert (label.split()[-1] in NARROW.shapes) == name.endswith("_common")
    assert [len(list((sets / "zeroshot" / name / "images").iterdir())) for name in folders] == [80, 24, 10, 6]


def _zero_shot_classes() -> list[tuple[str, str, str | None, Concepts, Concepts]]:
    return [
        (f"{colour} {shape}" if colour else shape, shape, colour, concepts, others)
        for concepts, others in ((NARROW, RARE), (RARE, NARROW))
        for shape in concepts.shapes
        for colour in (None, *concepts.colours)
    ]


def test_a_zero_shot_image_shows_exactly_one_of_its_classes_and_nothing_of_another() -> None:
    classes = _zero_shot_classes()
    for label, shape, colour, concepts, others in classes:
        for i in range(3):
            scene = zeroshot_scene(f"test/{label}/{i}", shape, colour, concepts, others)
            rivals = [
                name for name, _, tint, known, _ in classes if known is concepts and (tint is None) == (not colour)
            ]
            assert [name for name in rivals if holds(parse(f"A {name}."), scene)] == [label]
            thing, *beside = scene.things
            assert 1 <= len(beside) <= 2 and all(
                math.dist((thing.x, thing.y), (o.x, o.y)) > thing.r + o.r for o in beside
            )
            assert not {o.shape for o in beside} & {*concepts.shapes}
            assert not {o.colour for o in beside} & {*concepts.colours}, "no word of a class fits another thing"


def test_rows_have_the_keys_of_the_real_files(sets: Path) -> None:
    for name in ("sugarcrepe/swap_obj", "valse/existence", "valse/counting-small-quant", "valse/relations"):
        theirs = json.loads(real(f"benchmarks/{name}.json").read_text())
        ours = json.loads((sets / f"{name}.json").read_text())
        assert type(theirs) is type(ours)
        row, other = next(iter(theirs.values())), next(iter(ours.values()))
        needed = {"filename", "caption", "negative_caption", "image_file", "foil", "mturk", "classes", "classes_foil"}
        assert set(row) & needed == set(other) & needed
        assert row.get("mturk", {}).keys() == other.get("mturk", {}).keys()
