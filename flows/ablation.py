"""The Prefect flow `ablation`: the rows of a plan, each with every seed, over one dataset; then one comparison."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger, tags, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import comparing, search
from flows import plan as plans
from flows.degla import degla, gpu_turn, watched
from pipeline.errors import TransientError, UserError
from pipeline.home import open_store
from pipeline.stage import Progress
from stages.road import Run


@task(name="cell", task_run_name="{run}", persist_result=False)
def cell(run: str, made: Future[bool]) -> State[str]:
    """One trial, or one row with one seed, made by a process of its own; one that was on disk shows as Cached."""
    is_new = made.result()
    return Completed(name=None if is_new else "Cached", message=f"{'made' if is_new else 'reused'} {run}", data=run)


def _made(
    what: str, runs: Sequence[Run], work: Callable[[Run], bool], pool: ProcessPoolExecutor, progress: Progress
) -> None:
    """Make all runs, each by a task of its own."""
    futures = [pool.submit(work, run) for run in runs]
    for number, (run, future) in enumerate(zip(runs, futures, strict=True)):
        progress(what, number, len(runs))
        cell(run.name, future)
    progress(what, len(runs), len(runs))


def _name() -> str:
    return Path(flow_run.parameters["plan"]).stem


@flow(name="degla", flow_run_name=_name, log_prints=False)
def ablation(
    plan: str = "ablation",
    rows: list[str] = [],  # noqa: B006 - Prefect shows the default in its form and never mutates it
    seeds: list[int] = [],  # noqa: B006
    overrides: list[str] = [],  # noqa: B006
    jobs: int = 2,
) -> State[object]:
    """Compare recipes by their means over seeds.

    Args:
        plan: name in data/ablations, or a YAML file.
        rows: only these rows of the plan; empty = all.
        seeds: these seeds instead of the plan's; empty = the plan's.
        overrides: settings of every row, as "section.field=value".
        jobs: cells worked on at once, each with its share of the cores.
    """
    store, name = open_store(), Path(plan).stem
    try:
        chosen = plans.load(plan, rows, seeds)
        trials = search.trials(chosen, name, overrides)
        plans.cells(chosen, name, overrides)
        with tags("degla"):
            shared = degla(
                name, chosen.base, [*chosen.settings, *overrides], list(plans.SHARED), False, return_state=True
            )
        if shared.is_failed():
            return Failed(message=shared.message)
        with gpu_turn(), watched("ablation", name) as progress, plans.workers(jobs) as pool:
            with plans.prepared(store, name, trials, search.VERBS) as runs:
                _made("trials", runs, search.try_out, pool, progress)
            searched = search.choose(store, trials)
            best = {row: one["chosen"] for row, one in searched.items()}
            cells = plans.cells(chosen, name, overrides, best)
            with plans.prepared(store, name, cells) as runs:
                _made("cells", runs, partial(plans.work, base=name), pool, progress)
        folder = comparing.write(store, name, chosen, cells, searched)
    except (UserError, TransientError) as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)
    create_markdown_artifact((folder / "comparison.md").read_text(encoding="utf-8"), key=f"degla-{name.lower()}")
    return Completed(message=str(folder))
