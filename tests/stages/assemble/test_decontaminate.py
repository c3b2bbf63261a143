import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import tables
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from stages.assemble import decontaminate
from stages.images import examine
from stages.ingest.records import coco_key
from tests.paths import real
from tests.stages.assemble.test_stage import NEGATIVE_ROWS, PAIRS_ROWS, inputs, negative, pair, run

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


def test_visual_genome_images_count_through_the_map(root: Path, tmp_path: Path) -> None:
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


# Rows and pictures per subset as published; on COCO by file name alone are those of train2014, val2014 and val2017.
SUGARCREPE = {
    "replace_obj": (1652, 823),
    "replace_att": (788, 524),
    "replace_rel": (1406, 777),
    "swap_obj": (245, 224),
    "swap_att": (666, 593),
    "add_obj": (2062, 908),
    "add_att": (692, 497),
}
VALSE_ON_COCO = {
    "plurals": (851, 803),
    "relations": (535, 486),
    "coreference-standard": (708, 708),
    "foil-it": (943, 936),
}


def leaks_of(tmp_path: Path, files: list[str]) -> dict[tuple[str, str], int]:
    """(benchmark, subset) -> rows that share a picture with training on these files."""
    pairs = [
        pair(i, f"Caption number {i} of nothing.", i) | {"image_key": coco_key(file), "image_uri": file}
        for i, file in enumerate(files)
    ]
    run(
        tmp_path / "out",
        inputs(tmp_path, pairs, []),
        leaks_from=real("benchmarks"),
        leak_benchmarks=["sugarcrepe", "valse"],
    )
    with tables.connect({"leaks": tmp_path / "out" / "leaks"}) as sql:
        found = sql.sql(
            """select benchmark::varchar, subset, count(distinct row_id) from leaks
               where rule = 'image_id' group by all"""
        ).fetchall()
    return {(benchmark, subset): count for benchmark, subset, count in found}


def test_the_published_counts_of_rows_on_train2014(tmp_path: Path) -> None:
    """493 of 708 valid rows of VALSE coreference-standard, none of SugarCrepe."""
    rows = decontaminate.benchmark_rows(real("benchmarks"), ["sugarcrepe", "valse"]).to_pylist()
    files = sorted({row["file"] for row in rows if row["file"].startswith("COCO_train2014_")})
    assert leaks_of(tmp_path, files) == {("valse", "coreference-standard"): 493}


def test_the_published_counts_of_rows_and_images_on_coco_of_any_year(tmp_path: Path) -> None:
    """Trained under the names of 2017: VisualDialog's pictures, also numbered with twelve digits, are not COCO's."""
    rows = decontaminate.benchmark_rows(real("benchmarks"), ["sugarcrepe", "valse"]).to_pylist()
    on_coco = [row for row in rows if row["file"].startswith("COCO_") or row["file"][:12].isdigit()]
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for name in {(row["benchmark"], row["subset"]) for row in on_coco}:
        files = [row["file"] for row in on_coco if (row["benchmark"], row["subset"]) == name]
        found[name] = (len(files), len(set(files)))
    expected = {("sugarcrepe", subset): count for subset, count in SUGARCREPE.items()}
    expected |= {("valse", subset): count for subset, count in VALSE_ON_COCO.items()}
    assert found == expected
    assert sum(count for (benchmark, _), (count, _) in found.items() if benchmark == "sugarcrepe") == 7511
    assert sum(row["benchmark"] == "valse" for row in rows) == 7702

    every = sorted({f"{row['file'].removesuffix('.jpg')[-12:]}.jpg" for row in on_coco})
    visual_dialog = sorted({f"{row['file'][-16:]}" for row in rows if row["file"].startswith("VisualDialog")})
    assert leaks_of(tmp_path, [*every, *visual_dialog]) == {name: count for name, (count, _) in expected.items()}


def test_visual_genome_images_meet_by_their_own_number(root: Path, tmp_path: Path) -> None:
    folder = root / "valse"
    folder.mkdir()
    row = {"image_file": "v7w_2371044.jpg", "caption": "x y", "foil": "z", "linguistic_phenomena": "existence"}
    (folder / "existence.json").write_text(json.dumps({"e": row | {"mturk": {"caption": 3}}}))
    pairs = [
        PAIRS_ROWS[0] | {"image_uri": "VG_100K_2/2371044.jpg"},
        PAIRS_ROWS[2] | {"image_uri": "somewhere/2371044.jpg"},
    ]
    run(tmp_path / "out", inputs(tmp_path, pairs, []), leaks_from=root, leak_benchmarks=["valse"])
    found = tables.read(tmp_path / "out" / "leaks").to_pylist()
    assert [(row["pair_id"], row["rule"]) for row in found] == [(PAIRS_ROWS[0]["pair_id"], "image_id")]


WORDS = st.lists(st.sampled_from(["a", "b", "c", "É", "1", "don't"]), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(negatives=st.lists(WORDS, min_size=1, max_size=6), foils=st.lists(WORDS, min_size=1, max_size=4))
def test_foil_ngrams_are_exactly_eight_words_in_a_row(negatives: list[str], foils: list[str]) -> None:
    def ngrams(text: str) -> set[tuple[str, ...]]:
        words = text.lower().replace("'", " ").split()
        return {tuple(words[i : i + 8]) for i in range(max(1, len(words) - 7))}

    rows = pa.table(
        {
            "benchmark": ["b"] * len(foils),
            "subset": ["s"] * len(foils),
            "row_id": list(map(str, range(len(foils)))),
            "file": pa.nulls(len(foils), pa.string()),
            "path": pa.nulls(len(foils), pa.string()),
            "texts": [["right", foil] for foil in foils],
        }
    )
    with duckdb.connect() as sql:
        columns = ", ".join(f"null::varchar as {kind}" for kind in NEGATIVE_TYPES[1:])
        sql.register(
            "given", pa.table({"pair_id": list(map(str, range(len(negatives)))), "reshuffle_order": negatives})
        )
        sql.execute(f"""create table dataset as
                        select *, {columns}, '#' as caption, 'k' as image_key, 'u' as image_uri from given""")
        sql.execute("create table pairs as select pair_id, 0::ubigint as phash from given")
        decontaminate.find_leaks(sql, rows, decontaminate.read_vg_map(None))
        found = set(sql.sql("select pair_id, row_id from leaks where rule = 'foil_ngram'").fetchall())
    assert found == {
        (str(i), str(j))
        for i, text in enumerate(negatives)
        for j, foil in enumerate(foils)
        if ngrams(text) & ngrams(foil)
    }
