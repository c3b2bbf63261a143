from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import tables
from pipeline.artifact import Artifact, Manifest
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import DATASET
from stages.export.datasets import DatasetFormat, export
from stages.ingest import sources
from stages.ingest.records import Format, coco_key

# A caption is what ingest lets through; negatives, and file names, may hold anything but lone surrogates.
CAPTION = (
    st.text(min_size=1, max_size=30).map(lambda text: " ".join(filter(str.isprintable, text.split()))).filter(bool)
)
NEGATIVE = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30),
    st.sampled_from(["a\tb", "a\nb\r\nc", 'it\'s "so"', "a, b", "['x']", "\\n", "é ü 犬 🐕", "a\u2028b", "#\x00"]),
)
ROW = st.tuples(st.integers(0, 3), CAPTION, st.lists(NEGATIVE, max_size=5))
Rows = list[tuple[int, str, list[str]]]


def dataset(folder: Path, rows: Rows) -> Artifact:
    content = []
    for number, (picture, caption, negatives) in enumerate(rows):
        name = f"COCO_train2014_{picture:012d}.jpg"
        row = dict.fromkeys(DATASET.names) | dict(zip(NEGATIVE_TYPES, negatives, strict=False))
        row |= {
            "pair_id": f"{number:016d}",
            "image_key": coco_key(name),
            "image_group": name,
            "image_uri": name,
        }
        content.append(row | {"caption": caption, "split": "train", "leaks": [], "caption_tokens": []})
    tables.write(tables.part(folder, 0), content, DATASET)
    facts: dict[str, Any] = {"kind": "dataset"}
    return Artifact(folder, Manifest.model_construct(**facts))


@pytest.mark.parametrize("kind", ["negclip_tsv", "degla_json", "webdataset"])
@example(rows=[(0, 'a\u2009b "quoted", it\'s', ["a\tb\nc", "'"])])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=5))
def test_what_is_exported_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, kind: DatasetFormat, rows: Rows
) -> None:
    home = tmp_path_factory.mktemp(kind)
    (home / "images").mkdir()
    for picture in range(4):
        Image.new("RGB", (4, 4), (picture, 0, 0)).save(home / "images" / f"COCO_train2014_{picture:012d}.jpg")
    target = home / "out" if kind == "webdataset" else home / "file"
    assert export(dataset(home / "data", rows), home / "images", kind, target) == len(rows)

    layout = Format(captions="out/*.tar" if kind == "webdataset" else "file")
    back = list(sources.read(sources.find(kind, home, layout), home / "unpacked"))
    assert [(int(r.image_key[-12:]), r.caption, list(r.negatives)) for r in back] == rows


def test_degla_json_cannot_name_other_images(tmp_path: Path) -> None:
    made = dataset(tmp_path / "data", [(1, "A cat.", [])])
    table = tables.read(made.path).to_pylist()
    tables.write(tables.part(made.path, 0), [row | {"image_uri": "cat.jpg"} for row in table], DATASET)
    with pytest.raises(UserError, match="export: cat.jpg has no COCO number"):
        export(made, tmp_path, "degla_json", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_degla_json_holds_images_of_one_collection(tmp_path: Path) -> None:
    made = dataset(tmp_path / "data", [(1, "A cat.", []), (2, "A dog.", [])])
    rows = tables.read(made.path).to_pylist()
    tables.write(tables.part(made.path, 0), [rows[0], rows[1] | {"image_uri": "000000000002.jpg"}], DATASET)
    with pytest.raises(UserError, match=r"000000000002.jpg has no COCO number as in COCO_train2014_\{:012d\}.jpg"):
        export(made, tmp_path, "degla_json", tmp_path / "out.json")


def test_webdataset_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    made = dataset(tmp_path / "data", [(1, "A cat.", []), (2, "A dog.", [])])
    Image.new("RGB", (4, 4)).save(tmp_path / "COCO_train2014_000000000001.jpg")
    with pytest.raises(UserError, match="000000000002.jpg is not there"):
        export(made, tmp_path, "webdataset", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    Image.new("RGB", (4, 4)).save(tmp_path / "COCO_train2014_000000000002.jpg")
    assert export(made, tmp_path, "webdataset", tmp_path / "out") == 2
    with pytest.raises(UserError, match="is there already"):
        export(made, tmp_path, "webdataset", tmp_path / "out")
