"""`degla diff` between two finished tiny runs, one with fewer negatives and another learning rate."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli.diff import compare
from pipeline import tables
from stages.road import Run
from tests.flows.cli.test_main import degla
from tests.pipeline.test_run import finished, home, opened

__all__ = ["finished", "home"]

OTHER = ("ingest.max_words=8", "generate.types=[swap_nouns, replace_nouns]", "train.lr=0.01")


@pytest.fixture(scope="module")
def both(finished: Path, tiny_recipe: Path) -> tuple[Run, Run]:
    other = Run.open("other", OTHER, recipe=str(tiny_recipe), home=finished)
    with other.at_work(list(other.stages)):
        for stage in other.stages:
            other.make(stage)
    return opened(finished, tiny_recipe), other


@pytest.fixture(scope="module")
def found(both: tuple[Run, Run]) -> dict[str, Any]:
    return compare(*both)


def test_settings_that_decided_differently_are_named(found: dict[str, Any]) -> None:
    assert found["settings"]["train"] == ["config.lr: 1e-06 -> 0.01"]
    assert found["settings"]["ingest"] == ["config.max_words: 60 -> 8"]
    assert "assemble" not in found["settings"], "its inputs differ, its settings do not"


def test_negatives_are_counted_by_type_with_examples(found: dict[str, Any], both: tuple[Run, Run]) -> None:
    columns, rows = found["dataset"]["columns"], found["dataset"]["rows"]
    one, two = (run["dataset"].table("dataset").to_pylist() for run in both)
    assert rows["only_one"]["count"] == len({row["pair_id"] for row in one} - {row["pair_id"] for row in two}) > 0
    assert rows["only_two"]["count"] == 0 and rows["only_two"]["example"] is None
    kept = {row["pair_id"]: row for row in two}
    lost = [row for row in one if row["pair_id"] in kept and row["swap_adjectives"]]
    assert columns["swap_adjectives"]["only_one"] == len(lost) > 0 == columns["swap_adjectives"]["same"]
    example = columns["swap_adjectives"]["examples"][0]
    assert example["one"] and example["two"] is None and example["pair_id"] in kept
    assert "swap_nouns" not in columns, "the same captions have the same negatives"


def test_scores_are_compared_on_the_rows_both_have(found: dict[str, Any], both: tuple[Run, Run]) -> None:
    def right(run: Run) -> dict[tuple[str, ...], float]:
        rows = run["scores"].table("scores").to_pylist()
        keys = ("benchmark", "subset", "row_id", "texts_key")
        return {tuple(row[key] for key in keys): row["correct"] for row in rows if row["model"] == "after"}

    one, two = (right(run) for run in both)
    shared = [key for key in one.keys() & two.keys() if key[0] == "heldout"]
    scores = found["scores"]
    assert scores["rows"] == len(shared) > 0, "retrieval asks about other images, so none of its rows is shared"
    assert scores["only_one"] == len(one) - len(shared) and scores["only_two"] == len(two) - len(shared)
    micro = scores["aggregates"]["heldout.micro"]
    assert micro["before"]["value"] == pytest.approx(sum(one[key] for key in shared) / len(shared))
    assert micro["after"]["value"] == pytest.approx(sum(two[key] for key in shared) / len(shared))
    assert 0 < micro["difference"]["p"] <= 1 and micro["blind"]
    flipped = [key for key in shared if one[key] != two[key]]
    subsets = found["flipped"]["subsets"].values()
    assert sum(counts["only_one"] + counts["only_two"] for counts in subsets) == len(flipped)
    assert len(found["flipped"]["examples"]) == sum(
        min(3, sum(one[key] > two[key] if side else one[key] < two[key] for key in flipped)) for side in (True, False)
    )
    for example in found["flipped"]["examples"]:
        assert example["image"] and len(example["texts"]) == 2


def test_a_part_that_one_lacks_is_left_out_and_said(
    both: tuple[Run, Run],
    home: Path,
    tiny_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = Run.open("begun", recipe=str(tiny_recipe), home=home)
    begun.make("ingest")
    status, out, err = degla(home, monkeypatch, capsys, "diff", "tiny", "begun")
    assert status == 0 and "dataset: one of them has none" in out and "scores: one of them has none" in out, err
    found = json.loads(degla(home, monkeypatch, capsys, "diff", "tiny", "begun", "--json")[1])
    assert found["dataset"] is found["scores"] is found["flipped"] is None


def test_a_run_and_itself_do_not_differ(both: tuple[Run, Run]) -> None:
    found = compare(both[0], both[0])
    rows = tables.count(both[0]["scores"].path)
    assert found["settings"] == found["dataset"]["columns"] == found["flipped"]["subsets"] == {} and rows
    assert found["scores"]["only_one"] == found["scores"]["only_two"] == 0
    assert found["scores"]["aggregates"]["heldout.mean"]["difference"]["value"] == 0
