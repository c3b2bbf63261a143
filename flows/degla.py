"""The Prefect flow `degla`: one thin task per stage. All deployments in prefect.yaml are this flow.

Prefect observes and retries; whether a stage runs or is reused is decided by the manifests on disk.
"""

import logging
import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect import flow, get_run_logger, tags, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from flows import progress, score_tables, serve
from pipeline.errors import TransientError, UserError, install
from pipeline.run import Outcome
from pipeline.stage import Progress
from stages.road import Run, chosen

logging.getLogger("degla").setLevel(logging.INFO)  # of what children print; Prefect only takes it to the UI

GPU_STAGES = ("generate", "train", "evaluate")
SCORES_SAY = (
    "Per cent right with 95 % intervals; blind: without pictures; p of single sets is Holm-adjusted within a benchmark."
)
_HANDED: ContextVar[Run | None] = ContextVar("handed", default=None)
"""The open run of a caller in this process, which the flow then works on instead of opening its own."""

StageName = Literal["ingest", "generate", "assemble", "train", "evaluate", "report"]


def _transient(task: Task[..., object], run: TaskRun, state: State[object]) -> bool:
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, TransientError | ConnectionError | TimeoutError)


def _backoff(retries: int) -> list[float]:
    return [2**attempt * 5 * random.uniform(0.75, 1.5) for attempt in range(retries)]


def walk(run: Run, stages: list[str], force: bool) -> State[Any]:
    """The flow, on a run that is open in this process: no file is hashed again, no setting read again."""
    handed = _HANDED.set(run)
    try:
        with tags("degla"):
            return degla(run.name, "", [], stages, force, return_state=True)
    finally:
        _HANDED.reset(handed)


@task(
    name="stage",
    task_run_name="{name}",
    retries=2,
    retry_delay_seconds=_backoff,
    retry_condition_fn=_transient,
    persist_result=False,
)
def stage(name: str, run: Run, force: bool) -> State[Outcome]:
    """Run or reuse one stage; a reused one shows as Cached."""
    outcome = run.make(name, partial(_working, name), force=force)
    return Completed(name="Cached" if outcome.reused else None, message=str(outcome), data=outcome)


def _task_runner() -> Any:
    """Where the flow's tasks run, by $DEGLA_TASK_RUNNER: threads (here), ray or dask (a cluster that shares the home).

    The cluster's address is read from $RAY_ADDRESS or $DASK_SCHEDULER_ADDRESS; without one a local one is started.
    """
    name = os.environ.get("DEGLA_TASK_RUNNER", "threads")
    if name == "threads":
        return ThreadPoolTaskRunner()
    try:
        if name == "ray":
            from prefect_ray import RayTaskRunner

            return RayTaskRunner(address=os.environ.get("RAY_ADDRESS"))
        if name == "dask":
            from prefect_dask import DaskTaskRunner

            if address := os.environ.get("DASK_SCHEDULER_ADDRESS"):
                return DaskTaskRunner(address=address)
            # Else its dashboard is for every interface.
            return DaskTaskRunner(cluster_kwargs={"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"})
    except ModuleNotFoundError as error:
        what = f"task runner {name!r} lacks {error.name}"
        raise UserError("run", what, "it installed", install(name)) from None
    raise UserError("run", f"no task runner {name!r}", "threads, ray or dask", "set DEGLA_TASK_RUNNER")


@flow(name="degla", flow_run_name="{run}", log_prints=False, task_runner=_task_runner())
def degla(
    run: str = "demo",
    recipe: str = "",
    overrides: list[str] = [],  # noqa: B006 - Prefect shows the default in its form and never mutates it
    stages: list[StageName] = [],  # noqa: B006
    force: bool = False,
) -> State[object]:
    """The whole pipeline, or some stages of it.

    Args:
        run: name of the run; its artifacts appear under $DEGLA_HOME/<run>/.
        recipe: recipe name or YAML file; empty = the one this run already has, else the one named like the run.
        overrides: settings that differ from the recipe, as "section.field=value".
        stages: which stages; empty = all six.
        force: run them even when their artifacts are there.
    """
    reused: dict[str, bool] = {}
    try:
        opened = _HANDED.get() or Run.open(run, overrides, recipe=recipe)
        names = chosen(stages)
        with opened.at_work(names):
            for name in names:
                workers = opened.recipe.generate.workers if name == "generate" else 1
                if workers == 1:
                    found: list[Any] = [stage(name, opened, force, return_state=True).result()]
                else:  # one makes the artifact, the others help it
                    futures = [stage.submit(name, opened, force and first == 0) for first in range(workers)]
                    found = [future.result() for future in futures]
                reused[name] = all(outcome.reused for outcome in found)
    except (UserError, TransientError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)
    _artifacts(opened)
    return Completed(message=f"{opened.folder}", data=reused)


@contextmanager
def _working(name: str) -> Iterator[Progress]:
    """While a stage really runs: its turn on the GPU, if it wants one, and its progress in terminal and UI."""
    with gpu_turn() if name in GPU_STAGES else nullcontext(), watched(name) as progress:
        yield progress


def gpu_turn() -> AbstractContextManager[None]:
    """A turn on the GPU: where the limit exists, it holds across flow runs."""
    limit = serve.gpu_limit()
    return concurrency(limit, occupy=1, lease_duration=60) if limit else nullcontext()


@contextmanager
def watched(name: str) -> Iterator[Progress]:
    """Progress in the terminal and, as long as Prefect's server answers, in an artifact there."""
    logger = get_run_logger()
    key: UUID | None = None
    is_watched = True

    def tell(line: str, share: float) -> None:
        nonlocal key, is_watched
        if not is_watched:
            return
        percent, text = round(100 * share, 1), f"{name}: {line}"
        try:
            if key is None:
                key = create_progress_artifact(progress=percent, key=f"degla-{name}", description=text)  # type: ignore[assignment]
            else:
                update_progress_artifact(key, progress=percent, description=text)
        except httpx.HTTPError as error:
            is_watched = False  # each call would wait a minute for the server to come back
            logger.warning("%s continues without progress here: Prefect's server does not answer (%s)", name, error)

    log = progress.throttled(lambda line, share: logger.info("%s: %s", name, line), every=60)
    with progress.shown(name) as bar:
        yield progress.both(bar, progress.throttled(tell), log)


def _artifacts(run: Run) -> None:
    """The report, a link to its page, and the headline with every set as a table, in Prefect's UI."""
    scores, report = run.get("scores"), run.get("report")
    if scores is not None:
        says = " ".join((*score_tables.says(scores.meta), SCORES_SAY))
        create_table_artifact(score_tables.rows(scores.meta), f"degla-scores-{_key(run.name)}", says)
    if report is not None:
        text = (report.path / "report.md").read_text(encoding="utf-8")
        create_markdown_artifact(text, key=f"degla-report-{_key(run.name)}", description="The report, without figures.")
        page, says = run.folder / "report" / "report.html", "Where the report's page is on the machine that ran it."
        create_link_artifact(page.as_uri(), link_text=str(page), key=f"degla-page-{_key(run.name)}", description=says)


def _key(run: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in run.lower())
