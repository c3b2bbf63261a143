from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import tables
from pipeline.artifact import Artifact, Manifest
from pipeline.errors import UserError
from pipeline.schema import DATASET, NEGATIVE_TYPES
from stages import exports, sources

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).map(str.strip).filter(bool)
ROW = st.tuples(st.integers(0, 3), TEXT, st.lists(TEXT, max_size=5))
Rows = list[tuple[int, str, list[str]]]


def dataset(folder: Path, rows: Rows) -> Artifact:
    content = []
    for number, (picture, caption, negatives) in enumerate(rows):
        name = f"COCO_train2014_{picture:012d}.jpg"
        row = dict.fromkeys(DATASET.names) | dict(zip(NEGATIVE_TYPES, negatives, strict=False))
        row |= {
            "pair_id": f"{number:016d}",
            "image_key": sources.coco_key(name),
            "image_group": name,
            "image_uri": name,
        }
        content.append(row | {"caption": caption, "split": "train", "leaks": [], "caption_tokens": []})
    tables.write(tables.part(folder, 0), content, DATASET)
    return Artifact(folder, Manifest.model_construct(kind="dataset"))


@pytest.mark.parametrize("kind", ["negclip_tsv", "degla_json", "webdataset"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=5))
def test_what_is_exported_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, kind: exports.Format, rows: Rows
) -> None:
    home = tmp_path_factory.mktemp(kind)
    (home / "images").mkdir()
    for picture in range(4):
        Image.new("RGB", (4, 4), (picture, 0, 0)).save(home / "images" / f"COCO_train2014_{picture:012d}.jpg")
    target = home / "out" if kind == "webdataset" else home / "file"
    assert exports.export(dataset(home / "data", rows), home / "images", kind, target) == len(rows)

    layout = sources.Format(captions="out/*.tar" if kind == "webdataset" else "file")
    back = list(sources.read(kind, home, layout, home / "unpacked"))
    assert [(int(r.image_key[-12:]), r.caption, list(r.negatives)) for r in back] == rows


def test_degla_json_cannot_name_other_pictures(tmp_path: Path) -> None:
    made = dataset(tmp_path / "data", [(1, "A cat.", [])])
    table = tables.read(made.path).to_pylist()
    tables.write(tables.part(made.path, 0), [row | {"image_uri": "cat.jpg"} for row in table], DATASET)
    with pytest.raises(UserError, match="export: cat.jpg has no COCO number"):
        exports.export(made, tmp_path, "degla_json", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
