"""How much better one method is than another, over test rows and seeds of training at once.

Shapes: S seeds · N rows of the scores table.
"""

from collections.abc import Collection, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.stats import norm, t

from pipeline.schema import SCORES
from stages.benchmarks.means import Aggregate, Present
from stages.evaluate.aggregates import aggregate, definitions


class Scored(NamedTuple):
    """One training: rows of the scores table for one model, and its aggregates by name."""

    rows: pa.Table
    values: Mapping[str, float | None]


def difference(
    ours: Sequence[Scored],
    theirs: Sequence[Scored],
    names: Collection[str],
    *,
    level: float = 0.95,
) -> dict[str, dict[str, float | None]]:
    """The mean of ours minus theirs under each name, with an interval for new seeds and new test rows alike.

    The variances add: of the seed-averaged difference over rows (by image and texts, statistics.py), and of the
    differences between seeds over S; the interval is Student's with Welch and Satterthwaite's degrees of freedom, and
    with one seed it is as wide as that of the rows alone. Source: Miller, "Adding Error Bars to Evals", arXiv
    2411.00640, 2.1 and 4.

    Args:
        ours: one training per seed.
        theirs: the same seeds in the same order, on the same rows.
        names: aggregates; those read from similarities (R@5, top-5, group scores) are left out.
        level: of the interval.

    Returns name -> {value, low, high, rows: standard error over rows, seeds: over seeds, None for one seed}. Raises
    ValueError when rows differ.
    """

    def define(present: Present) -> list[Aggregate]:
        return [one for one in definitions(present) if one.name in names and one.measure == "correct"]

    both = pa.concat_tables([_averaged(theirs, "before"), _averaged(ours, "after")])
    found = {}
    for name, facts in aggregate(both, define=define).items():
        one: Mapping[str, Any] = facts["difference"]
        if one["value"] is None:
            continue
        gaps = [_gap(a.values[name], b.values[name]) for a, b in zip(ours, theirs, strict=True)]
        seeds = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else None
        half = _half_width(one["error"], seeds, len(gaps), level)
        found[name] = {
            "value": mean(gaps),
            "low": mean(gaps) - half,
            "high": mean(gaps) + half,
            "rows": one["error"],
            "seeds": seeds,
        }
    return found


def _gap(one: float | None, other: float | None) -> float:
    return float("nan") if one is None or other is None else one - other


def _half_width(rows: float, seeds: float | None, count: int, level: float) -> float:
    """Student's quantile times the standard error of rows and seeds together; that of rows knows its own freedom."""
    if not seeds:
        return float(norm.ppf((1 + level) / 2)) * rows
    variance = rows**2 + seeds**2
    return float(t.ppf((1 + level) / 2, (count - 1) * variance**2 / seeds**4) * variance**0.5)


def _averaged(trainings: Sequence[Scored], model: str) -> pa.Table:
    """The rows under another model's name, each as often right as over the seeds; not scored once is not scored."""
    first = trainings[0].rows
    keys = ("benchmark", "subset", "row_id", "protocol")
    for other in trainings[1:]:
        if any(first[key].to_pylist() != other.rows[key].to_pylist() for key in keys):
            raise ValueError("trainings that were scored on different rows cannot be averaged")
    correct_N = np.mean([np.asarray(one.rows["correct"], dtype=np.float64) for one in trainings], axis=0)
    named = first.set_column(first.schema.get_field_index("model"), "model", pa.array([model] * len(first)))
    return named.set_column(named.schema.get_field_index("correct"), "correct", pa.array(correct_N)).cast(SCORES)
