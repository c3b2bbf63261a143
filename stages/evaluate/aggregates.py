"""Aggregates of a scores table: every named mean with its interval, and what changed between two models.

Which means there are, and under which names, each benchmark says beside its reader (stages/benchmarks).

Shapes: M models · N rows of the table · n rows of one aggregate · C cells.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.benchmarks.loaders import BENCHMARKS
from stages.benchmarks.means import RANKS, SIDES, Aggregate, Cells, Present, Selector, heads, nested, pairwise
from stages.evaluate import statistics
from stages.evaluate.rows import BLIND
from stages.evaluate.statistics import Design, Floats, Ints, estimate

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
    parts: dict[str, list[Cells]] = {}
    for name in COMPOSITION:
        seen = heads(one for one in made.get(name, ()) if not one.told_by_text)
        parts |= {name: seen} if seen else {}
    if parts:
        counted = ", ".join(f"{name} ({len(part)})" for name, part in parts.items())
        says = f"plain mean of benchmarks, each the mean of its files or sets: {counted}"
        cells = nested(list(parts.values()))
        found.insert(0, Aggregate("composition", says, cells, headline="composition"))
    return found


def outcomes(similarities: pa.ListArray, measure: str) -> Floats:
    """1, 0 or NaN per row under a measure that is read from the similarities."""
    found = SIDES.get(measure) or (lambda s: len(s) <= RANKS[measure] or s[0] > s[RANKS[measure]])
    read = (found(values) if values else np.nan for values in similarities.to_pylist())
    return np.fromiter(read, dtype=np.float64, count=len(similarities))


def aggregate(
    scores: pa.Table,
    *,
    seed: int = 0,
    define: Callable[[Present], list[Aggregate]] = definitions,
) -> dict[str, dict[str, Any]]:
    """Every aggregate of a scores table with intervals; of the models before and after, also the paired difference.

    Args:
        scores: rows of the scores table.
        seed: of the permutations.
        define: says which aggregates there are, given (benchmark, subset) -> groups.

    Returns name -> {benchmark, subset, subsets (how many), says, measure, chance, headline, n (rows that every model
    scored), of (all rows under that name), pictures and texts (how many clusters of each), <model>: {value, low, high,
    ties: the value if ties were wrong or right}, difference: {value, low, high, error, p, p_holm, won, lost, mcnemar_p,
    detectable}, clean: values without leaked rows, blind: {judge: {value, low, high}} over the very rows that the
    models were scored on, without judges that abstain on one of them}. Values are shares in 0..1; None = nothing
    scored. Intervals, `error` and `p` are those of statistics.py; `p_holm` adjusts p over the subsets of one benchmark.
    Raises ValueError when two models have different rows.
    """
    names = sorted(set(scores["model"].unique().to_pylist()))
    judges = [name for name in names if name.startswith(BLIND)]
    models = [name for name in ("before", "after") if name in names] or [name for name in names if name not in judges]
    if not models:
        models, judges = judges, []
    data = _columns(scores, models, judges)
    rows_of = _index(data)
    scored_N = np.logical_and.reduce([np.isfinite(data.correct[model]) for model in models])
    whole = {one.name: one for one in define(_present(rows_of))}
    # A mean's name and rule then say what it is over. A subset of which nothing was scored still has its score: none.
    found = {one.name: one for one in define(_present(rows_of, scored_N))}
    there = {(one.benchmark, one.subset) for one in found.values()}
    found |= {name: one for name, one in whole.items() if one.subset and (one.benchmark, one.subset) not in there}
    result = {}
    for name, definition in found.items():
        asked = whole.get(name, definition)
        result[name] = _estimate(definition, data, rows_of, models, judges, seed)
        result[name] |= {"of": sum(len(rows_of[one]) for one in asked.selectors), "chance": asked.chance}
    _adjust(result)
    return result


def _present(rows_of: Mapping[Selector, Ints], scored_N: NDArray[np.bool_] | None = None) -> Present:
    """The subsets and their groups, all or those of which a row was scored."""
    present: dict[tuple[str, str], set[str]] = {}
    for (benchmark, subset, group), rows in rows_of.items():
        if scored_N is None or scored_N[rows].any():
            present.setdefault((benchmark, subset), set()).update([group] if group else [])
    return present


@dataclass(frozen=True)
class _Data:
    keys: list[tuple[str, str]]
    groups: list[str | None]
    image: Ints
    texts: Ints
    leaked: NDArray[np.bool_]
    correct: dict[str, Floats]
    tie: dict[str, NDArray[np.bool_]]
    similarities: dict[str, pa.ListArray]


def _columns(scores: pa.Table, models: list[str], judges: list[str]) -> _Data:
    """The rows of each model side by side; NaN where a judge has none. Raises ValueError when two models differ."""
    parts = {m: scores.filter(pc.equal(scores["model"].cast(pa.string()), m)) for m in (*models, *judges)}
    first = parts[models[0]]
    keys = _keys(first)
    for m in models[1:]:
        if _keys(parts[m]) != keys:
            raise ValueError(f"{models[0]} and {m} have different rows or protocols and cannot be compared")
    return _Data(
        keys=list(zip(first["benchmark"].to_pylist(), first["subset"].to_pylist(), strict=True)),
        groups=first["group"].to_pylist(),
        image=_numbered(first["image_key"]),
        texts=_numbered(first["texts_key"]),
        leaked=np.asarray(first["leaked"].to_pylist(), dtype=bool),
        correct={m: np.asarray(parts[m]["correct"], dtype=np.float64) for m in models}
        | {judge: _beside(parts[judge], keys) for judge in judges},
        tie={m: np.asarray(parts[m]["tie"].to_pylist(), dtype=bool) for m in models},
        similarities={m: parts[m]["similarities"].combine_chunks() for m in models},
    )


def _numbered(keys: pa.ChunkedArray) -> Ints:
    """Equal keys get equal numbers; none gets a number of its own."""
    number_N = keys.combine_chunks().dictionary_encode().indices
    own_N = np.arange(len(keys), 2 * len(keys))
    return np.where(np.asarray(number_N.is_null()), own_N, np.asarray(number_N.fill_null(0))).astype(np.int64)


def _keys(rows: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in ("benchmark", "subset", "row_id", "protocol")), strict=True))


def _beside(judged: pa.Table, keys: list[tuple[str, ...]]) -> Floats:
    """What a judge has for each of the rows with these keys; NaN for none."""
    found = dict(zip(_keys(judged), judged["correct"].to_pylist(), strict=True))
    return np.fromiter((found.get(key, np.nan) for key in keys), dtype=np.float64, count=len(keys))


def _index(data: _Data) -> dict[Selector, Ints]:
    rows: dict[Selector, list[int]] = {}
    for index, (key, group) in enumerate(zip(data.keys, data.groups, strict=True)):
        rows.setdefault((*key, None), []).append(index)
        if group:
            rows.setdefault((*key, group), []).append(index)
    return {selector: np.asarray(found, dtype=np.int64) for selector, found in rows.items()}


def _estimate(
    definition: Aggregate,
    data: _Data,
    rows_of: Mapping[Selector, Ints],
    models: list[str],
    judges: list[str],
    seed: int,
) -> dict[str, Any]:
    chosen = [np.concatenate([rows_of[selector] for selector in rows]) for rows, _ in definition.cells]
    row_n, cell_n = np.concatenate(chosen), np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    if definition.measure == "correct":
        outcome_Mn = np.stack([data.correct[model][row_n] for model in models])
    else:
        kept = pa.array(row_n)
        outcome_Mn = np.stack([outcomes(data.similarities[model].take(kept), definition.measure) for model in models])
    scored_n = np.isfinite(outcome_Mn).all(axis=0)
    row_n, cell_n, outcome_Mn = row_n[scored_n], cell_n[scored_n], outcome_Mn[:, scored_n]
    weight_C = np.asarray([weight for _, weight in definition.cells])
    design = Design(cell_n, weight_C, data.image[row_n], data.texts[row_n])
    facts: dict[str, Any] = {
        "benchmark": definition.benchmark,
        "subset": definition.subset,
        "subsets": len({selector[:2] for selector in definition.selectors}),
        "says": definition.says,
        "measure": definition.measure,
        "headline": definition.headline,
        "n": len(row_n),
        "pictures": len(np.unique(design.image_N)),
        "texts": len(np.unique(design.texts_N)),
    }
    for model, outcome_n in zip(models, outcome_Mn, strict=True):
        facts[model] = _level(outcome_n, design)
        tie_n = data.tie[model][row_n]
        if definition.measure == "correct" and tie_n.any():
            wrong, right = design.mean(np.stack([np.where(tie_n, 0.0, outcome_n), np.where(tie_n, 1.0, outcome_n)]))
            facts[model]["ties"] = {"n": int(tie_n.sum()), "wrong": _number(wrong), "right": _number(right)}
    if len(models) == 2:
        facts["difference"] = _difference(outcome_Mn, design, seed)
    for judge in judges if definition.measure == "correct" and row_n.size else ():
        outcome_n = data.correct[judge][row_n]
        if np.isfinite(outcome_n).all():
            facts.setdefault("blind", {})[judge.removeprefix(BLIND)] = _level(outcome_n, design)
    leaked_n = data.leaked[row_n]
    if leaked_n.any():
        clean = Design(cell_n[~leaked_n], weight_C, data.image[row_n[~leaked_n]], data.texts[row_n[~leaked_n]])
        value_M = clean.mean(outcome_Mn[:, ~leaked_n])
        facts["clean"] = {"n": int((~leaked_n).sum())} | {
            model: _number(value) for model, value in zip(models, value_M, strict=True)
        }
    return facts


def _level(outcome_n: Floats, design: Design) -> dict[str, Any]:
    found = estimate(outcome_n, design)
    return {"value": _number(found.value), "low": _number(found.low), "high": _number(found.high)}


def _difference(outcome_Mn: Floats, design: Design, seed: int) -> dict[str, Any]:
    before_n, after_n = outcome_Mn
    found = estimate(after_n - before_n, design, statistics.DIFFERENCE)
    won, lost = int(np.sum(after_n > before_n)), int(np.sum(after_n < before_n))
    return {
        "value": _number(found.value),
        "low": _number(found.low),
        "high": _number(found.high),
        "error": _number(found.error),
        "p": _number(statistics.paired_permutation(after_n - before_n, design, seed=seed)),
        "won": won,
        "lost": lost,
        "mcnemar_p": _number(statistics.mcnemar(won, lost)),
        "detectable": _number(statistics.minimum_detectable_difference(found.error)),
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
