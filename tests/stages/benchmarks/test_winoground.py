"""Winoground's file, and its three scores."""

from pathlib import Path

import pytest

from stages.benchmarks import loaders as benchmarks
from tests.stages.benchmarks.files import assert_refused, jpeg, save, scored


def test_two_images_and_two_captions(tmp_path: Path) -> None:
    folder = tmp_path / "winoground"
    jpeg(folder / "images/1.png")
    line = {"id": 0, "image_0": "0.png", "image_1": "1", "caption_0": "a cup on a dog", "caption_1": "a dog on a cup"}
    save(folder / "examples.jsonl", line)
    (subset,) = benchmarks.load("winoground", tmp_path, official=False)
    (row,) = subset.rows
    assert (subset.name, subset.rule, row.texts) == ("all", "square", ("a cup on a dog", "a dog on a cup"))
    assert row.image
    assert (row.image.path.name, row.others[0].path.name) == ("0.png", "1.png"), "with or without the ending"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("winoground/examples.jsonl", "\n\n", "holds no rows"),
        ("winoground/examples.jsonl", '{"id": 1\n', "line 1 is no JSON"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_scores_by_hand() -> None:
    """Four squares: all right; twice only each image finds its caption; once only each caption finds its image."""
    squares = [[0.9, 0.1, 0.2, 0.8], [0.5, 0.4, 0.7, 0.8], [0.6, 0.5, 0.7, 0.8], [0.5, 0.7, 0.4, 0.8]]
    found = scored("winoground", "all", "square", squares)
    assert found == pytest.approx({"winoground.text": 3 / 4, "winoground.image": 2 / 4, "winoground.group": 1 / 4})
