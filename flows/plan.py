"""Ablations without Prefect: a plan of rows, each a recipe, every row with every seed over one shared dataset."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.assets import DATA
from pipeline.config import Config, from_yaml, validation_error
from pipeline.crew import cores
from pipeline.errors import UserError
from pipeline.lifeline import die_with
from pipeline.negative_types import NEGATIVE_TYPES, NegativeType
from pipeline.run import decided
from pipeline.store import Store
from stages.road import STAGES, Recipe, Run, read
from stages.road import load as load_recipe

PLANS = DATA / "ablations"
METHOD = (
    "objective", "types", "negatives_per_caption", "similar_images", "negative_images", "paraphrases", "lock_image",
    "lock_text", "lock_scale", "unlocked_groups", "text_map",
)  # fmt: skip
"""What of a recipe's training is its method; the rest is schedule and scale, which all rows share."""
SHARED = ("ingest", "generate", "assemble")
OWN = ("train", "evaluate")


SEARCHED = ("train.lr", "train.weight_decay", "train.objective.")
"""What a search may set: the learning rate and the loss; schedule and scale are the same for all rows."""


class Search(Config):
    """How every searched row chooses its settings, on the val split alone."""

    trials: int = Field(ge=1, description="settings that each searched row tries, drawn from its grid")
    seed: int = Field(0, ge=0, description="of the draw")
    train_seed: int = Field(0, ge=0, description="seed of the trials' training; none of the plan's seeds")


class Row(Config):
    """One line of the comparison."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="short name, part of the runs' names")
    title: str = Field(min_length=1, description="what the table calls it")
    group: Literal["rivals", "degla", "ablations", "types"] = Field(description="part of the table it stands in")
    recipe: str | None = Field(None, description="recipe whose method it takes; null = the base's")
    without: NegativeType | None = Field(None, description="negative type it does not train with")
    search: dict[str, tuple[float, ...]] = Field({}, description="setting -> values it is chosen from, on val")
    like: str | None = Field(None, description="row whose chosen settings it takes")
    set: tuple[str, ...] = Field((), description="settings of its own, section.field=value; they come last")

    @field_validator("search")
    @classmethod
    def _may_be_searched(cls, search: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, values in search.items():
            if not name.startswith(SEARCHED):
                raise ValueError(f"{name} is not searched; expected {', '.join(SEARCHED)}")
            if len(set(values)) < max(1, len(values)):
                raise ValueError(f"{name} = {list(values)}; expected different values, at least one")
        return search


class Plan(Config):
    """Which rows are compared, on what, with which seeds."""

    kind: Literal["ablation"] = Field(description="tells a plan from a recipe")
    description: str = Field(min_length=1, description="what this comparison is for")
    base: str = Field(description="recipe that makes the dataset and gives every setting a row does not")
    settings: tuple[str, ...] = Field((), description="settings of all rows, section.field=value")
    seeds: tuple[int, ...] = Field(min_length=1, description="seeds of training; fixed beforehand, never chosen")
    search: Search | None = Field(None, description="how rows with `search` choose; null = none does")
    rows: tuple[Row, ...] = Field(min_length=1, description="the lines")

    @field_validator("rows")
    @classmethod
    def _names_differ(cls, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        if len({row.name for row in rows}) < len(rows):
            raise ValueError("every row needs a name of its own")
        return rows

    @model_validator(mode="after")
    def _search_is_the_same_for_all(self) -> "Plan":
        searched = {row.name for row in self.rows if row.search}
        for row in self.rows:
            points = prod(len(values) for values in row.search.values())
            if row.search and self.search is None:
                raise ValueError(f"row {row.name} has a search; expected the plan's search: {{trials: ...}}")
            if row.search and self.search and points < self.search.trials:
                raise ValueError(f"row {row.name} has a grid of {points}; expected at least {self.search.trials}")
            if row.like and (row.search or row.like not in searched):
                raise ValueError(
                    f"row {row.name} is like {row.like}; expected a row with a search, and none of its own"
                )
        if self.search and self.search.train_seed in self.seeds:
            raise ValueError(
                f"search.train_seed {self.search.train_seed} is a seed of the comparison; expected another"
            )
        return self


class Cell(NamedTuple):
    """One row with one seed: a run of its own."""

    row: Row
    seed: int
    run: str
    recipe: Recipe


class Made(Protocol):
    """A run to be made: a cell, or a trial of the search."""

    @property
    def run(self) -> str:
        """Its name."""

    @property
    def recipe(self) -> Recipe:
        """Its settings."""


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
    names = [one.name for one in chosen]
    for one in chosen:
        if one.like and one.like not in names:
            raise UserError("ablation", f"row {one.name} takes what {one.like} chose", "both", f"also name {one.like}")
    if plan.search and plan.search.train_seed in seeds:
        raise UserError(
            "ablation", f"seed {plan.search.train_seed} trains the search", "another seed", "choose other seeds"
        )
    return plan.model_copy(update={"rows": chosen, "seeds": tuple(seeds) or plan.seeds})


def cells(
    plan: Plan,
    name: str,
    overrides: Sequence[str] = (),
    chosen: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> list[Cell]:
    """Every row with every seed; all recipes are valid, or UserError says which setting is not.

    `chosen` is what searched rows chose; without it they have the base's settings.
    """
    found = []
    for seed in plan.seeds:
        for row in plan.rows:
            asked = given(plan, row, chosen.get(row.like or row.name, {}))
            recipe = load_recipe(plan.base, [*asked, f"train.seed={seed}", *overrides])
            found.append(Cell(row, seed, f"{name}.{row.name}.{seed}", recipe))
    return found


def given(plan: Plan, row: Row, chosen: Mapping[str, float]) -> list[str]:
    """All that a row sets, as overrides of the base: the plan's settings, its method, what was chosen, its own."""
    return [*plan.settings, *_method(row), *(f"{name}={value}" for name, value in chosen.items()), *row.set]


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
def prepared(store: Store, base: str, found: Iterable[Made], verbs: Sequence[str] = OWN) -> Iterator[list[Run]]:
    """Every cell's or trial's run with the shared artifacts of the base run; till the block ends nobody changes one.

    A row with settings of its own for generate or assemble has its own negatives and dataset, which are made here.

    Raises UserError when a stage would not find what it reads, BusyError when a cell is at work with other settings.
    """
    runs = [Run(store, cell.run, cell.recipe, STAGES) for cell in found]
    with ExitStack() as stack:
        for run in runs:
            own = _link_shared(run, base)
            stack.enter_context(run.at_work([*own, *verbs]))
            for name in own:
                run.make(name)
        yield runs


def _link_shared(run: Run, base: str) -> list[str]:
    """Link the base run's artifacts, up to the first that this run's settings would not make; the stages from there."""
    own: list[str] = []
    for name in SHARED:
        artifact = run.store.linked(base, STAGES[name].makes)
        if artifact is None:
            continue
        if own or decided(artifact.manifest, STAGES[name])["config"] != run.config(name).identity():
            own.append(name)
        else:
            run.link(artifact)
    return own


def work(run: Run, base: str | None = None) -> bool:
    """Train and score one cell, or reuse what is on disk; whether anything had to be made.

    Scored on the dataset of the base run, if it is named: every row is asked the same, whatever it was trained on.
    """
    trained = run.make("train")
    for name in SHARED:
        if base and (artifact := run.store.linked(base, STAGES[name].makes)):
            run.link(artifact)
    scored = run.make("evaluate")
    return not (trained.reused and scored.reused)


@contextmanager
def workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that work on cells side by side, each with its share of the cores; they end with this one."""
    share = max(1, cores() // jobs)
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
