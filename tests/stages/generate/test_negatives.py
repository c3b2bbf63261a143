import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from tests.stages.generate.canned import canned, captions, kept, read, work


def test_refining_drops_what_text_gives_away_and_asks_nothing(tmp_path: Path) -> None:
    rows = captions(200)
    settings: dict[str, Any] = {"backend": "replay", "model": str(canned(tmp_path / "r.jsonl", rows)), "shard_size": 50}
    plain, _ = work(tmp_path, rows, "plain", **settings)
    before = kept(tmp_path)
    out, meta = work(tmp_path, rows, "refined", **settings, refine="drop")
    assert kept(tmp_path) == before
    # "zebra" and "pink" stand in every replacement and in no caption: nothing of them survives
    assert meta["types"]["replace_nouns"]["pairs"]["dropped"] > 0.9 * meta["blind"]["replace_nouns"]["ngrams"]["n"]
    changed = [(old, new) for old, new in zip(read(plain), read(out), strict=True) if old != new]
    assert changed and all({**new, "status": "accepted", "reason": None} == old for old, new in changed)
    assert {new["reason"] for _, new in changed} == {"blind"}


def test_reweighting_keeps_the_rows_and_writes_weights(tmp_path: Path) -> None:
    rows = captions(200)
    settings: dict[str, Any] = {"backend": "replay", "model": str(canned(tmp_path / "r.jsonl", rows))}
    plain, _ = work(tmp_path, rows, "plain", **settings)
    out, _ = work(tmp_path, rows, "weighed", **settings, refine="reweight")
    weighed = read(out)
    assert [{**row, "weight": 1.0} for row in weighed] == read(plain)
    told = [row["weight"] for row in weighed if row["type"] == "replace_nouns" and row["status"] == "accepted"]
    assert len(told) > 100 and sum(told) < 0.1 * len(told)


def test_too_many_refusals_fail_the_stage_and_keep_the_replies(tmp_path: Path) -> None:
    rows = captions(20)
    path = canned(tmp_path / "r.jsonl", rows, wrong=1.0)
    settings: dict[str, Any] = {"backend": "replay", "model": str(path), "repair_attempts": 0}
    with pytest.raises(UserError, match=r"generate: 1[0-9] of 20 reshuffle_order rejected .*max_reject_rate"):
        work(tmp_path, rows, **settings)
    before = kept(tmp_path)
    assert before
    work(tmp_path, rows, **settings, max_reject_rate=1.0)
    assert kept(tmp_path) == before


def test_one_type_that_is_rejected_fails_the_stage_however_good_the_others_are(tmp_path: Path) -> None:
    rows = captions(20)
    lines = [json.loads(line) for line in canned(tmp_path / "r.jsonl", rows, wrong=0).read_text().splitlines()]
    for line in lines:
        line["reply"] = line["caption"] if line["type"] == "swap_nouns" else line["reply"]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=r"20 of 20 swap_nouns rejected \(100%\), most for identical"):
        work(tmp_path, rows, backend="replay", model=str(tmp_path / "r.jsonl"))
