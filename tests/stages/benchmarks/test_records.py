"""Rows with their images, in every form of file."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks.records import records, right_first
from tests.stages.benchmarks.files import save
from tests.stages.benchmarks.packed import save_packed

ROWS = [{"text": "a"}, {"text": "b"}, {"text": "c"}]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("x.json", [{"text": "a", "image": "1.jpg"}, {"text": "b", "image": "2"}]),
        ("x.jsonl", '{"text": "a", "image": "1.jpg"}\n{"text": "b", "image": "2"}\n'),
        ("x.csv", "text,image\na,1.jpg\nb,2\n"),
    ],
)
def test_a_file_that_names_its_images(tmp_path: Path, file: str, content: object) -> None:
    path = save(tmp_path / file, content)
    found = list(records(path, ("text",), ("image",), tmp_path / "images", ".jpg"))
    assert [(one.row_id, one.item["text"], one.keys) for one in found] == [("0", "a", ("1",)), ("1", "b", ("2",))]
    assert [one.images[0].path for one in found] == [tmp_path / "images/1.jpg", tmp_path / "images/2.jpg"]


@pytest.mark.parametrize("file", ["x.parquet", "x.arrow"])
def test_a_file_that_holds_its_images(tmp_path: Path, file: str) -> None:
    path = save_packed(tmp_path / "f" / file, ROWS, image=["0.jpg", None, None])
    found = list(records(path, ("text",), ("image",), tmp_path))
    assert [one.keys for one in found] == [("0.jpg",), ("x:1",), ("x:2",)]
    assert [one.item["text"] for one in found] == ["a", "b", "c"]
    assert found[2].images[0]().getpixel((10, 20)) == (0, 0, 255), "the third picture begins with blue"
    with pytest.raises(UserError, match=r"has column = 'other'; expected text, other"):
        list(records(path, ("text",), ("other",), tmp_path))


@pytest.mark.parametrize("file", ["x.parquet", "x.arrow"])
def test_a_file_that_is_cut_short_is_one_line(tmp_path: Path, file: str) -> None:
    path = save_packed(tmp_path / "f" / file, ROWS, image=["0.jpg", None, None])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be read") as caught:
        list(records(path, ("text",), ("image",), tmp_path))
    assert "\n" not in str(caught.value)


def test_the_right_option_comes_first_and_the_others_keep_their_order(tmp_path: Path) -> None:
    assert right_first(tmp_path, "0", "label", list("abcd"), 2) == list("cabd")
    assert right_first(tmp_path, "0", "label", list("abcd"), "0") == list("abcd")
    for wrong in (4, -1, "x", "", None, True, 1.0, "²"):
        with pytest.raises(UserError, match="position of one of 4"):
            right_first(tmp_path, "0", "label", list("abcd"), wrong)
    with pytest.raises(UserError, match="two at least"):
        right_first(tmp_path, "0", "label", ["a"], 0)
