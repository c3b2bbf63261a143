"""Ablations without Prefect: a plan of rows, each a recipe, every row with every seed over one shared dataset."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator

from pipeline.assets import DATA
from pipeline.config import Config, from_yaml, validation_error
from pipeline.errors import UserError
from pipeline.lifeline import die_with
from pipeline.negative_types import NEGATIVE_TYPES, NegativeType
from pipeline.store import Store
from stages.road import STAGES, Recipe, Run, read
from stages.road import load as load_recipe

PLANS = DATA / "ablations"
METHOD = (
    "objective", "types", "negatives_per_caption", "similar_images", "negative_images", "lock_image", "lock_text",
)  # fmt: skip
"""What of a recipe's training is its method; the rest is schedule and scale, which all rows share."""
SHARED = ("ingest", "generate", "assemble")
OWN = ("train", "evaluate")


class Row(Config):
    """One line of the comparison."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="short name, part of the runs' names")
    title: str = Field(min_length=1, description="what the table calls it")
    group: Literal["rivals", "degla", "ablations", "types"] = Field(description="part of the table it stands in")
    recipe: str | None = Field(None, description="recipe whose method it takes; null = the base's")
    without: NegativeType | None = Field(None, description="negative type it does not train with")
    set: tuple[str, ...] = Field((), description="settings of its own, section.field=value")


class Plan(Config):
    """Which rows are compared, on what, with which seeds."""

    kind: Literal["ablation"] = Field(description="tells a plan from a recipe")
    description: str = Field(min_length=1, description="what this comparison is for")
    base: str = Field(description="recipe that makes the dataset and gives every setting a row does not")
    settings: tuple[str, ...] = Field((), description="settings of all rows, section.field=value")
    seeds: tuple[int, ...] = Field(min_length=1, description="seeds of training; fixed beforehand, never chosen")
    rows: tuple[Row, ...] = Field(min_length=1, description="the lines")

    @field_validator("rows")
    @classmethod
    def _names_differ(cls, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        if len({row.name for row in rows}) < len(rows):
            raise ValueError("every row needs a name of its own")
        return rows


class Cell(NamedTuple):
    """One row with one seed: a run of its own."""

    row: Row
    seed: int
    run: str
    recipe: Recipe


def is_plan(name: str) -> bool:
    """Whether `degla run NAME` means a plan: one in data/ablations, or a YAML file of kind `ablation`."""
    if (PLANS / f"{name}.yaml").exists():
        return True
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return False
    with suppress(OSError, ValueError):
        content = from_yaml(path.read_text(encoding="utf-8"))
        return isinstance(content, dict) and content.get("kind") == "ablation"
    return False


def load(name: str, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> Plan:
    """A plan, or some rows and other seeds of it. Raises UserError naming the wrong field or the unknown row."""
    try:
        plan = Plan.model_validate(read(PLANS, name, "ablation"))
    except ValidationError as error:
        raise validation_error("ablation", name, error, "a plan", f"mend {name}") from None
    known = [row.name for row in plan.rows]
    for row in rows:
        if row not in known:
            raise UserError("ablation", f"no row {row!r}", f"one of {', '.join(known)}", "name a row of the plan")
    chosen = tuple(row for row in plan.rows if not rows or row.name in rows)
    return plan.model_copy(update={"rows": chosen, "seeds": tuple(seeds) or plan.seeds})


def cells(plan: Plan, name: str, overrides: Sequence[str] = ()) -> list[Cell]:
    """Every row with every seed; all recipes are valid, or UserError says which setting is not."""
    found = []
    for seed in plan.seeds:
        for row in plan.rows:
            given = [*plan.settings, *_method(row), *row.set, f"train.seed={seed}", *overrides]
            found.append(Cell(row, seed, f"{name}.{row.name}.{seed}", load_recipe(plan.base, given)))
    return found


def _method(row: Row) -> list[str]:
    """The method a row takes from another recipe and the type it leaves out, as overrides of the base."""
    given = []
    if row.recipe:
        train = load_recipe(row.recipe).train.model_dump(mode="json")
        given += [f"train.{field}={yaml.safe_dump(train[field], default_flow_style=True)}" for field in METHOD]
    if row.without:
        kept = ", ".join(kind for kind in NEGATIVE_TYPES if kind != row.without)
        given.append(f"train.types=[{kept}]")
    return given


@contextmanager
def prepared(store: Store, base: str, found: Sequence[Cell]) -> Iterator[list[Run]]:
    """Every cell's run with the shared artifacts of the base run; until the block ends nobody else changes one.

    Raises UserError when a stage would not find what it reads, BusyError when a cell is at work with other settings.
    """
    runs = [Run(store, cell.run, cell.recipe, STAGES) for cell in found]
    with ExitStack() as stack:
        for run in runs:
            for name in SHARED:
                artifact = store.linked(base, STAGES[name].makes)
                if artifact is not None:
                    store.link(run.name, artifact)
            stack.enter_context(run.at_work(OWN))
        yield runs


def work(run: Run) -> bool:
    """Train and score one cell, or reuse what is on disk; whether anything had to be made."""
    outcomes = [run.make(name) for name in OWN]
    return not all(outcome.reused for outcome in outcomes)


@contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that work on cells side by side, each with its share of the cores; they end with this one."""
    share = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(share, os.getpid())) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(threads: int, parent: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    die_with(parent)
    torch.set_num_threads(threads)


def facts(store: Store, plan: Plan, found: Sequence[Cell]) -> dict[str, Any]:
    """Scores of all cells that are done, as `stages.report.comparison` takes them."""
    rows: dict[str, dict[str, Any]] = {}
    for cell in found:
        scores, model = store.linked(cell.run, "scores"), store.linked(cell.run, "model")
        row = rows.setdefault(
            cell.row.name, cell.row.model_dump(include={"name", "title", "group", "without"}) | {"runs": []}
        )
        if scores is None or model is None:
            continue
        row["runs"].append(
            {
                "seed": cell.seed,
                "scores": {name: one["after"]["value"] for name, one in scores.meta["aggregates"].items()},
                "before": {name: one["before"]["value"] for name, one in scores.meta["aggregates"].items()},
                "subsets": [name for name, one in scores.meta["aggregates"].items() if one["subset"]],
                "weight_delta": model.meta["weight_delta"],
                "loss": {term: weight for term, weight in cell.recipe.train.objective.weights().items() if weight},
            }
        )
    return {
        "description": plan.description,
        "base": plan.base,
        "settings": list(plan.settings),
        "seeds": list(plan.seeds),
        "rows": list(rows.values()),
    }


def write(store: Store, name: str, plan: Plan, found: Sequence[Cell]) -> Path:
    """Write comparison.md, comparison.json and figures of what is done so far; returns their folder."""
    from stages.report import comparison  # draws, with matplotlib

    folder = store.run(name) / "comparison"
    comparison.write(folder, comparison.compare(facts(store, plan, found)), f"degla run {name}")
    return folder
