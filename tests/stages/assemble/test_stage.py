import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import tables
from pipeline.artifact import Artifact, Manifest, now
from pipeline.clip import tokenizer
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import DATASET, NEGATIVES, PAIRS
from pipeline.stage import Inputs, silent
from pipeline.store import Store
from stages.assemble import STAGE, Config
from stages.assemble.checks import Check


def pair(number: int, caption: str, picture: int, split: str = "train") -> dict[str, Any]:
    return {
        "pair_id": hashlib.sha256(f"{number}".encode()).hexdigest()[:16],
        "image_key": f"csv:c:{picture}.png",
        "image_uri": f"{picture}.png",
        "image_sha256": f"{picture:064x}",
        "phash": picture * 0x9E3779B97F4A7C15 % 2**64,
        "width": 8,
        "height": 8,
        "caption": caption,
        "source": "csv",
        "split": split,
        "scene": None,
    }


def negative(of: dict[str, Any], kind: str, text: str | None, status: str = "accepted") -> dict[str, Any]:
    return {
        "pair_id": of["pair_id"],
        "type": kind,
        "text": text,
        "status": status,
        "reason": None if status == "accepted" else "identical",
        "attempt": 0,
        "raw_reply": text,
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "reply_tokens": 1,
        "model": "replay",
        "prompt_digest": "p",
        "likelihood": None,
        "weight": 1.0,
    }


PAIRS_ROWS = [
    pair(1, "A red cup is on a blue table.", 1),
    pair(2, "A blue table holds a red cup.", 1),
    pair(3, "A dog chases a small cat.", 2),
    pair(4, "A bird.", 3, "test"),
]
NEGATIVE_ROWS = [
    negative(PAIRS_ROWS[0], "swap_adjectives", "A blue cup is on a red table."),
    negative(PAIRS_ROWS[0], "replace_nouns", "A red cup is on a blue chair."),
    negative(PAIRS_ROWS[2], "swap_nouns", "A cat chases a small dog."),
    negative(PAIRS_ROWS[3], "swap_nouns", "A bird.", "rejected"),
]


def artifact(home: Path, kind: str, rows: list[dict[str, Any]], schema: Any) -> Artifact:
    store = Store(home)
    fingerprint = hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
    with store.build(kind, fingerprint) as partial:
        tables.write(tables.part(partial, 0), rows, schema)
        facts: dict[str, Any] = {"config": {}, "inputs": {}, "outside": {}}
        facts |= {"kind": kind, "stage": "test", "stage_version": 1, "fingerprint": fingerprint, "started": now()}
        return store.publish(partial, manifest=facts | {"meta": {"image_root": "images"}})


def inputs(home: Path, pairs: list[dict[str, Any]], negatives: list[dict[str, Any]]) -> Inputs:
    return {
        "pairs": artifact(home, "pairs", pairs, PAIRS),
        "negatives": artifact(home, "negatives", negatives, NEGATIVES),
    }


def run(out: Path, given: Inputs, **settings: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return STAGE.run(Config(**settings), given, out, silent)


def test_weights_and_paraphrases_are_carried_over(tmp_path: Path) -> None:
    weighed = [NEGATIVE_ROWS[0] | {"weight": 0.25}, NEGATIVE_ROWS[1], NEGATIVE_ROWS[2]]
    again = negative(PAIRS_ROWS[2], "paraphrase", "A small cat is chased by a dog.")
    run(tmp_path / "out", inputs(tmp_path, PAIRS_ROWS, [*weighed, again]))
    rows = {row["pair_id"]: row for row in tables.read(tmp_path / "out").to_pylist()}
    one, other, plain = (rows[PAIRS_ROWS[i]["pair_id"]] for i in (0, 2, 1))
    assert one["chances"] == [None, None, 0.25, 1.0, None] and one["paraphrases"] is None
    assert other["chances"] is None and other["paraphrases"] == ["A small cat is chased by a dog."]
    assert one["paraphrases_tokens"] is None
    assert plain["chances"] is None


def test_one_row_per_pair_with_a_null_where_a_negative_is_missing(tmp_path: Path) -> None:
    meta = run(tmp_path / "out", inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS))
    table = tables.read(tmp_path / "out")
    assert table.schema.names == DATASET.names
    rows = {row["caption"]: row for row in table.to_pylist()}
    assert len(rows) == 4
    first = rows["A red cup is on a blue table."]
    assert first["swap_adjectives"] == "A blue cup is on a red table."
    assert first["reshuffle_order"] is None and first["reshuffle_order_tokens"] is None
    assert rows["A bird."]["swap_nouns"] is None
    assert meta["splits"] == {"test": 1, "train": 3}
    assert meta["negatives"]["swap_nouns"] == 1


def test_tokens_are_clips_own_at_their_own_length(tmp_path: Path) -> None:
    run(tmp_path / "out", inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS))
    row = next(row for row in tables.read(tmp_path / "out").to_pylist() if row["caption"] == "A bird.")
    # <start> a bird . <end> in CLIP's published vocabulary
    assert row["caption_tokens"] == [49406, 320, 3329, 269, 49407]


