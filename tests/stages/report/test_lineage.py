"""The lineage page of a finished tiny run, and of one that shares what it can with it."""

import html
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from stages.report import lineage
from tests.pipeline.test_run import finished, home, opened

__all__ = ["finished", "home"]


@pytest.fixture
def other(home: Path, tiny_recipe: Path) -> dict[str, Any]:
    """Facts of a run that trained on the dataset of `tiny` with another learning rate and was not scored since."""
    shutil.copytree(home / "tiny", home / "other", symlinks=True)
    (home / "other" / "history.jsonl").unlink()
    run = opened(home, tiny_recipe, "train.lr=1e-5")
    run.name = "other"
    for stage in ("ingest", "generate", "assemble", "train"):
        run.make(stage)
    return lineage.gather(run)


def test_it_says_who_made_and_who_uses_each_artifact_and_from_what(other: dict[str, Any]) -> None:
    found = {one["kind"]: one for one in other["artifacts"]}
    assert list(found) == ["pairs", "negatives", "dataset", "model", "scores", "report"]
    assert {kind: one["made_by"] for kind, one in found.items()} == {
        "pairs": "tiny", "negatives": "tiny", "dataset": "tiny", "model": "other", "scores": "tiny", "report": "tiny",
    }  # fmt: skip
    assert found["dataset"]["held_by"] == ["tiny"] and found["model"]["held_by"] == []
    assert found["model"]["reads"] == ["pairs", "dataset"] and not found["model"]["others"]
    assert found["scores"]["reads"] == ["pairs", "dataset"], "its model is not the one that the run has now"
    assert found["scores"]["others"] == ["model"] and found["scores"]["state"] == "stale"
    assert "lr: 1e-06 -> 1e-05" in found["model"]["settings"]
    assert not any(line.startswith("workers") for line in found["model"]["settings"]), "decides nothing"


def test_it_says_what_changed_the_latest_first(other: dict[str, Any]) -> None:
    assert other["history"][0]["kind"] == "model" and other["history"][0]["changed"] == ["lr: 1e-06 -> 1e-05"]


def test_the_page_is_written_when_something_was_made_and_is_what_the_report_links_to(
    home: Path, tiny_recipe: Path
) -> None:
    run = opened(home, tiny_recipe, "train.lr=1e-5")
    report = (run.folder / "report" / "report.html").read_text(encoding="utf-8")
    (link,) = re.findall(r'href="([^"]*lineage[^"]*)"', report)
    page = run.folder / "report" / link
    written = Path(str(page).replace("report/../", ""))
    written.unlink(missing_ok=True)
    run.make("train")
    text = html.unescape(written.read_text(encoding="utf-8"))
    assert "lr: 1e-06 -> 1e-05" in text and "Made by this run from pairs, dataset" in text
    assert "http" not in text, "it needs no network"


def test_nothing_from_names_becomes_markup(home: Path, tiny_recipe: Path) -> None:
    run = opened(home, tiny_recipe)
    run.store.log("tiny", {"at": "2026-01-01T00:00:00", "promoted": {"if": "<script>alert(1)</script>"}})
    assert "<script" not in lineage.write(run).read_text(encoding="utf-8")
