import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import tables
from pipeline.errors import UserError
from stages import decontaminate
from stages.pictures import examine
from tests.stages.test_assemble import NEGATIVE_ROWS, PAIRS_ROWS, inputs, negative, pair, run

FOIL = "A tall man in a green hat walks past two parked cars."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A benchmark of four rows: a COCO picture, a caption, a copied picture, a foil."""
    folder = tmp_path / "benchmarks" / "sugarcrepe"
    (folder / "images").mkdir(parents=True)
    rows = [
        {"filename": "000000000009.jpg", "caption": "Nothing shared.", "negative_caption": "Nothing shared either."},
        {"filename": "000000000010.jpg", "caption": "a DOG chases a small cat", "negative_caption": "No."},
        {"filename": "look.png", "caption": "Another text.", "negative_caption": "Yet another text."},
        {"filename": "000000000011.jpg", "caption": "A short man.", "negative_caption": FOIL},
    ]
    (folder / "swap_obj.json").write_text(json.dumps({str(i): row for i, row in enumerate(rows)}))
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).save(folder / "images" / "look.png")
    return tmp_path / "benchmarks"


def leaks(out: Path) -> set[tuple[str, str]]:
    return {(row["row_id"], row["rule"]) for row in tables.read(out / "leaks").to_pylist()}


def test_each_rule_finds_its_row_and_nothing_else(root: Path, tmp_path: Path) -> None:
    look = examine(root / "sugarcrepe" / "images", "look.png").phash
    pairs = [
        PAIRS_ROWS[0] | {"image_key": "coco:train2014:000000000009"},
        PAIRS_ROWS[2],
        pair(7, "Seven.", 7) | {"phash": look ^ 0b101},
        pair(8, "Eight.", 8) | {"phash": look ^ 0b1111},
    ]
    extra = negative(pairs[2], "replace_nouns", "He says: a tall man in a green hat walks past me.")
    meta = run(tmp_path / "out", inputs(tmp_path, pairs, [extra]), leaks_from=root, leak_benchmarks=["sugarcrepe"])
    expected = {("0", "image_id"), ("1", "caption_hash"), ("2", "perceptual_hash"), ("3", "foil_ngram")}
    assert leaks(tmp_path / "out") == expected
    assert meta["leaks"] == {"sugarcrepe": {rule: 1 for _, rule in expected}}
    flagged = {row["caption"]: row["leaks"] for row in tables.read(tmp_path / "out").to_pylist()}
    assert flagged["Eight."] == [] and flagged["Seven."] == ["sugarcrepe"]


def test_drop_leaves_leaking_pairs_out_of_training(root: Path, tmp_path: Path) -> None:
    given = inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS)
    settings: dict[str, Any] = {"leaks_from": root, "leak_benchmarks": ["sugarcrepe"]}
    meta = run(tmp_path / "out", given, leaks="drop", **settings)
    assert meta["splits"] == {"test": 1, "train": 2}
    kept = run(tmp_path / "keep", given, leaks="keep", **settings)
    assert kept["splits"] == {"test": 1, "train": 3} and kept["leaks"] == {"sugarcrepe": {"caption_hash": 1}}
    assert all(row["leaks"] == [] for row in tables.read(tmp_path / "keep").to_pylist())
    assert leaks(tmp_path / "keep") == leaks(tmp_path / "out") == {("1", "caption_hash")}


def test_visual_genome_pictures_count_through_the_map(root: Path, tmp_path: Path) -> None:
    folder = root / "valse"
    folder.mkdir()
    row = {"image_file": "v7w_2371044.jpg", "caption": "x y", "foil": "z", "linguistic_phenomena": "existence"}
    (folder / "existence.json").write_text(json.dumps({"e": row | {"mturk": {"caption": 3}}}))
    (tmp_path / "vg.json").write_text(
        json.dumps([{"image_id": 2371044, "coco_id": 9}, {"image_id": 1, "coco_id": None}])
    )
    pairs = [PAIRS_ROWS[0] | {"image_key": "coco:train2014:000000000009"}]
    settings: dict[str, Any] = {"leaks_from": root, "leak_benchmarks": ["valse"]}
    run(tmp_path / "without", inputs(tmp_path, pairs, []), **settings)
    run(tmp_path / "with", inputs(tmp_path, pairs, []), vg_map=tmp_path / "vg.json", **settings)
    assert leaks(tmp_path / "without") == set()
    assert leaks(tmp_path / "with") == {("e", "image_id")}
    (tmp_path / "vg.json").write_text("[{}]")
    with pytest.raises(UserError, match="is no VG to COCO map"):
        decontaminate.read_vg_map(tmp_path / "vg.json")


def test_the_published_count_of_coreference_rows_on_train2014(tmp_path: Path) -> None:
    """493 of 708 valid rows of VALSE coreference-standard lie on train2014 pictures, by file name alone."""
    shared = Path(__file__).parents[3] / "shared" / "benchmarks"
    if not shared.is_dir():
        pytest.skip("the real benchmark files are not at hand")
    rows = decontaminate.benchmark_rows(shared, ["valse"]).to_pylist()
    files = sorted({row["file"] for row in rows if row["file"].startswith("COCO_train2014_")})
    pairs = [
        pair(i, f"Caption number {i} of nothing.", i) | {"image_key": f"coco:train2014:{file[15:27]}"}
        for i, file in enumerate(files)
    ]
    run(tmp_path / "out", inputs(tmp_path, pairs, []), leaks_from=shared, leak_benchmarks=["sugarcrepe", "valse"])
    with tables.connect({"leaks": tmp_path / "out" / "leaks"}) as sql:
        found = dict(
            sql.sql(
                """select subset, count(distinct row_id) from leaks
                   where rule = 'image_id' and benchmark = 'valse' group by 1"""
            ).fetchall()
        )
        sugar = sql.sql("select count(*) from leaks where benchmark = 'sugarcrepe' and rule = 'image_id'").fetchall()
    assert found == {"coreference-standard": 493}
    assert len([row for row in rows if row["subset"] == "coreference-standard"]) == 708
    assert sugar == [(0,)]
