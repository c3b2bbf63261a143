"""The flow on Prefect's own test server: states as users see them. The stages are real (ingest and assemble)."""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterName,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType, TaskRun
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.testing.fixtures import asserting_events_worker
from prefect.testing.utilities import prefect_test_harness

from flows.ablation import ablation
from flows.degla import degla, stage
from pipeline.child_log import ChildLog
from tests.stages import small_road
from tests.stages.language_models.test_server import completion, serving

__all__ = ["asserting_events_worker"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEGLA_HOME", str(tmp_path))
    return tmp_path


def task_runs(state: State[Any]) -> list[TaskRun]:
    with get_client(sync_client=True) as client:
        return client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        )


def test_stages_complete_then_show_as_cached(home: Path, tiny_recipe: Path) -> None:
    stages = ["ingest", "generate", "assemble"]
    assert degla("tiny", str(tiny_recipe), [], stages, return_state=True).is_completed()
    assert (home / "tiny" / "dataset" / "manifest.json").exists()

    state = degla("tiny", "", [], stages, return_state=True)
    assert {(run.name, run.state_name) for run in task_runs(state)} == {(name, "Cached") for name in stages}

    state = degla("another", str(tiny_recipe), [], stages, return_state=True)
    assert state.result() == dict.fromkeys(stages, True), "the first run's artifacts are reused, not made"


def test_without_a_name_a_run_has_its_recipe_s_and_no_other_is_overwritten(home: Path, tiny_recipe: Path) -> None:
    assert degla("", str(tiny_recipe), [], ["ingest"], return_state=True).is_completed()
    assert [path.parent.name for path in home.glob("*/recipe.yaml")] == ["tiny"]


def test_an_ablation_s_settings_hold_for_the_dataset_that_its_rows_share(home: Path, tiny_recipe: Path) -> None:
    row = {"name": "degla", "title": "DeGLA", "group": "degla"}
    settings = ["ingest.test_share=0.5", "train.warmup=0", "evaluate.benchmarks=[heldout]"]
    plan = {"kind": "ablation", "description": "one row", "base": str(tiny_recipe), "settings": settings}
    (home / "plan.yaml").write_text(yaml.safe_dump(plan | {"seeds": [1], "rows": [row]}))
    state = ablation(str(home / "plan.yaml"), overrides=["ingest.val_share=0.1"], return_state=True)
    assert state.is_completed(), state.message
    config = json.loads((home / "plan" / "pairs" / "manifest.json").read_text())["config"]
    assert (config["test_share"], config["val_share"]) == (0.5, 0.1)
    assert list(home.rglob("comparison.md"))


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


def materialized(worker: EventsWorker) -> dict[str, set[str]]:
    """Asset that was materialized since the last call -> the assets it was made from."""
    worker.wait_until_empty()
    assert isinstance(worker._client, AssertingEventsClient)
    return {
        event.resource.id: {one.id for one in event.related if one.role == "asset"}
        for event in worker._client.pop_events()
        if event.event == "prefect.asset.materialization.succeeded"
    }


def test_an_artifact_that_was_made_is_an_asset_with_its_lineage_and_a_reused_one_is_none(
    home: Path, tiny_recipe: Path, asserting_events_worker: EventsWorker
) -> None:
    stages = ["ingest", "generate", "assemble"]
    assert degla("tiny", str(tiny_recipe), [], stages, return_state=True).is_completed()
    pairs, negatives, dataset = (f"degla://tiny/{kind}" for kind in ("pairs", "negatives", "dataset"))
    assert materialized(asserting_events_worker) == {pairs: set(), negatives: {pairs}, dataset: {pairs, negatives}}
    assert degla("tiny", "", ["assemble.min_negatives=1"], stages, return_state=True).is_completed()
    assert materialized(asserting_events_worker) == {dataset: {pairs, negatives}}


def test_several_workers_make_one_artifact_together(home: Path, tiny_recipe: Path) -> None:
    state = degla("tiny", str(tiny_recipe), ["generate.workers=3"], ["ingest", "generate"], return_state=True)
    assert state.is_completed(), state.message
    assert len(list((home / "store" / "negatives").glob("*/manifest.json"))) == 1


def test_scores_report_and_page_appear_as_artifacts(home: Path) -> None:
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
        "degla-progress-report-small": "progress",
    }  # fmt: skip
    assert (home / "small" / "report" / "report.html").as_uri() in str(found["degla-page-small"].data)
    assert "sugarcrepe.swap_att" in str(found["degla-scores-small"].data)


# -- retries -----------------------------------------------------------------------------------------------------------