def test_pairs_with_too_few_negatives_are_left_out_on_request(tmp_path: Path) -> None:
    run(tmp_path / "out", inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS), min_negatives=2)
    assert [row["caption"] for row in tables.read(tmp_path / "out").to_pylist()] == ["A red cup is on a blue table."]


def test_copies_of_an_image_stay_on_one_side_and_in_one_group(tmp_path: Path) -> None:
    pairs = [
        pair(1, "One.", 1) | {"phash": 0},
        pair(2, "Two.", 2, "test") | {"phash": 0b111},
        pair(3, "Three.", 3, "val") | {"phash": 0b111111},
        pair(4, "Four.", 4, "test") | {"phash": 0xFFFF_FFFF},
        pair(5, "Five.", 5, "val") | {"phash": 0xFFFF << 48, "image_sha256": f"{4:064x}"},
    ]
    meta = run(tmp_path / "out", inputs(tmp_path, pairs, []))
    rows = {row["caption"]: row for row in tables.read(tmp_path / "out").to_pylist()}
    near = [rows[name]["image_group"] for name in ("One.", "Two.", "Three.")]
    assert near == ["csv:c:1.png"] * 3, "links are followed"
    assert rows["Four."]["image_group"] == rows["Five."]["image_group"] == "csv:c:4.png", "equal bytes"
    assert {row["split"] for row in rows.values()} == {"train"}
    assert meta["duplicates"]["pictures_with_copies"] == 5


def test_the_order_is_a_fixed_shuffle_drawn_from_the_seed(tmp_path: Path) -> None:
    rows = [pair(i, f"Caption {i}.", i) for i in range(40)]
    given = inputs(tmp_path, rows, [])
    orders = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        run(tmp_path / name, given, seed=seed, shard=16)
        assert [tables.rows(path) for path in tables.files(tmp_path / name)] == [16, 16, 8]
        orders.append(tables.read(tmp_path / name)["caption"].to_pylist())
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != [row["caption"] for row in sorted(rows, key=lambda row: row["pair_id"])]


def test_a_caption_that_says_the_same_on_copies_is_kept_once_on_request(tmp_path: Path) -> None:
    said = ("Same thing.", "SAME, thing!", "Other.", "?!", "!?")
    pairs = [pair(i, caption, i) | {"phash": 1} for i, caption in enumerate(said)]
    elsewhere = pair(9, "same thing", 9)
    given = inputs(tmp_path, [*pairs, elsewhere], [negative(pairs[1], "swap_nouns", "Thing same.")])
    kept = run(tmp_path / "keep", given)
    assert kept["splits"] == {"train": 6}
    assert kept["duplicates"] == {"repeated_captions": 1, "shared_captions": 3, "pictures_with_copies": 5}
    dropped = run(tmp_path / "drop", given, duplicates="drop")
    assert dropped["splits"] == {"train": 5} and dropped["duplicates"]["repeated_captions"] == 0
    rest = {row["caption"] for row in tables.read(tmp_path / "drop").to_pylist()}
    assert rest == {"SAME, thing!", "Other.", "?!", "!?", "same thing"}, "the one with a negative stays"


def test_paraphrases_stand_beside_the_negatives_and_do_not_count_as_such(tmp_path: Path) -> None:
    extra = [
        negative(PAIRS_ROWS[0], "paraphrase", text)
        for text in ("Red cup, blue table.", "A blue table holds a red cup.")
    ]
    run(tmp_path / "out", inputs(tmp_path, PAIRS_ROWS, [*NEGATIVE_ROWS, *extra]), min_negatives=2)
    (row,) = tables.read(tmp_path / "out").to_pylist()
    assert row["paraphrases"] == ["A blue table holds a red cup.", "Red cup, blue table."]
    assert row["paraphrases_tokens"] == tokenizer("ViT-B-32")(row["paraphrases"])
    with pytest.raises(UserError, match="no pair is left"):
        run(tmp_path / "none", inputs(tmp_path / "b", PAIRS_ROWS, extra), min_negatives=1)
    assert not tables.files(tmp_path / "none")


def test_what_is_denied_has_columns_where_it_was_made(tmp_path: Path) -> None:
    extra = [
        negative(PAIRS_ROWS[0], "negation", "A red cup on no blue table."),
        negative(PAIRS_ROWS[0], "absence", "A red cup on a blue table with no dog."),
    ]
    run(tmp_path / "five", inputs(tmp_path / "a", PAIRS_ROWS, NEGATIVE_ROWS))
    assert tables.columns(tmp_path / "five") == DATASET.names and "negation" not in DATASET.names
    facts = run(tmp_path / "six", inputs(tmp_path / "b", PAIRS_ROWS, [*NEGATIVE_ROWS, *extra]))
    assert set(tables.columns(tmp_path / "six")) - set(DATASET.names) == {
        "negation", "absence", "negation_tokens", "absence_tokens",
    }  # fmt: skip
    row, *others = sorted(tables.read(tmp_path / "six").to_pylist(), key=lambda one: one["negation"] is None)
    assert (row["negation"], row["absence"]) == (extra[0]["text"], extra[1]["text"])
    assert [row["negation_tokens"], row["absence_tokens"]] == tokenizer("ViT-B-32")([one["text"] for one in extra])
    assert all(one["absence"] is one["absence_tokens"] is None for one in others)
    assert facts["negatives"]["negation"] == 1 and "absence" not in facts["negatives"]
    with pytest.raises(UserError, match="no pair is left"):
        run(tmp_path / "none", inputs(tmp_path / "c", PAIRS_ROWS, extra[1:]), min_negatives=1)


