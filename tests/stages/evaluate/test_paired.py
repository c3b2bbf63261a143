"""Paired differences of methods: the value is the plain mean, the interval knows rows and seeds."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import t

from pipeline.schema import SCORES
from stages.evaluate.paired import Scored, difference

NAMES = ("sugarcrepe.swap_att",)


def scored(correct: np.ndarray) -> Scored:
    rows = [
        {"model": "after", "benchmark": "sugarcrepe", "subset": "swap_att", "row_id": str(i), "image_key": str(i),
         "group": None, "similarities": [1.0, 0.0], "correct": float(right), "tie": False, "leaked": False,
         "protocol": "p"}
        for i, right in enumerate(correct)
    ]  # fmt: skip
    return Scored(pa.Table.from_pylist(rows, SCORES), {"sugarcrepe.swap_att": float(correct.mean())})


def trainings(rng: np.random.Generator, effects: list[float], rows: int = 200) -> list[Scored]:
    """One training per effect: the chance to be right on each row."""
    return [scored(rng.random(rows) < effect) for effect in effects]


def test_the_value_is_the_mean_over_seeds_and_more_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = trainings(rng, [0.9, 0.9, 0.9]), trainings(rng, [0.6, 0.6, 0.6])
    found = difference(ours, theirs, NAMES)["sugarcrepe.swap_att"]
    gaps = [a.values[NAMES[0]] - b.values[NAMES[0]] for a, b in zip(ours, theirs, strict=True)]  # type: ignore[operator]
    assert found["value"] == pytest.approx(np.mean(gaps))
    assert found["seeds"] == pytest.approx(np.std(gaps, ddof=1) / 3**0.5)
    wild = difference(ours, trainings(rng, [0.4, 0.6, 0.8]), NAMES)["sugarcrepe.swap_att"]
    assert wild["high"] - wild["low"] > 2 * (found["high"] - found["low"])  # type: ignore[operator]


def test_one_seed_has_the_interval_of_its_rows() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = trainings(rng, [0.8]), trainings(rng, [0.7])
    found = difference(ours, theirs, NAMES)["sugarcrepe.swap_att"]
    gap = np.asarray(ours[0].rows["correct"], float) - np.asarray(theirs[0].rows["correct"], float)
    error = gap.std(ddof=1) / len(gap) ** 0.5
    assert found["seeds"] is None and found["rows"] == pytest.approx(error, rel=0.1)
    half = (found["high"] - found["low"]) / 2  # type: ignore[operator]
    assert half == pytest.approx(t.ppf(0.975, 199) * error, rel=0.1)


def test_the_interval_holds_the_true_difference_about_95_times_in_100() -> None:
    """Rows and seeds drawn anew: seeds shift a method's level by a deviation of 3 points, rows are coins."""
    rng, held, repeats = np.random.default_rng(2), 0, 120
    for _ in range(repeats):
        ours = trainings(rng, list(0.75 + 0.03 * rng.standard_normal(3)), 150)
        theirs = trainings(rng, list(0.65 + 0.03 * rng.standard_normal(3)), 150)
        found = difference(ours, theirs, NAMES)["sugarcrepe.swap_att"]
        held += found["low"] <= 0.1 <= found["high"]  # type: ignore[operator]
    assert 0.90 <= held / repeats <= 1.0


def test_other_rows_and_names_are_not_compared() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = trainings(rng, [0.8], 20), trainings(rng, [0.8], 21)
    with pytest.raises(ValueError, match="different rows"):
        difference(ours, theirs, NAMES)
    with pytest.raises(ValueError, match="different rows"):
        difference([*ours, *theirs], [*ours, *theirs], NAMES)
    assert difference(ours, ours, ()) == {}
