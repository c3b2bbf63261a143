import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages import sources

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).map(str.strip).filter(bool)


def read_csv(path: Path, **settings: str) -> list[sources.Record]:
    return list(
        sources.csv_pairs(
            path, **({"image_column": "image", "caption_column": "caption", "encoding": "utf-8"} | settings)
        )
    )


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=8), delimiter=st.sampled_from([",", "\t"]))
def test_csv_reads_back_whatever_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "captions.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, delimiter=delimiter).writerows([("image", "caption"), *rows])
    assert [(record.image, record.caption) for record in read_csv(path)] == rows


def test_csv_names_the_missing_column_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,text\na.png,hello\n")
    with pytest.raises(UserError, match=r"no column 'image', found \['file', 'text'\]"):
        read_csv(tmp_path / "c.csv")
    assert read_csv(tmp_path / "c.csv", image_column="file", caption_column="text")[0].caption == "hello"


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"image,caption\na.png,fine\nb.png,caf\xe9\n")
    with pytest.raises(UserError, match=r"c.csv:3 holds byte 0xe9, which is not utf-8"):
        read_csv(tmp_path / "c.csv")
    assert read_csv(tmp_path / "c.csv", encoding="latin-1")[1].caption == "café"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("COCO_train2014_000000000009.jpg", "coco:train2014:000000000009"),
        ("000000289393.jpg", "coco:2017:000000289393"),
        ("val2014/COCO_val2014_000000184613.jpg", "coco:val2014:000000184613"),
    ],
)
def test_coco_keys(name: str, key: str) -> None:
    assert sources.coco_key(name) == key


def test_coco_json_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    image = {"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}
    note = {"id": 1, "image_id": 9, "caption": "A plate. \n"}
    path.write_text(json.dumps({"images": [image], "annotations": [note]}))
    (record,) = sources.coco_pairs(path, encoding="utf-8")
    assert record.image_key == "coco:train2014:000000000009"
    path.write_text(json.dumps({"images": [image], "annotations": [note | {"image_id": 10}]}))
    with pytest.raises(UserError, match="lacks 10"):
        list(sources.coco_pairs(path, encoding="utf-8"))
    path.write_text('{"images": [')
    with pytest.raises(UserError, match="is not JSON"):
        list(sources.coco_pairs(path, encoding="utf-8"))
