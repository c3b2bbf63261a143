"""SugarCrepe++: each file is two tasks."""

from pathlib import Path

import pytest

from stages.benchmarks import loaders as benchmarks
from stages.benchmarks import sugarcrepe_pp
from tests.stages.benchmarks.files import NAMED, assert_refused, jpeg, save


def test_a_file_is_asked_with_its_image_and_without(tmp_path: Path) -> None:
    jpeg(tmp_path / "sugarcrepe_pp/images/0.png")
    save(tmp_path / "sugarcrepe_pp/swap_obj.json", [{"id": 0, "filename": "0.png", "caption2": "c", **NAMED}])
    with_image, texts = benchmarks.load("sugarcrepe_pp", tmp_path, official=False)
    assert (with_image.name, with_image.rule) == ("swap_obj.itt", "both")
    assert (texts.name, texts.rule) == ("swap_obj.tot", "texts")
    assert with_image.rows[0].texts == texts.rows[0].texts == ("a", "c", "b")
    assert with_image.rows[0].image and texts.rows[0].image is None


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("sugarcrepe_pp/x.json", [{"id": 1, "filename": "0.png", "caption2": "c", **NAMED}] * 2, "row 1 has id = 1"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_the_two_tasks_are_never_averaged_together() -> None:
    names = ["swap_att.itt", "swap_att.tot", "swap_obj.itt", "swap_obj.tot"]
    itt, tot, *each = sugarcrepe_pp.means("sugarcrepe_pp", names, {})
    assert (itt.name, tot.name) == ("sugarcrepe_pp.itt", "sugarcrepe_pp.tot")
    assert [rows[0][1] for rows, _ in itt.cells] == ["swap_att.itt", "swap_obj.itt"]
    assert [item.subset for item in each] == names
