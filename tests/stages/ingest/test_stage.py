import json
import shutil
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from PIL import Image

from pipeline import tables
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.ingest import STAGE, Config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve good pictures, and one of each kind of trouble."""
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    for i in range(12):
        Image.new("RGB", (40, 30), (i * 20, 0, 0)).save(images / f"{i}.png")
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (images / "empty.png").write_bytes(b"")
    rotated = Image.new("RGB", (40, 30))
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(images / "rotated.jpg", exif=exif)
    rows = [f"{i}.png,A red  thing number {i}." for i in range(12)]
    rows += ["rotated.jpg,A rotated thing.", "0.png,A red thing number 0.", "1.png,   ", f"2.png,{'word ' * 61}"]
    rows += ["gone.png,Nobody is here.", "broken.jpg,Broken.", "empty.png,Empty.", "../../secret.png,Outside."]
    (tmp_path / "data" / "captions.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    return tmp_path / "data"


def run(out: Path, **settings: Any) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    return STAGE.run(Config(**settings), {}, out, silent)


def test_every_row_is_either_a_pair_or_a_reject_with_its_reason(root: Path, tmp_path: Path) -> None:
    meta = run(tmp_path / "out", root=root)
    assert (meta["accepted"], meta["rejected"]) == (13, 7)
    rejected = {row["reason"]: row for row in tables.read(tmp_path / "out" / "pairs_rejected").to_pylist()}
    assert set(rejected) == {
        *("duplicate", "caption_empty", "caption_too_long"),
        *("image_missing", "image_unreadable", "image_empty", "image_outside"),
    }
    assert rejected["image_missing"]["origin"] == "captions.csv:18"
    pairs = {row["image_uri"]: row for row in tables.read(tmp_path / "out").to_pylist()}
    assert pairs["0.png"]["caption"] == "A red thing number 0."
    assert (pairs["rotated.jpg"]["width"], pairs["rotated.jpg"]["height"]) == (30, 40)


def test_a_name_with_umlauts_is_found_in_either_unicode_form(tmp_path: Path) -> None:
    """Tables say "ü" in one character (NFC), macOS writes it as two in file names (NFD), unpacked archives mix both."""
    composed, decomposed = normalize("NFC", "Grüße/Äpfel.png"), normalize("NFD", "Grüße/Äpfel.png")
    mixed = f"{composed.split('/')[0]}/{normalize('NFD', 'Öl.png')}"
    for index, name in enumerate((decomposed, mixed, normalize("NFC", "ü.png"))):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (index * 90, 0, 0)).save(path)
    rows = [
        f"{composed},Apples.",
        f"{normalize('NFC', mixed)},Oil.",
        f"{normalize('NFD', 'ü.png')},A letter.",
        "ß.png,None.",
    ]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *rows]) + "\n", encoding="utf-8")
    meta = run(tmp_path / "out", root=tmp_path)
    assert (meta["accepted"], meta["rejected"]) == (3, 1)
    uris = {row["image_uri"] for row in tables.read(tmp_path / "out").to_pylist()}
    assert uris == {decomposed, mixed, normalize("NFC", "ü.png")}, "as they are spelled on disk"
    assert all((tmp_path / "images" / uri).is_file() for uri in uris)


def test_the_split_belongs_to_the_bytes_of_the_image(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "images" / "3.png", root / "images" / "copy.png")
    with (root / "captions.csv").open("a") as handle:
        handle.write("copy.png,The same picture under another name.\n")
    run(tmp_path / "out", root=root, test_share=0.4, val_share=0.3)
    split = {row["image_uri"]: row["split"] for row in tables.read(tmp_path / "out").to_pylist()}
    assert split["copy.png"] == split["3.png"]
    assert len(set(split.values())) > 1


def test_a_killed_ingest_goes_on_with_the_same_bytes(root: Path, tmp_path: Path) -> None:
    run(tmp_path / "whole", root=root, shard=4)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    tables.part(tmp_path / "killed", 2).unlink()
    kept = tables.part(tmp_path / "killed", 0)
    before = kept.stat().st_mtime_ns
    run(tmp_path / "killed", root=root, shard=4)
    assert kept.stat().st_mtime_ns == before
    for path in (tmp_path / "whole").rglob("*.parquet"):
        assert (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_kill_while_the_source_is_read_changes_nothing(root: Path, tmp_path: Path) -> None:
    run(tmp_path / "whole", root=root, shard=4)
    shutil.copytree(tmp_path / "whole" / ".work", tmp_path / "killed" / ".work")
    read = tmp_path / "killed" / ".work" / "rows"
    (read / "whole").unlink()
    tables.part(read, 3).unlink()
    run(tmp_path / "killed", root=root, shard=4)
    for path in (tmp_path / "whole").rglob("*.parquet"):
        assert (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("shard", [1, 3, 100])
def test_a_caption_that_came_before_is_a_duplicate_however_far_apart(root: Path, tmp_path: Path, shard: int) -> None:
    run(tmp_path / "out", root=root, shard=shard)
    rejected = tables.read(tmp_path / "out" / "pairs_rejected").to_pylist()
    assert [row["origin"] for row in rejected if row["reason"] == "duplicate"] == ["captions.csv:15"]


def test_text_that_is_no_utf_8_is_refused_and_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    notes = [{"id": 1, "image_id": 1, "caption": "half \ud83d an emoji"}, {"id": 2, "image_id": 1, "caption": "fine"}]
    found = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": notes}
    (tmp_path / "captions.json").write_text(json.dumps(found))
    run(tmp_path / "out", source="coco", root=tmp_path, format={"captions": "captions.json"})
    (row,) = tables.read(tmp_path / "out" / "pairs_rejected").to_pylist()
    assert row["reason"] == "caption_unprintable" and "ud83d" in row["detail"]


def test_too_many_rejects_fail_and_say_why(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ingest: 7 of 20 rows rejected, most for .*; expected at most 10%; fix: "):
        run(tmp_path / "out", root=root, max_reject_rate=0.1)


def test_missing_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder given"):
        STAGE.outside(Config())
    with pytest.raises(UserError, match=r"captions.csv is not there; the folder is empty; .* ingest.format.captions"):
        STAGE.outside(Config(root=tmp_path))
    for name in ("Bilder", "Übersicht.csv", *"abcd"):
        (tmp_path / name).mkdir() if name == "Bilder" else (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"captions.csv is not there; there are Bilder/, a, b, c, d, \.\.\.; expected"):
        STAGE.outside(Config(root=tmp_path))


def test_outside_notices_a_changed_image(root: Path) -> None:
    config = Config(root=root)
    before = STAGE.outside(config)
    Image.new("RGB", (41, 30)).save(root / "images" / "0.png")
    assert STAGE.outside(config)["images"] != before["images"]


def test_negatives_of_the_source_are_kept_with_where_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "COCO_train2014_000000000009.jpg")
    rows: list[dict[str, Any]] = [
        {"image_id": 9, "original": "A cat on a mat.", "enhanced": ["A mat on a cat.", "A dog on a mat."]}
    ]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    run(tmp_path / "out", source="degla_json", root=tmp_path, format={"captions": "d.json"})
    found = tables.read(tmp_path / "out" / "pairs_negatives").to_pylist()
    (pair,) = tables.read(tmp_path / "out").to_pylist()
    shared = {"pair_id": pair["pair_id"], "type": None, "origin": "degla_json d.json:0"}
    assert found == [shared | {"text": text} for text in rows[0]["enhanced"]]


def test_the_built_in_world_brings_images_scenes_and_benchmarks(tmp_path: Path) -> None:
    world = {"pictures": 12, "captions": 2, "benchmark_rows": 10}
    meta = run(tmp_path / "out", source="scenes", world=world)
    rows = tables.read(tmp_path / "out").to_pylist()
    assert meta["image_root"] == "images" and 12 < len(rows) <= 24
    assert all((tmp_path / "out" / "images" / row["image_uri"]).is_file() and row["scene"] for row in rows)
    assert {path.name for path in (tmp_path / "out" / "benchmarks").iterdir()} >= {
        "sugarcrepe",
        "valse",
        "aro",
        "zeroshot",
    }
