"""Hard Positives: two files joined row by row, and its scores."""

import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.rows import ImageRef
from tests.stages.benchmarks.files import assert_refused, jpeg, save, scored


def write_hard_positives(folder: Path) -> None:
    jpeg(folder / "images/VG_100K_2/2401814.jpg")
    row = {"image_id": "2401814", "image_path": "data/VG_100K_2/2401814.jpg", "false_caption": "jumping elephant"}
    for part, true in (("data", "walking elephant"), ("swapped_data", "strolling elephant")):
        save(folder / part / "vl_checklist_attributes.json", [row | {"true_caption": true}])


def test_it_joins_both_files_row_by_row(tmp_path: Path) -> None:
    folder = tmp_path / "hard_positives"
    write_hard_positives(folder)
    (subset,) = benchmarks.load("hard_positives", tmp_path, official=False)
    assert (subset.name, subset.rule) == ("attributes", "both")
    assert subset.rows[0].texts == ("walking elephant", "strolling elephant", "jumping elephant")
    assert subset.rows[0].image == ImageRef(folder / "images/VG_100K_2/2401814.jpg")
    swapped = folder / "swapped_data/vl_checklist_attributes.json"
    rows = json.loads(swapped.read_text())
    save(swapped, [rows[0] | {"image_path": "data/VG_100K/1.jpg"}])
    with pytest.raises(UserError, match=r"row 0 has image_path = 'data/VG_100K/1.jpg'; expected data/VG_100K_2"):
        benchmarks.load("hard_positives", tmp_path, official=False)
    save(swapped, rows * 2)
    with pytest.raises(UserError, match="has rows = 2; expected 1"):
        benchmarks.load("hard_positives", tmp_path, official=False)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("hard_positives/data/vl_checklist_relations.json", [], "holds no rows"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_scores_by_hand() -> None:
    """Caption, hard positive, negative: both beat it; only the caption; only the hard positive; neither."""
    found = scored(
        "hard_positives", "relations", "both", [[3, 2, 1], [3, 1, 2], [1, 3, 2], [1, 2, 3], [2, 3, 1], [1, 1, 1]]
    )
    assert found["hard_positives.relations"] == pytest.approx(2 / 6)
    assert found["hard_positives.relations.original"] == pytest.approx(3 / 6)
    assert found["hard_positives.relations.brittleness"] == pytest.approx(2 / 6)
