"""VL-CheckList's folders, and its means."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.schema import SCORES
from stages.benchmarks import loaders as benchmarks
from stages.evaluate.aggregates import aggregate
from tests.stages.benchmarks.files import assert_refused, jpeg, save


def test_subsets_are_named_by_kind_source_and_part(tmp_path: Path) -> None:
    folder = tmp_path / "vl_checklist"
    row = ["x/1.jpg", {"POS": ["a man rides", "unused"], "NEG": ["a man eats"]}]
    files = {
        "Relation/swig_action.json": ("relation.swig_action", "swig"),
        "Relation/vg/spatial.json": ("relation.vg_spatial", "vg"),
        "Attribute/vaw/color.json": ("attribute.vaw_color", "vg"),
        "Object/Location/swig_location/swig_agent/swig_agent_mid.json": ("object.swig_agent_mid", "swig"),
        "Object/Size/hake_size/hake_obj_small.json": ("object.hake_obj_small", "hake"),
    }
    for path, (_, source) in files.items():
        save(folder / "data" / path, [row])
        jpeg(folder / "images" / source / "x/1.jpg")
    found = {subset.name: subset.rows[0] for subset in benchmarks.load("vl_checklist", tmp_path, official=True)}
    assert {name: one.image and one.image.path.is_file() for name, one in found.items()} == {
        name: True for name, _ in files.values()
    }
    assert found["object.hake_obj_small"].texts == ("a man rides", "a man eats")
    save(folder / "data/Extra/vg_action.json", [row])
    with pytest.raises(UserError, match="no file of this benchmark"):
        benchmarks.load("vl_checklist", tmp_path, official=False)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("vl_checklist/data/Relation/vg/action.json", [["1.jpg", {"POS": [], "NEG": ["x"]}]], "POS, NEG"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_sources_and_parts_weigh_alike() -> None:
    """Action of two sources, spatial of one: (mean(1, 0) + 1) / 2 whatever the row counts."""
    rows = [
        {"model": "m", "benchmark": "vl_checklist", "subset": subset, "row_id": str(i), "image_key": str(i),
         "group": None, "similarities": [1.0, 0.0], "correct": right, "tie": False, "leaked": False, "protocol": "p"}
        for subset, right, n in (("relation.vg_action", 1.0, 1), ("relation.swig_action", 0.0, 5),
                                 ("relation.vg_spatial", 1.0, 3)) for i in range(n)
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, SCORES))
    assert found["vl_checklist.relation"]["m"]["value"] == pytest.approx(0.75)
