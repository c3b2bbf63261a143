"""Aggregates of a scores table: every named mean with its interval, and what changed between two models.

Which means there are, and under which names, each benchmark says beside its reader (stages/benchmarks).

Shapes: M models · N rows of the table · n rows of one aggregate · C cells · R resamples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.benchmarks.loaders import BENCHMARKS
from stages.benchmarks.means import RANKS, SIDES, Aggregate, Cells, Present, Selector, heads, nested, pairwise
from stages.evaluate import statistics
from stages.evaluate.rows import BLIND

COMPOSITION = ("sugarcrepe", "valse", "aro")
"""What the mean of that name is over; its rule says which of them were there, and how many files or sets of each."""


def definitions(present: Present) -> list[Aggregate]:
    """The aggregates that these subsets (benchmark, subset) -> groups allow, in the order of a report."""
    subsets: dict[str, list[str]] = {}
    for benchmark, subset in present:
        subsets.setdefault(benchmark, []).append(subset)
    made = {}
    for benchmark, names in subsets.items():
        means = BENCHMARKS[benchmark].means if benchmark in BENCHMARKS else pairwise
        made[benchmark] = means(benchmark, sorted(names), present)
    found = [item for items in made.values() for item in items]
    parts: dict[str, list[Cells]] = {name: heads(made[name]) for name in COMPOSITION if name in made}
    if parts:
        counted = ", ".join(f"{name} ({len(part)})" for name, part in parts.items())
        says = f"plain mean of benchmarks, each the mean of its files or sets: {counted}"
        cells = nested(list(parts.values()))
        found.insert(0, Aggregate("composition", says, cells, headline="composition"))
    return found


def outcomes(similarities: pa.ListArray, measure: str) -> np.ndarray:
    """1, 0 or NaN per row under a measure that is read from the similarities."""
    found = SIDES.get(measure) or (lambda s: len(s) <= RANKS[measure] or s[0] > s[RANKS[measure]])
    read = (found(values) if values else np.nan for values in similarities.to_pylist())
    return np.fromiter(read, dtype=np.float64, count=len(similarities))


def aggregate(
    scores: pa.Table,
    *,
    resamples: int = 2000,
    seed: int = 0,
    define: Callable[[Present], list[Aggregate]] = definitions,
) -> dict[str, dict[str, Any]]:
    """Every aggregate of a scores table with intervals; of the models before and after, also the paired difference.

    `define` says which there are, given (benchmark, subset) -> groups.

    Returns name -> {benchmark, subset, subsets (how many), says, measure, chance, headline, n (rows that every model
    scored), of (all rows under that name), pictures, <model>: {value, low, high, ties: the value if ties were wrong or
    right}, difference: {value, low, high, p, p_holm, won, lost, mcnemar_p, detectable}, clean: values without leaked
    rows, blind: {judge: {value, low, high}} over the very rows that the models were scored on, without judges that
    abstain on one of them}. Values are shares in 0..1; None = nothing scored. `p` is the paired permutation by image;
    `p_holm` adjusts it over the subsets of one benchmark. Raises ValueError when two models have different rows.
    """
    names = sorted(set(scores["model"].unique().to_pylist()))
    judges = [name for name in names if name.startswith(BLIND)]
    models = [name for name in ("before", "after") if name in names] or [name for name in names if name not in judges]
    if not models:
        models, judges = judges, []
    data = _columns(scores, models, judges)
    rows_of = _index(data)
    scored = np.isfinite(np.stack([data.correct[model] for model in models])).all(axis=0)
    whole = {one.name: one for one in define(_present(rows_of))}
    # A mean's name and rule then say what it is over. A subset of which nothing was scored still has its score: none.
    found = {one.name: one for one in define(_present(rows_of, scored))}
    there = {(one.benchmark, one.subset) for one in found.values()}
    found |= {name: one for name, one in whole.items() if one.subset and (one.benchmark, one.subset) not in there}
    result = {}
    for name, definition in found.items():
        asked = whole.get(name, definition)
        result[name] = _estimate(definition, data, rows_of, models, judges, resamples, seed)
        result[name] |= {"of": sum(len(rows_of[one]) for one in asked.selectors), "chance": asked.chance}
    _adjust(result)
    return result


def _present(rows_of: Mapping[Selector, np.ndarray], scored: np.ndarray | None = None) -> Present:
    """The subsets and their groups, all or those of which a row was scored."""
    present: dict[tuple[str, str], set[str]] = {}
    for (benchmark, subset, group), rows in rows_of.items():
        if scored is None or scored[rows].any():
            present.setdefault((benchmark, subset), set()).update([group] if group else [])
    return present


@dataclass(frozen=True)
class _Data:
    keys: list[tuple[str, str]]
    groups: list[str | None]
    image: np.ndarray
    leaked: np.ndarray
    correct: dict[str, np.ndarray]
    tie: dict[str, np.ndarray]
    similarities: dict[str, pa.ListArray]


def _columns(scores: pa.Table, models: list[str], judges: list[str]) -> _Data:
    """The rows of each model side by side; NaN where a judge has none. Raises ValueError when two models differ."""
    parts = {m: scores.filter(pc.equal(scores["model"].cast(pa.string()), m)) for m in (*models, *judges)}
    first = parts[models[0]]
    keys = _keys(first)
    for m in models[1:]:
        if _keys(parts[m]) != keys:
            raise ValueError(f"{models[0]} and {m} have different rows or protocols and cannot be compared")
    _, image_N = np.unique(np.asarray(first["image_key"].to_pylist(), dtype=object).astype(str), return_inverse=True)
    return _Data(
        keys=list(zip(first["benchmark"].to_pylist(), first["subset"].to_pylist(), strict=True)),
        groups=first["group"].to_pylist(),
        image=image_N.astype(np.int64),
        leaked=np.asarray(first["leaked"].to_pylist(), dtype=bool),
        correct={m: np.asarray(parts[m]["correct"], dtype=np.float64) for m in models}
        | {judge: _beside(parts[judge], keys) for judge in judges},
        tie={m: np.asarray(parts[m]["tie"].to_pylist(), dtype=bool) for m in models},
        similarities={m: parts[m]["similarities"].combine_chunks() for m in models},
    )


def _keys(rows: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in ("benchmark", "subset", "row_id", "protocol")), strict=True))


def _beside(judged: pa.Table, keys: list[tuple[str, ...]]) -> np.ndarray:
    """What a judge has for each of the rows with these keys; NaN for none."""
    found = dict(zip(_keys(judged), judged["correct"].to_pylist(), strict=True))
    return np.fromiter((found.get(key, np.nan) for key in keys), dtype=np.float64, count=len(keys))


def _index(data: _Data) -> dict[Selector, np.ndarray]:
    rows: dict[Selector, list[int]] = {}
    for index, (key, group) in enumerate(zip(data.keys, data.groups, strict=True)):
        rows.setdefault((*key, None), []).append(index)
        if group:
            rows.setdefault((*key, group), []).append(index)
    return {selector: np.asarray(found, dtype=np.int64) for selector, found in rows.items()}


def _estimate(
    definition: Aggregate,
    data: _Data,
    rows_of: dict[Selector, np.ndarray],
    models: list[str],
    judges: list[str],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    chosen = [np.concatenate([rows_of[selector] for selector in rows]) for rows, _ in definition.cells]
    row_n = np.concatenate(chosen)
    cell_n = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    weight_C = np.asarray([weight for _, weight in definition.cells])
    _, image_n = np.unique(data.image[row_n], return_inverse=True)
    if definition.measure == "correct":
        outcome_Mn = np.stack([data.correct[model][row_n] for model in models])
    else:
        kept = pa.array(row_n)
        outcome_Mn = np.stack([outcomes(data.similarities[model].take(kept), definition.measure) for model in models])
    outcome_Mn = np.where(np.isfinite(outcome_Mn).all(0), outcome_Mn, np.nan)
    scored = np.isfinite(outcome_Mn[0])
    judged = [
        judge
        for judge in (judges if definition.measure == "correct" else ())
        if scored.any() and np.isfinite(data.correct[judge][row_n][scored]).all()
    ]
    outcome_Mn = np.stack([*outcome_Mn, *(np.where(scored, data.correct[judge][row_n], np.nan) for judge in judged)])
    value_M = statistics.mean_of_cells(outcome_Mn, cell_n, weight_C)
    drawn_RM = statistics.bootstrap(outcome_Mn, image_n, cell_n, weight_C, resamples=resamples, seed=seed)
    facts: dict[str, Any] = {
        "benchmark": definition.benchmark,
        "subset": definition.subset,
        "subsets": len({selector[:2] for selector in definition.selectors}),
        "says": definition.says,
        "measure": definition.measure,
        "headline": definition.headline,
        "n": int(scored.sum()),
        "pictures": len(np.unique(image_n[scored])),
    }
    estimates = []
    for value, drawn_R in zip(value_M, drawn_RM.T, strict=True):
        low, high = statistics.interval(drawn_R)
        if value in (0, 1):
            low, high = statistics.interval_at_bound(float(value), facts["pictures"])
        estimates.append({"value": _number(value), "low": _number(low), "high": _number(high)})
    if judged:
        blind = zip(judged, estimates[len(models) :], strict=True)
        facts["blind"] = {judge.removeprefix(BLIND): estimate for judge, estimate in blind}
    for m, model in enumerate(models):
        facts[model] = estimates[m]
        tie_n = data.tie[model][row_n] & scored
        if definition.measure == "correct" and tie_n.any():
            both = np.stack([np.where(tie_n, 0.0, outcome_Mn[m]), np.where(tie_n, 1.0, outcome_Mn[m])])
            wrong, right = statistics.mean_of_cells(both, cell_n, weight_C)
            facts[model]["ties"] = {"n": int(tie_n.sum()), "wrong": _number(wrong), "right": _number(right)}
    if len(models) == 2:
        facts["difference"] = _difference(outcome_Mn[:2], value_M, drawn_RM, image_n, cell_n, weight_C, seed)
    leaked_n = data.leaked[row_n]
    if leaked_n.any():
        clean_M = statistics.mean_of_cells(np.where(leaked_n, np.nan, outcome_Mn), cell_n, weight_C)
        facts["clean"] = {"n": int((scored & ~leaked_n).sum())} | {
            model: _number(clean_M[m]) for m, model in enumerate(models)
        }
    return facts


def _difference(
    outcome_Mn: np.ndarray,
    value_M: np.ndarray,
    drawn_RM: np.ndarray,
    image_n: np.ndarray,
    cell_n: np.ndarray,
    weight_C: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    low, high = statistics.interval(drawn_RM[:, 1] - drawn_RM[:, 0])
    error = float(np.nanstd(drawn_RM[:, 1] - drawn_RM[:, 0])) if np.isfinite(drawn_RM).any() else float("nan")
    before_n, after_n = outcome_Mn
    won, lost = int(np.sum(after_n > before_n)), int(np.sum(after_n < before_n))
    p = statistics.paired_permutation(before_n, after_n, image_n, cell_n, weight_C, seed=seed)
    return {
        "value": _number(value_M[1] - value_M[0]),
        "low": _number(low),
        "high": _number(high),
        "p": _number(p),
        "won": won,
        "lost": lost,
        "mcnemar_p": _number(statistics.mcnemar(won, lost)),
        "detectable": _number(statistics.minimum_detectable_difference(error or float("nan"))),
    }


def _adjust(result: dict[str, dict[str, Any]]) -> None:
    """Holm over the subsets of each benchmark, in place."""
    families: dict[str, list[dict[str, Any]]] = {}
    for facts in result.values():
        if facts["subset"] and "difference" in facts:
            families.setdefault(facts["benchmark"], []).append(facts["difference"])
    for family in families.values():
        adjusted = statistics.holm([np.nan if one["p"] is None else one["p"] for one in family])
        for one, value in zip(family, adjusted, strict=True):
            one["p_holm"] = _number(value)


def _number(value: float) -> float | None:
    """JSON has no NaN: nothing scored is null. Nine digits, so that equal inputs give equal text everywhere."""
    return round(float(value), 9) if np.isfinite(value) else None
