"""SPEC: one image against texts, and one text against images."""

from pathlib import Path

import pytest

from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.spec import means
from tests.stages.benchmarks.files import assert_refused, jpeg, save

TEXTS = ["one cup", "two cups", "three cups"]
IMAGES = [f"cup/{number}.jpg" for number in (1, 2, 3)]


def write_spec(folder: Path) -> None:
    for image in IMAGES:
        jpeg(folder / "count" / image)
    save(folder / "count/image2text.json", [{"query": IMAGES[1], "keys": TEXTS, "label": 1}])
    save(folder / "count/text2image.json", [{"query": TEXTS[2], "keys": IMAGES, "label": 2}])


@pytest.mark.parametrize("below", ["", "data"])
def test_both_directions_with_the_right_option_first(tmp_path: Path, below: str) -> None:
    write_spec(tmp_path / "spec" / below)
    i2t, t2i = benchmarks.load("spec", tmp_path, official=True)
    assert (i2t.name, i2t.rule, t2i.name, t2i.rule) == ("count.i2t", "choice", "count.t2i", "image_choice")
    assert i2t.rows[0].texts == ("two cups", "one cup", "three cups") and not i2t.rows[0].others
    (row,) = t2i.rows
    assert row.image and row.texts == ("three cups",)
    assert [image.path.name for image in (row.image, *row.others)] == ["3.jpg", "1.jpg", "2.jpg"]
    assert row.image_key == "spec:count:cup:3.jpg" and len(t2i.images) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "1.jpg", "keys": TEXTS, "label": 3}, "row 0 has label = 3"),
        ({"query": "1.jpg", "keys": [], "label": 0}, "two at least"),
        ({"query": "1.jpg", "keys": "abc", "label": 0}, "row 0 has keys"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, row: object, message: str) -> None:
    assert_refused(tmp_path, "spec/count/image2text.json", [row], message)


def test_a_mean_in_each_direction() -> None:
    made = {one.name: one for one in means("spec", ["count.i2t", "count.t2i", "existence.i2t"], {})}
    assert len(made["spec.i2t"].cells) == 2 and len(made["spec.t2i"].cells) == 1
