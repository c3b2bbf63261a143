"""The search of a plan: each row's settings are tried once, on the val split alone; the best ones are then compared.

Every searched row tries the same number of settings with the same seed, so none gets a finer search than another. A
trial is scored by `stages/train/validation.py` after the epoch that the row keeps: the mean of the share of held-out
negatives that lose to their caption and of retrieval in the batch. No benchmark is looked at.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Any, NamedTuple

from flows.plan import Plan, Row, Search, given
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.store import Store
from stages.road import Recipe, Run
from stages.road import load as load_recipe

VERBS = ("train",)


class Trial(NamedTuple):
    """One setting of one row: a run of its own that is trained and never meets a benchmark."""

    row: Row
    settings: dict[str, float]
    run: str
    recipe: Recipe
    keeps: str


def trials(plan: Plan, name: str, overrides: Sequence[str] = ()) -> list[Trial]:
    """Every setting that is tried, by row; all recipes are valid, or UserError says which setting is not."""
    found: list[Trial] = []
    if plan.search is None:
        return found
    for row in plan.rows:
        for number, settings in enumerate(drawn(plan.search, row)):
            asked = [*given(plan, row, settings), f"train.seed={plan.search.train_seed}", *overrides]
            keeps = load_recipe(plan.base, asked).train.select
            recipe = load_recipe(plan.base, [*asked, "train.select=best"])
            found.append(Trial(row, settings, f"{name}.{row.name}.trial{number}", recipe, keeps))
    return found


def drawn(search: Search, row: Row) -> list[dict[str, float]]:
    """The settings a row tries: `trials` different points of its grid, drawn by the seed and the row's name."""
    if not row.search:
        return []
    grid = [dict(zip(row.search, values, strict=True)) for values in product(*row.search.values())]
    return random.Random(f"{search.seed}/{row.name}").sample(grid, search.trials)


def try_out(run: Run) -> bool:
    """Train one trial, or reuse what is on disk; whether it had to be made."""
    return not run.make("train").reused


def choose(store: Store, found: Iterable[Trial]) -> dict[str, dict[str, Any]]:
    """What each searched row chose, from the trials on disk.

    Returns:
        row -> {chosen: the settings of the best score, the first of equals; seconds: of all its trainings; trials:
        [{settings, score, own, retrieval}], in the order tried}.

    Raises UserError for a trial that is not there.
    """
    searched: dict[str, dict[str, Any]] = {}
    for trial in found:
        model = store.linked(trial.run, "model")
        if model is None:
            raise UserError("ablation", f"{trial.run} is not trained", "every trial of the search", "the same command")
        row = searched.setdefault(trial.row.name, {"chosen": {}, "seconds": 0.0, "trials": []})
        row["trials"].append({"settings": trial.settings, **_validated(model, trial.keeps)})
        row["seconds"] += _seconds(model)
    for row in searched.values():
        row["chosen"] = max(row["trials"], key=lambda one: one["score"])["settings"]
    return searched


def _validated(model: Artifact, keeps: str) -> Mapping[str, float]:
    """Scores on the val split of the epoch that a training keeps: the last, or the best."""
    epochs: list[dict[str, float]] = model.meta["validation"]
    kept = max(epochs, key=lambda one: one["score"]) if keeps == "best" else epochs[-1]
    return {name: value for name, value in kept.items() if name != "step"}


def _seconds(model: Artifact) -> float:
    started, finished = (datetime.fromisoformat(getattr(model.manifest, name)) for name in ("started", "finished"))
    return (finished - started).total_seconds()
