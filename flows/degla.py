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
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect import flow, get_run_logger, tags
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.assets import materialize
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.context import AssetContext
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from flows import assets, progress, score_tables, serve
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


@materialize(
    "degla://run/artifact",  # each call names its own, see `_task`
    by="degla",
    name="stage",
    task_run_name="{name}",
    retries=2,
    retry_delay_seconds=_backoff,
    retry_condition_fn=_transient,
    persist_result=False,
)
def stage(name: str, run: Run, force: bool) -> State[Outcome]:
    """Run or reuse one stage; a reused one shows as Cached, and is no materialization of its asset."""
    outcome = run.make(name, partial(_working, name, run.name), force=force)
    context = AssetContext.get()
    if context and not outcome.reused:
        context.add_asset_metadata(assets.asset(run, run.stages[name].makes).key, assets.facts(outcome.artifact))
    return Completed(name="Cached" if outcome.reused else None, message=str(outcome), data=outcome)


def _task(name: str, run: Run) -> Task[[str, Run, bool], State[Outcome]]:
    """The task of one stage, whose asset is the run's artifact and whose upstream assets are what it reads."""
    made, read = run.stages[name].makes, run.stages[name].needs
    return stage.with_options(assets=[assets.asset(run, made)], asset_deps=[assets.asset(run, kind) for kind in read])


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


def _named(run: str, recipe: str) -> str:
    return run or Path(recipe).stem or "demo"


def _name() -> str:
    asked = flow_run.parameters
    return _named(asked.get("run", ""), asked.get("recipe", ""))


@flow(name="degla", flow_run_name=_name, log_prints=False, task_runner=_task_runner())
def degla(
    run: str = "",
    recipe: str = "",
    overrides: list[str] = [],  # noqa: B006 - Prefect shows the default in its form and never mutates it
    stages: list[StageName] = [],  # noqa: B006
    force: bool = False,
) -> State[object]:
    """The whole pipeline, or some stages of it.

    Args:
        run: name of the run; its artifacts appear under $DEGLA_HOME/<run>/. Empty = the recipe's, or demo.
        recipe: recipe name or YAML file; empty = the one this run already has, else the one named like the run.
        overrides: settings that differ from the recipe, as "section.field=value".
        stages: which stages; empty = all six.
        force: run them even when their artifacts are there.
    """
    reused: dict[str, bool] = {}
    found: list[Any]
    try:
        opened = _HANDED.get() or Run.open(_named(run, recipe), overrides, recipe=recipe)
        names = chosen(stages)
        with opened.at_work(names):
            for name in names:
                workers = opened.recipe.generate.workers if name == "generate" else 1
                making = _task(name, opened)
                if workers == 1:
                    found = [making(name, opened, force, return_state=True).result()]
                else:  # one makes the artifact, the others help it
                    futures = [making.submit(name, opened, force and first == 0) for first in range(workers)]
                    found = [future.result() for future in futures]
                reused[name] = all(outcome.reused for outcome in found)
    except (UserError, TransientError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)
    _artifacts(opened)
    return Completed(message=f"{opened.folder}", data=reused)


@contextmanager
def _working(name: str, run: str) -> Iterator[Progress]:
    """While a stage really runs: its turn on the GPU, if it wants one, and its progress in terminal and UI."""
    with gpu_turn() if name in GPU_STAGES else nullcontext(), watched(name, run) as progress:
        yield progress


def gpu_turn() -> AbstractContextManager[None]:
    """A turn on the GPU: where the limit exists, it holds across flow runs."""
    limit = serve.gpu_limit()
    return concurrency(limit, occupy=1, lease_duration=60) if limit else nullcontext()


@contextmanager
def watched(name: str, run: str) -> Iterator[Progress]:
    """Progress in the terminal and, as long as Prefect's server answers, in an artifact there, the run's own."""
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
                key = create_progress_artifact(
                    progress=percent, key=f"degla-progress-{name}-{_key(run)}", description=text
                )  # type: ignore[assignment]
            else:
                update_progress_artifact(key, progress=percent, description=text)
        except httpx.HTTPError as error:
            is_watched = False  # each call would wait a minute for the server to come back
            logger.warning("%s continues without progress here: Prefect's server does not answer (%s)", name, error)

    log = progress.throttled(lambda line, share: logger.info("%s: %s", name, line), every=60)
    with progress.shown(name) as bar:
        yield progress.both(bar, progress.throttled(tell), log)


def _artifacts(run: Run) -> None:
    """The report, a link to its page, the headline with every set, and the checks as tables, in Prefect's UI."""
    scores, report = run.get("scores"), run.get("report")
    held = {kind: artifact for kind in ("negatives", "dataset") if (artifact := run.get(kind))}
    if checked := assets.checks(held):
        create_table_artifact(checked, f"degla-checks-{_key(run.name)}", assets.CHECKS_SAY)
    if scores is not None:
        says = " ".join((*score_tables.says(scores.meta), SCORES_SAY))
        create_table_artifact(score_tables.rows(scores.meta), f"degla-scores-{_key(run.name)}", says)
    if report is not None:
        text = (report.path / "report.md").read_text(encoding="utf-8")
        create_markdown_artifact(text, key=f"degla-report-{_key(run.name)}", description="The report, without figures.")
        page, says = run.folder / "report" / "report.html", "Where the report's page is on the machine that ran it."
        create_link_artifact(page.as_uri(), link_text=str(page), key=f"degla-page-{_key(run.name)}", description=says)


def _key(run: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in run.lower())
