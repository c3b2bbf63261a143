"""`degla runs`, `log`, `promote` over a finished tiny run and one that went another way."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stages.road import STAGES
from tests.flows.cli.test_main import degla
from tests.pipeline.test_run import finished, home, opened

__all__ = ["finished", "home"]


@pytest.fixture
def two(home: Path, tiny_recipe: Path) -> Path:
    """A home with `tiny`, finished, and `other`, trained further and not scored since."""
    shutil.copytree(home / "tiny", home / "other", symlinks=True)
    run = opened(home, tiny_recipe, "train.lr=1e-5")
    run.name = "other"
    run.make("train")
    return home


def answered(*args: Any) -> Any:
    status, out, err = degla(*args, "--json")
    assert status == 0, err
    return json.loads(out)


def test_runs_shows_every_run_with_its_scores_and_how_it_stands(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = degla(two, monkeypatch, capsys, "runs")
    assert status == 0 and "heldout.mean" in out and "data/clip_tiny" in out
    found = {one["run"]: one for one in answered(two, monkeypatch, capsys, "runs", "--sort", "heldout.mean")}
    assert found["tiny"]["state"] == "current" and found["other"]["state"] == "stale from evaluate"
    score = found["tiny"]["scores"]["heldout.mean"]
    assert score["low"] <= score["value"] <= score["high"] and "change" in score
    assert [one["run"] for one in answered(two, monkeypatch, capsys, "runs", "--sort", "run")] == ["other", "tiny"]
    assert answered(two, monkeypatch, capsys, "runs")[0]["run"] == "other", "the newest first"
    status, _, err = degla(two, monkeypatch, capsys, "runs", "--sort", "beauty")
    assert status == 2 and err.startswith("runs: no column 'beauty'; expected one of run, date, state, model, ")


def test_log_tells_what_was_replaced_why_and_what_is_gone(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answered(two, monkeypatch, capsys, "log", "other")
    assert [one["stage"] for one in told] == ["ingest", "generate", "assemble", "train", "evaluate", "report", "train"]
    assert told[-1]["changed"] == ["config.lr: 1e-06 -> 1e-05"] and "heldout.mean" in told[4]["scores"]
    shutil.rmtree(two / "store" / "model" / told[3]["fingerprint"])
    status, out, _ = degla(two, monkeypatch, capsys, "log", "other")
    assert status == 0 and out.count("(deleted since)") == 1 and "config.lr: 1e-06 -> 1e-05" in out
    status, _, err = degla(two, monkeypatch, capsys, "log", "nobody")
    assert status == 2 and err.startswith("log: run 'nobody' has no history; expected one of other, tiny")


def test_a_run_goes_back_and_what_came_after_comes_from_the_store(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = answered(two, monkeypatch, capsys, "log", "other")[3]["fingerprint"]
    status, out, err = degla(two, monkeypatch, capsys, "run", "other", "--at", first, "--no-prefect")
    assert status == 0, err
    # The report was made for the run that `other` is a copy of.
    made = {name: "made" if name == "report" else "reused" for name in STAGES}
    assert dict(line.split()[:2] for line in out.splitlines()[:6]) == made
    found = {one["run"]: one for one in answered(two, monkeypatch, capsys, "runs")}
    assert found["other"]["state"] == "current" and found["other"]["scores"] == found["tiny"]["scores"]
    status, _, err = degla(two, monkeypatch, capsys, "run", "other", "--at", first, "--set", "train.lr=1")
    assert status == 2 and err.startswith("run: --at brings its own settings, and --set others")
    status, _, err = degla(two, monkeypatch, capsys, "run", "tiny", "--at", "0")
    assert status == 2 and "never held '0'" in err and "degla log tiny" in err


def test_what_a_run_holds_from_before_there_was_a_history_is_in_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "tiny" / "history.jsonl").unlink()
    told = answered(home, monkeypatch, capsys, "log", "tiny")
    assert [one["made"] for one in told] == [None] * 6


def test_promote_answers_by_its_status_and_marks_the_run_until_other_scores_come(
    two: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def promoted(name: str) -> bool:
        return bool({one["run"]: one for one in answered(two, monkeypatch, capsys, "runs")}[name]["promoted"])

    wanted = "heldout.mean >= 0 and heldout.mean <= than.heldout.mean"
    status, out, _ = degla(two, monkeypatch, capsys, "promote", "tiny", "--if", "heldout.mean > 100")
    assert status == 1 and out.startswith("not met: heldout.mean > 100") and not promoted("tiny")
    status, out, _ = degla(two, monkeypatch, capsys, "promote", "tiny", "--if", wanted, "--than", "tiny")
    assert status == 0 and out.startswith("met: ") and promoted("tiny")
    assert "* tiny: promoted" in degla(two, monkeypatch, capsys, "runs")[1]
    assert "promoted  heldout.mean >= 0" in degla(two, monkeypatch, capsys, "log", "tiny")[1]
    status, _, err = degla(two, monkeypatch, capsys, "promote", "other", "--if", "heldout.mean > 0")
    assert status == 2 and "the scores of run 'other' are an earlier model's" in err
    run = opened(two, tiny_recipe, "train.lr=1e-5")
    for stage in ("train", "evaluate"):
        run.make(stage)
    assert not promoted("tiny")
