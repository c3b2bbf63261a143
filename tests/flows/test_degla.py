"""The flow on Prefect's own test server: states as users see them. The stages are real (ingest and assemble)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.degla import degla
from tests.stages import small_road


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEGLA_HOME", str(tmp_path))
    return tmp_path


def test_stages_complete_then_show_as_cached(home: Path, tiny_recipe: Path) -> None:
    stages = ["ingest", "generate", "assemble"]
    assert degla("tiny", str(tiny_recipe), [], stages, return_state=True).is_completed()
    assert (home / "tiny" / "dataset" / "manifest.json").exists()

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    state = degla("tiny", "", [], stages, return_state=True)
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        )
    assert {(run.name, run.state_name) for run in runs} == {(name, "Cached") for name in stages}


def test_a_user_error_is_the_message_of_a_failed_state(home: Path) -> None:
    state = degla("nothing", "demo", [], ["train"], return_state=True)
    assert state.is_failed()
    assert state.message == str(state.result(raise_on_failure=False))
    assert state.message.startswith("train: run 'nothing' has no intact pairs; expected")
    assert not (home / "store").exists()


def test_an_override_that_does_not_exist_fails_before_any_stage(home: Path, tiny_recipe: Path) -> None:
    state = degla("tiny", str(tiny_recipe), ["train.lrr=1"], [], return_state=True)
    assert state.is_failed() and "train.lrr is wrong" in state.message
    assert not (home / "store").exists()


def test_several_workers_make_one_artifact_together(home: Path, tiny_recipe: Path) -> None:
    state = degla("tiny", str(tiny_recipe), ["generate.workers=3"], ["ingest", "generate"], return_state=True)
    assert state.is_completed(), state.message
    assert len(list((home / "store" / "negatives").glob("*/manifest.json"))) == 1


def test_scores_report_and_page_appear_as_artifacts(home: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    made = small_road.scored(small_road.build(home, 12))
    for artifact in made.artifacts.values():
        made.store.link("small", artifact)
    assert degla("small", "demo", [], ["report"], return_state=True).is_completed()
    with get_client(sync_client=True) as client:
        found = {
            one.key: one
            for one in client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="-small")))
        }
    assert {key: one.type for key, one in found.items()} == {
        "degla-scores-small": "table", "degla-report-small": "markdown", "degla-page-small": "markdown",
    }  # fmt: skip
    assert (home / "small" / "report" / "report.html").as_uri() in str(found["degla-page-small"].data)
    assert "sugarcrepe.swap_att" in str(found["degla-scores-small"].data)
