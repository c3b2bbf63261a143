"""COLA's multi-object file, and the score it is known by."""

from pathlib import Path

import pytest

from stages.benchmarks import cola
from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import assert_refused, jpeg, save, scored

FILE = "cola/COLA_multiobjects_matching_benchmark.json"


def test_an_address_names_the_file_by_its_last_part(tmp_path: Path) -> None:
    jpeg(tmp_path / "cola/images/0.png")
    save(tmp_path / FILE, [["https://x/y/0.png", "a cup", "https://x/y/1.png", "a dog"]])
    (subset,) = benchmarks.load("cola", tmp_path, official=False)
    (row,) = subset.rows
    assert (subset.name, subset.rule, row.texts) == ("multi_object", "square", ("a cup", "a dog"))
    assert row.image and (row.image_key, row.others[0].path.name) == ("0.png", "1.png")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("cola/COLA_multiobjects_matching_benchmark.json", [["a", "b", "c"]], "row 0 has row"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_the_image_score_is_its_own() -> None:
    squares = [[0.9, 0.1, 0.2, 0.8], [0.5, 0.4, 0.7, 0.8], [0.5, 0.7, 0.4, 0.8]]
    found = scored("cola", "multi_object", "square", squares)
    assert found == pytest.approx({"cola.text": 2 / 3, "cola.image": 2 / 3, "cola.group": 1 / 3})
    assert {item.name: item.subset for item in cola.means("cola", ["multi_object"], {})} == {
        "cola.text": None, "cola.image": "multi_object", "cola.group": None,
    }  # fmt: skip
