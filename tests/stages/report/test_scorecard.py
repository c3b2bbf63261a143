"""The page of `degla eval`: one model, or two beside each other, in the report's own tables."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.report import scorecard
from tests.stages.report.reading import parsed
from tests.stages.small_road import SmallRoad


def written(road: SmallRoad, folder: Path, labels: dict[str, str], official: bool) -> tuple[Any, str, str]:
    meta = road.artifacts["scores"].meta
    scorecard.write(
        folder,
        labels,
        aggregates=meta["aggregates"],
        descriptions=meta["models"],
        protocols=meta["protocols"],
        random_start=meta["random_start"],
        official=official,
        settings={"seed": 0},
    )
    facts = json.loads((folder / "eval.json").read_text())
    return facts, " ".join(parsed(folder / "eval.html").text), (folder / "eval.md").read_text()


@pytest.mark.parametrize("labels", [{"after": "<u>mine</u>"}, {"before": "theirs", "after": "<u>mine</u>"}])
def test_a_page_shows_each_model_and_a_change_where_there_are_two(
    road: SmallRoad, tmp_path: Path, labels: dict[str, str]
) -> None:
    facts, text, markdown = written(road, tmp_path / "new", labels, official=False)
    found = road.artifacts["scores"].meta["aggregates"]
    assert {row["name"] for one in facts["benchmarks"] for row in one["rows"]} == set(found)
    title = "Scores: <u>mine</u> against theirs" if len(labels) == 2 else "Scores of <u>mine</u>"
    assert facts["title"] == title and title in text and len(facts["headline"]) == (2 if len(labels) == 2 else 0)
    assert facts["labels"] == labels and set(facts["models"]) == set(labels)
    value = f"{100 * found['sugarcrepe.swap_att']['after']['value']:.1f}"
    assert value in text and value in markdown
    assert ("change" in markdown) == ("McNemar" in text) == (len(labels) == 2)
    assert "&lt;u&gt;mine" in markdown and "u" not in {tag for tag, _ in parsed(tmp_path / "new/eval.html").tags}


def test_files_that_were_not_checked_are_said_and_not_joined_with_papers(road: SmallRoad, tmp_path: Path) -> None:
    labels = {"before": "theirs", "after": "mine"}
    unchecked, text, markdown = written(road, tmp_path, labels, official=False)
    warning = "were not held against known counts and digests"
    assert warning in text and warning in markdown and unchecked["published"]["rows"] == []
    checked, text, markdown = written(road, tmp_path, labels, official=True)
    assert warning not in text and warning not in markdown and checked["published"]["rows"]