def test_units_are_lists_beside_their_foils_and_count_as_no_negative(tmp_path: Path) -> None:
    line = "a red cup / a red plate; a cup on a table / a cup under a table"
    extra = negative(PAIRS_ROWS[0], "units", line)
    facts = run(tmp_path / "units", inputs(tmp_path / "b", PAIRS_ROWS, [*NEGATIVE_ROWS, extra]))
    names = ("units", "unit_foils")
    assert set(tables.columns(tmp_path / "units")) - set(DATASET.names) == {
        *names,
        *(f"{name}_tokens" for name in names),
    }
    row, *others = sorted(tables.read(tmp_path / "units").to_pylist(), key=lambda one: one["units"] is None)
    expected = [["a red cup", "a cup on a table"], ["a red plate", "a cup under a table"]]
    assert [row[name] for name in names] == expected
    assert [row[f"{name}_tokens"] for name in names] == list(map(tokenizer("ViT-B-32"), expected))
    assert all(one[name] is one[f"{name}_tokens"] is None for one in others for name in names)
    assert "units" not in facts["negatives"]
    with pytest.raises(UserError, match="no pair is left"):
        run(tmp_path / "none", inputs(tmp_path / "c", PAIRS_ROWS, [extra]), min_negatives=1)


@pytest.mark.slow
def test_more_than_fits_in_memory_spills_to_disk(tmp_path: Path) -> None:
    """150 MB of texts are joined, and sorted into a second copy, in 190 MB: what does not fit goes through the disk."""
    count, long = 50_000, "x" * 500
    ids = [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(count)]
    pictures = [number // 5 for number in range(count)]
    pairs = {
        "pair_id": ids,
        "caption": [f"{number % 97} {long}" for number in range(count)],
        "image_key": [f"csv:c:{picture}" for picture in pictures],
        "image_sha256": [f"{picture:064x}" for picture in pictures],
        "phash": pa.array([picture * 0x9E3779B97F4A7C15 % 2**64 for picture in pictures], pa.uint64()),
    }
    texts = {
        "pair_id": np.repeat(ids, 5),
        "type": list(NEGATIVE_TYPES) * count,
        "text": [f"{number % 89} y{long}" for number in range(5 * count)],
    }
    given = {}
    sides: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
        ("pairs", PAIRS_ROWS[0], pairs, PAIRS),
        ("negatives", NEGATIVE_ROWS[0], texts, NEGATIVES),
    ]
    for kind, row, columns, schema in sides:
        rows = len(columns["pair_id"])
        filled = {
            field.name: columns.get(field.name, pa.array([row.get(field.name)] * rows, field.type)) for field in schema
        }
        tables.write(tables.part(tmp_path / kind, 0), pa.table(filled), schema)
        facts: dict[str, Any] = {"kind": kind, "files": {}, "meta": {"image_root": "images"}}
        given[kind] = Artifact(tmp_path / kind, Manifest.model_construct(**facts))
    assert run(tmp_path / "out", given, memory="190MB")["splits"] == {"train": count}
    found = tables.read(tmp_path / "out", ["pair_id"])["pair_id"].to_pylist()
    assert found == sorted(ids, key=lambda name: hashlib.md5(f"0 {name}".encode()).hexdigest())


@pytest.mark.parametrize("memory", ["1MB", "plenty"])
def test_wrong_memory_is_said_in_one_line(tmp_path: Path, memory: str) -> None:
    with pytest.raises(UserError, match=rf"assemble: DuckDB with {memory} of memory: .*fix: set assemble\.memory"):
        run(tmp_path / "out", inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS), memory=memory)


def test_checks_of_the_dataset_read_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "select pair_id from dataset where len(caption_tokens) <> 5"
    monkeypatch.setattr("stages.assemble.dataset.read_checks", lambda kinds: [Check("error", "five tokens", query)])
    given = inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS)
    with pytest.raises(UserError, match="five tokens: 3 rows"):
        run(tmp_path / "out", given)
    assert not (tmp_path / "out" / "card.md").exists()


def test_nothing_left_for_training_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pair is left for training"):
        run(tmp_path / "out", inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS), min_negatives=5)


def test_a_killed_assemble_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    given = inputs(tmp_path, PAIRS_ROWS, NEGATIVE_ROWS)
    run(tmp_path / "whole", given, shard=1)
    assert len(tables.files(tmp_path / "whole")) == 4
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    tables.part(tmp_path / "killed", 3).unlink()
    run(tmp_path / "killed", given, shard=1)
    for path in tables.files(tmp_path / "whole"):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()
