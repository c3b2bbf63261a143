"""The stage against a real server that fails, dies, or says nothing of use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import tables
from pipeline.errors import TransientError, UserError
from tests.stages.generate.canned import captions, content, kept, read, work
from tests.stages.language_models.serving import Answer, completion, serving


def swapped(caption: str, before: int) -> Answer:
    """A caption of `captions` with its two things in each other's place."""
    words = caption.rstrip(".").split()
    return 200, {}, completion(" ".join([*words[:2], words[7], *words[3:7], words[2], *words[8:]]) + ".")


def unchanged(caption: str, before: int) -> Answer:
    return 200, {}, completion(caption)


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {
        "backend": "openai", "model": "m", "base_url": url, "types": ["swap_nouns"], "concurrency": 2, "timeout": 5,
        "repair_attempts": 0, **more,
    }  # fmt: skip


def run(home: Path, rows: list[tuple[str, str]], answer: Callable[[str, int], Answer], **more: Any) -> int:
    """How many requests it took."""
    dies_after = more.pop("dies_after", None)
    with serving(answer, dies_after=dies_after) as (url, bodies):
        try:
            work(home, rows, **settings(url, **more))
        finally:
            asked = len(bodies)
    return asked


def responses(home: Path) -> int:
    return sum(tables.rows(home / name) for name in kept(home))


def test_a_server_that_dies_publishes_nothing_and_costs_nothing_that_came_before(tmp_path: Path) -> None:
    rows = captions(40)
    with pytest.raises(TransientError, match="the server is gone.*the same command continues"):
        run(tmp_path, rows, swapped, dies_after=20)
    out = tmp_path / "store" / "negatives" / "f.partial"
    assert not tables.files(out) and not list(out.glob("**/faults/**/*.parquet"))
    before = responses(tmp_path)
    assert 17 <= before <= 22
    assert run(tmp_path, rows, swapped) == 40 - before
    calm = tmp_path / "calm"
    assert run(calm, rows, swapped) == 40
    assert content(calm / "store" / "negatives" / "f.partial") == content(out)
    assert {row["status"] for row in read(out)} == {"accepted"}


def test_errors_have_a_limit_of_their_own(tmp_path: Path) -> None:
    rows = captions(40)
    failing = {rows[3][1], rows[17][1]}

    def answer(caption: str, before: int) -> Answer:
        return (400, {}, b"prompt too long") if caption in failing else swapped(caption, before)

    with pytest.raises(UserError, match=r"of \d+ requests for swap_nouns failed, e.g. 'status 400: prompt too long'"):
        run(tmp_path, rows, answer, max_error_rate=0.04, max_reject_rate=1)
    assert not list(tmp_path.glob("**/faults/**/*.parquet"))
    assert run(tmp_path, rows, answer, max_error_rate=0.05, max_reject_rate=0) <= 2 + 38
    found = read(tmp_path / "store" / "negatives" / "f.partial")
    assert sorted(row["reason"] for row in found if row["status"] == "rejected") == ["error", "error"]
    assert responses(tmp_path) == 38


def test_a_model_not_up_to_it_is_stopped_after_the_first_256_and_they_are_kept(tmp_path: Path) -> None:
    rows = captions(600)
    told = (
        r"swap_nouns: 256 of the first 256 rejected \(identical 256\); expected at most 50%.*generate.max_reject_rate"
    )
    with pytest.raises(UserError, match=told):
        run(tmp_path, rows, unchanged)
    assert responses(tmp_path) == 256
    with serving(unchanged) as (url, bodies), pytest.raises(UserError, match=told):
        work(tmp_path, rows, **settings(url))
    assert not bodies  # what is cached tells it already
    assert run(tmp_path, rows, unchanged, max_reject_rate=1) == 600 - 256


def test_repairs_are_given_a_chance_before_the_model_is_given_up(tmp_path: Path) -> None:
    rows = captions(300)
    bad = {caption for index, (_, caption) in enumerate(rows) if index % 5 < 3}

    def answer(caption: str, before: int) -> Answer:
        return unchanged(caption, before) if caption in bad and not before else swapped(caption, before)

    run(tmp_path, rows, answer, repair_attempts=1)  # six in ten are rejected, all of them repaired
    with pytest.raises(UserError, match=r"rejected \(identical"):
        run(tmp_path / "alone", rows, answer)


def test_responses_are_kept_while_they_come_in(tmp_path: Path) -> None:
    rows = captions(12)
    run(tmp_path, rows, swapped, keep_every=0, concurrency=1)
    assert len(kept(tmp_path)) == responses(tmp_path) == 12
    run(tmp_path / "other", rows, swapped)
    assert len(kept(tmp_path / "other")) == 1
    assert content(tmp_path / "store/negatives/f.partial") == content(tmp_path / "other/store/negatives/f.partial")
