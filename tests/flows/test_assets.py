"""What Prefect is told of a run's artifacts, from a finished tiny run."""

from pathlib import Path

import pytest

from flows import assets
from pipeline.artifact import Artifact
from tests.pipeline.test_run import finished, home, opened

__all__ = ["finished", "home"]


@pytest.fixture
def held(home: Path, tiny_recipe: Path) -> dict[str, Artifact]:
    run = opened(home, tiny_recipe)
    return {kind: run[kind] for kind in ("negatives", "dataset")}


def test_checks_have_their_severity_and_what_does_not_hold_comes_first(held: dict[str, Artifact]) -> None:
    held["dataset"].meta["checks"]["caption shared by different pictures"] = 3
    held["negatives"].meta["blind"]["swap_nouns"] = {"ngrams": {"accuracy": 0.8, "low": 0.7, "high": 0.9, "n": 40}}
    rows = assets.checks(held)
    failed = {(row["artifact"], row["check"]): row for row in rows if not row["holds"]}
    assert rows[0]["holds"] is False and [row["holds"] for row in rows] == sorted(row["holds"] for row in rows)
    assert failed["dataset", "caption shared by different pictures"]["found"] == "3 rows"
    told = failed["negatives", "swap_nouns: text alone tells the negative from its caption (ngrams)"]
    assert told["found"] == "80.0 % told (70.0 to 90.0)"
    assert {row["severity"] for row in failed.values()} == {"warning"}, "with an error there is no artifact"
    assert {"error", "warning"} == {row["severity"] for row in rows}
    assert assets.facts(held["dataset"])["warnings"] == sum(kind == "dataset" for kind, _ in failed)


@pytest.mark.parametrize("name", ["tiny", "ünï-2.b_c"])
def test_every_run_has_assets(home: Path, tiny_recipe: Path, name: str) -> None:
    run = opened(home, tiny_recipe)
    run.name = name
    assert assets.asset(run, "pairs").key == f"degla://{name}/pairs"
