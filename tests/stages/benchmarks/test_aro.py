"""ARO's boxes, groups and word orders."""

from pathlib import Path

import pytest

from stages.benchmarks import aro
from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import ARO, BOX, assert_refused
from tests.stages.small_road import write_benchmarks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_benchmarks(tmp_path)
    return tmp_path


def test_aro_cuts_the_box_and_groups_only_what_the_macro_rules_count(root: Path) -> None:
    relation, attribution, _ = benchmarks.load("aro", root, official=False)
    assert [row.group for row in relation.rows] == ["above", "below", "above", None]  # "by" is symmetric
    assert [row.group for row in attribution.rows].count("red_blue") == 25
    assert attribution.rows[-1].group is None  # two rows of tall_short
    image = relation.rows[0].image
    assert image is not None and image().size == (20, 40)


def test_a_foil_that_equals_the_caption_counts_as_right_in_the_order_sets_alone(root: Path) -> None:
    relation, attribution, order = benchmarks.load("aro", root, official=False)
    assert (relation.tie, attribution.tie, order.tie) == ("wrong", "wrong", "right")
    assert order.name == "coco_order" and {len(row.texts) for row in order.rows} == {aro.ORDER_OPTIONS}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("aro/other.json", [], "no file of this benchmark"),
        ("aro/coco_order.json", [{"image_path": "0.png", "caption_options": ["a", "b"]}], "expected 5 texts"),
        ("aro/coco_order.json", [{"image_path": "0.png", "caption_options": ["a", "b", 3, "", None]}], "a text"),
        ("aro/visual_genome_relation.json", [ARO | BOX | {"bbox_w": 0}], "row 0 has box"),
        ("aro/visual_genome_relation.json", [ARO | BOX | {"bbox_x": -1}], "row 0 has box"),
        ("aro/visual_genome_relation.json", [ARO | BOX | {"bbox_h": float("nan")}], "row 0 has box"),
        ("aro/visual_genome_attribution.json", [ARO | BOX | {"attributes": "red"}], "has attributes = 'red'"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_the_mean_of_four_takes_the_macro_means_and_the_headline_no_word_order() -> None:
    present = {("aro", "vg_relation"): ["above", "below"], ("aro", "vg_attribution"): ["red_blue"]}
    pictured = {
        ((("aro", "vg_attribution", "red_blue"),), 1 / 2),
        ((("aro", "vg_relation", "above"),), 1 / 4),
        ((("aro", "vg_relation", "below"),), 1 / 4),
    }
    orders = {((("aro", "coco_order", None),), 1 / 4), ((("aro", "flickr30k_order", None),), 1 / 4)}
    present |= {("aro", "coco_order"): [], ("aro", "flickr30k_order"): []}
    made = {one.name: one for one in aro.means("aro", sorted(name for _, name in present), present)}
    assert next(iter(made)) == "aro.mean_vg" and set(made["aro.mean_vg"].cells) == pictured
    assert set(made["aro.mean4"].cells) == {(rows, share / 2) for rows, share in pictured} | orders
    told = {name for name, one in made.items() if one.told_by_text}
    assert told == {"aro.coco_order", "aro.flickr30k_order", "aro.mean4"}
    two = aro.means("aro", ["coco_order", "vg_relation"], present)
    assert (two[-1].name, two[-1].says) == ("aro.mean_sets", "mean of the sets, 2 of 4"), "another mean, another name"
    assert two[0].name == "aro.vg_relation.macro"
    (micro,) = aro.means("aro", ["vg_relation"], {("aro", "vg_relation"): []})
    assert (micro.name, micro.subset) == ("aro.vg_relation.micro", "vg_relation"), "no group is large enough"