def own_captions(tiny_recipe: Path, folder: Path) -> list[str]:
    """A copy of the tiny source, as an override."""
    shutil.copytree(tiny_recipe.parent, folder)
    return [f"ingest.root={folder}"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading is an I/O error")
def test_a_fault_that_passes_is_tried_again(
    home: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = own_captions(tiny_recipe, tmp_path / "source")
    captions = tmp_path / "source" / "captions.csv"
    captions.unlink()
    captions.symlink_to("/proc/self/mem")
    faults = []

    def mended(task: Any, run: Any, state: State[Any]) -> bool:
        faults.append(state.message)
        captions.unlink()
        shutil.copy(tiny_recipe.parent / "captions.csv", captions)
        return bool(stage.retry_condition_fn(task, run, state))  # type: ignore[misc]

    shorter = stage.with_options(retry_delay_seconds=0.1, retry_condition_fn=mended)
    monkeypatch.setattr("flows.degla.stage", shorter)
    state = degla("tiny", str(tiny_recipe), overrides, ["ingest"], return_state=True)
    assert state.is_completed(), state.message
    assert len(faults) == 1 and "Input/output error" in faults[0]
    (run,) = task_runs(state)
    assert run.run_count == 2
    with get_client(sync_client=True) as client:
        names = [one.name for one in client.read_task_run_states(run.id)]
    assert names[-3:] == ["AwaitingRetry", "Retrying", "Completed"]


def test_a_users_mistake_is_not_tried_again(home: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    overrides = own_captions(tiny_recipe, tmp_path / "source")
    with (tmp_path / "source" / "captions.csv").open("w") as handle:
        csv.writer(handle).writerows([("picture", "text"), ("a.png", "A dog.")])
    state = degla("tiny", str(tiny_recipe), overrides, ["ingest"], return_state=True)
    assert state.is_failed() and "no column" in str(state.message)
    assert [(run.state_name, run.run_count) for run in task_runs(state)] == [("Failed", 1)]


def test_waits_before_a_retry_grow_and_carry_jitter() -> None:
    first, second = stage.retry_delay_seconds  # type: ignore[misc]
    assert 3.75 <= first <= 7.5 <= second <= 15
    assert first != 5 and second != 10 and second != 2 * first


# -- across flow runs, and out of children -----------------------------------------------------------------------------


def running(name: str) -> int:
    state = TaskRunFilterState(name=None, type=TaskRunFilterStateType(any_=[StateType.RUNNING]))
    chosen = TaskRunFilter(name=TaskRunFilterName(any_=[name]), state=state)
    with get_client(sync_client=True) as client:
        return len(client.read_task_runs(task_run_filter=chosen))


def until(holds: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


def test_the_gpu_limit_holds_across_flow_runs(home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGLA_GPU_LIMIT", "gpu-here")
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu-here", limit=1))
    go_on = Event()

    def answer(caption: str, before: int) -> tuple[int, dict[str, str], bytes]:
        go_on.wait(60)
        return 200, {}, completion("A house.")

    with serving(answer, (404, {}, b"")) as (url, bodies), ThreadPoolExecutor(2) as both:
        settings = [f"generate.{it}" for it in (f"base_url={url}", "backend=openai", "types=[swap_nouns]")]
        settings += ["generate.concurrency=1", "generate.repair_attempts=0"]
        for run in "ab":
            given = [*settings, f"generate.model={run}"]
            assert degla(run, str(tiny_recipe), given, ["ingest"], return_state=True).is_completed()
        states = [
            both.submit(copy_context().run, degla, run, "", [], ["generate"], return_state=True)  # type: ignore[arg-type]
            for run in "ab"
        ]
        try:
            assert until(lambda: running("generate") == 2, 60)
            both_asked = until(lambda: len({body["model"] for body in bodies}) == 2, 3)
        finally:
            go_on.set()
        assert all(state.result().is_completed() for state in states)
    assert not both_asked
    assert len([run for run, _ in groupby(body["model"] for body in bodies)]) == 2, "each has its turn to the end"


@task
def working(folder: Path) -> None:
    log = ChildLog("child", folder / "child.log")
    with log.end as end:
        subprocess.run([sys.executable, "-c", "print('ready'); print('ERROR: lost')"], stdout=end.fileno())
    log.join()


@flow
def watched(folder: Path) -> None:
    working(folder)


def test_what_a_child_prints_is_in_the_log_of_its_task_run(tmp_path: Path) -> None:
    state = watched(tmp_path, return_state=True)
    (run,) = task_runs(state)
    mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))

    def found() -> list[Any]:
        with get_client(sync_client=True) as client:
            return [log for log in client.read_logs(mine) if log.name == "degla.child"]

    assert until(lambda: len(found()) >= 2, 30), "Prefect sends logs every two seconds"
    assert [(log.task_run_id, log.level, log.message) for log in found()] == [
        (run.id, 20, "ready"), (run.id, 40, "ERROR: lost")
    ]  # fmt: skip
