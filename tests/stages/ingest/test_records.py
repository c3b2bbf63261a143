from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.ingest.records import Format, coco_key, expect_shape, lines, malformed, read_json, read_text


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("COCO_train2014_000000000009.jpg", "coco:train2014:000000000009"),
        ("000000289393.jpg", "coco:2017:000000289393"),
        ("val2014/COCO_val2014_000000184613.jpg", "coco:val2014:000000184613"),
    ],
)
def test_coco_keys(name: str, key: str) -> None:
    assert coco_key(name) == key


def test_an_unknown_encoding_is_rejected() -> None:
    with pytest.raises(ValueError, match="a text encoding that Python knows"):
        Format(encoding="nope")


def test_text_in_another_encoding_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"one\ntwo\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"c.txt:3 holds byte 0xe9, which is not utf-8"):
        read_text(tmp_path / "c.txt", "utf-8")
    assert read_text(tmp_path / "c.txt", "latin-1") == "one\ntwo\ncafé\n"


def test_what_is_not_json_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(UserError, match=r"ingest: c.json:2 is not JSON \(.*; expected JSON; fix: "):
        read_json(tmp_path / "c.json", Format())


def test_only_newlines_end_a_line() -> None:
    assert list(lines("a\u2028b\nc\r\nd")) == ["a\u2028b\n", "c\r\n", "d"]


def test_a_file_at_fault_is_named_with_its_line_where_there_is_one() -> None:
    for line, where in ((7, "c.csv:7 is not CSV (bad)"), (0, "c.csv is not CSV (bad)")):
        assert where in str(malformed(Path("c.csv"), line, "CSV", ValueError("bad")))


def test_data_of_another_shape_is_one_line() -> None:
    with (
        pytest.raises(UserError, match="c.json lacks 'images'; expected a dict of images"),
        expect_shape(Path("c.json"), "a dict of images"),
    ):
        dict[str, int]()["images"]
