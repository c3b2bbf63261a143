"""MMVP-VLM's pairs, and the score it is known by."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.rows import ImageRef
from tests.stages.benchmarks.files import assert_refused, jpeg, save, scored


def test_statements_are_paired_with_their_images(tmp_path: Path) -> None:
    folder = tmp_path / "mmvp"
    jpeg(folder / "MLLM_VLM Images/Quantity and Count/3.jpg")
    lines = ["Question ID,Type,Statement", "1,Texts,the word hot", "2,Texts,the word cold"]
    lines += ["3,Quantity and Count,two cups", "4,Quantity and Count,three cups"]
    save(folder / "Questions.csv", "\n".join(lines))
    texts, count = benchmarks.load("mmvp", tmp_path, official=False)
    assert (texts.name, count.name) == ("texts", "quantity_and_count")
    (row,) = count.rows
    assert row.texts == ("a photo of two cups", "a photo of three cups")
    assert row.image == ImageRef(folder / "MLLM_VLM Images/Quantity and Count/3.jpg")
    assert row.others == (ImageRef(folder / "MLLM_VLM Images/Quantity and Count/4.jpg"),)
    for broken in (lines[:-1], [*lines[:3], *reversed(lines[3:])]):
        save(folder / "Questions.csv", "\n".join(broken))
        with pytest.raises(UserError, match="row 3 has pair"):
            benchmarks.load("mmvp", tmp_path, official=False)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("mmvp/Questions.csv", "id,type,statement\n", "holds no rows"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: object, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_the_image_score_is_its_own() -> None:
    squares = [[0.9, 0.1, 0.2, 0.8], [0.5, 0.4, 0.7, 0.8], [0.5, 0.7, 0.4, 0.8]]
    assert scored("mmvp", "texts", "square", squares)["mmvp.image"] == pytest.approx(2 / 3)
