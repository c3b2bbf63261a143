"""From the trainings of a plan to its comparison: what stands on disk, read and written down."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.plan import Cell, Plan
from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.store import Store
from stages import verdicts
from stages.evaluate.paired import Scored, difference
from stages.report import comparison

OURS = "degla"
"""The row that all others are compared with."""


def facts(
    store: Store, plan: Plan, found: Sequence[Cell], searched: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> dict[str, Any]:
    """Scores of all cells that are done, as `stages.report.comparison` takes them."""
    rows: dict[str, dict[str, Any]] = {}
    judged = _judged(store, found)
    trained: dict[str, dict[int, Scored]] = {}
    for cell in found:
        scores, model = store.linked(cell.run, "scores"), store.linked(cell.run, "model")
        row = rows.setdefault(
            cell.row.name,
            cell.row.model_dump(include={"name", "title", "group", "without", "like"})
            | {"search": searched.get(cell.row.name), "runs": []},
        )
        if scores is None or model is None:
            continue
        aggregates: dict[str, dict[str, Any]] = scores.meta["aggregates"]
        values = {name: one["after"]["value"] for name, one in aggregates.items()}
        trained.setdefault(cell.row.name, {})[cell.seed] = Scored(_after(scores), values)
        row["runs"].append(
            {
                "seed": cell.seed,
                "scores": values,
                "before": {name: one["before"]["value"] for name, one in aggregates.items()},
                "blind": {
                    name: best["value"] for name, one in aggregates.items() if (best := verdicts.best_blind(one))
                },
                "shows": {
                    name: verdicts.verdict(
                        name, one | judged.get(name, {}), random_start=scores.meta.get("random_start", False)
                    ).word
                    for name, one in aggregates.items()
                },
                "subsets": [name for name, one in aggregates.items() if one["subset"]],
                "weight_delta": model.meta["weight_delta"],
                "loss": {term: weight for term, weight in cell.recipe.train.objective.weights().items() if weight},
                "lr": cell.recipe.train.lr,
            }
        )
    ours = trained.get(OURS, {})
    for name, theirs in trained.items():
        seeds = sorted(ours.keys() & theirs.keys())
        if name != OURS and seeds:
            columns = list(ours[seeds[0]].values)
            rows[name]["difference"] = difference(
                [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds], columns
            )
    return {
        "description": plan.description,
        "base": plan.base,
        "settings": list(plan.settings),
        "seeds": list(plan.seeds),
        "search": plan.search and plan.search.model_dump(mode="json"),
        "rows": list(rows.values()),
    }


def _judged(store: Store, found: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Name -> {blind: judges}, of the first run scored with them: they read texts alone, the same in all runs."""
    for cell in found:
        scores = store.linked(cell.run, "scores")
        aggregates: dict[str, dict[str, Any]] = scores.meta["aggregates"] if scores else {}
        if blind := {name: {"blind": one["blind"]} for name, one in aggregates.items() if one.get("blind")}:
            return blind
    return {}


def _after(scores: Artifact) -> pa.Table:
    """The trained model's rows."""
    table = tables.read(scores.table_folder("scores"))
    return table.filter(pc.equal(table["model"].cast(pa.string()), "after"))


def write(
    store: Store,
    name: str,
    plan: Plan,
    found: Sequence[Cell],
    searched: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Path:
    """Write comparison.md, comparison.json and figures of what is done so far; returns their folder."""
    folder = store.run(name) / "comparison"
    comparison.write(folder, comparison.compare(facts(store, plan, found, searched)), f"degla run {name}")
    return folder
