"""A dataset to publish: its files, and what Croissant and the responsible-AI vocabulary ask for."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.artifact import Artifact, Manifest, file_sha256
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import DATASET
from stages.export.croissant import FILE, TO_SAY, export
from tests.stages.export.test_datasets import dataset as written


def artifacts(folder: Path) -> tuple[Artifact, Artifact, Artifact]:
    """A dataset of two pairs, and manifests of what it was made of."""
    made = written(folder / "data", [(1, "A cat.", ["A dog."]), (2, "Two cups.", [])])
    facts: dict[str, Any] = {
        "files": {path.name: file_sha256(path) for path in tables.files(made.path)},
        "rows": {"dataset": 2},
        "meta": {
            "negatives": dict.fromkeys(NEGATIVE_TYPES, 1),
            "splits": {"train": 2},
            "leaks": {"sugarcrepe": {"image_id": 3, "caption_hash": 1}, "valse": {}},
        },
        "config": {"leaks": "drop"},
    }
    pairs: dict[str, Any] = {"config": {"source": "csv"}, "rows": {"pairs": 2, "pairs_rejected": 5}, "meta": {}}
    negatives: dict[str, Any] = {
        "config": {"backend": "vllm"}, "meta": {"model": "llama"}, "started": "2026-11-30", "finished": "2026-12-01",
    }  # fmt: skip
    return (
        Artifact(made.path, Manifest.model_construct(**facts)),
        Artifact(folder, Manifest.model_construct(**pairs)),
        Artifact(folder / "negatives", Manifest.model_construct(**negatives)),
    )


def test_every_file_and_column_is_described_and_can_be_read(tmp_path: Path) -> None:
    assert export(*artifacts(tmp_path), tmp_path / "published", None) == list(TO_SAY)
    found = json.loads((tmp_path / "published" / FILE).read_text())
    files = [one for one in found["distribution"] if one["@type"] == "cr:FileObject"]
    for one in files:
        content = (tmp_path / "published" / one["contentUrl"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"]
    (records,) = found["recordSet"]
    columns = {field["source"]["extract"]["column"] for field in records["field"]}
    assert columns == set(DATASET.names) == set(pq.read_table(tmp_path / "published/data").column_names)
    lists = {field["name"] for field in records["field"] if field.get("repeated")}
    assert lists == {field.name for field in DATASET if str(field.type).startswith("list")}
    assert {"rai:dataCollection", "rai:dataLimitations", "rai:dataPreprocessingProtocol"} <= set(found)
    assert "2 captions" in found["description"] and "llama (vllm)" in found["rai:dataCollection"]
    assert "5 were rejected" in found["rai:dataCollection"] and "valse" in found["rai:dataPreprocessingProtocol"][2]


def test_what_no_manifest_knows_is_said_by_who_publishes(tmp_path: Path) -> None:
    given = artifacts(tmp_path)
    about = tmp_path / "about.yaml"
    about.write_text(
        "license: https://spdx.org/licenses/MIT\nrai:dataBiases: [none known]\ndatePublished: 2026-11-30\n"
        'creator: [A. Person, {"@type": sc:Organization, name: A Lab}]\n'
    )
    lacking = export(*given, tmp_path / "published", about)
    found = json.loads((tmp_path / "published" / FILE).read_text())
    assert (found["license"], found["datePublished"]) == ("https://spdx.org/licenses/MIT", "2026-11-30")
    assert [one["@type"] for one in found["creator"]] == ["sc:Person", "sc:Organization"]
    assert found["rai:dataBiases"] == ["none known"] and "url" in lacking and "license" not in lacking
    with pytest.raises(UserError, match="is there already"):
        export(*given, tmp_path / "published", about)
    for text in ("- a", "a: [", "1: x"):
        about.write_text(text)
        with pytest.raises(UserError, match="mend --about"):
            export(*given, tmp_path / "other", about)
    assert not (tmp_path / "other").exists()


def test_the_formats_own_checker_finds_nothing_and_reads_the_rows(tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed: pip install mlcroissant")
    about = tmp_path / "about.yaml"
    about.write_text("license: MIT\nurl: https://example.org\ncreator: somebody\n")
    export(*artifacts(tmp_path), tmp_path / "published", about)
    found = mlcroissant.Dataset(jsonld=tmp_path / "published" / FILE)
    assert not found.metadata.issues.errors
    (rows,) = (one.uuid for one in found.metadata.record_sets)
    captions = [value for row in found.records(rows) for key, value in row.items() if key.endswith("caption")]
    assert sorted(captions) == [b"A cat.", b"Two cups."]
