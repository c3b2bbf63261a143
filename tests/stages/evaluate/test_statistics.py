import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from stages.evaluate import statistics


def one_cell(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(n, dtype=np.int64), np.ones(1)


def test_mean_of_cells_weighs_cells_not_rows() -> None:
    outcome = np.array([[1, 1, 1, 0, np.nan], [0, 0, 0, 1, 1.0]])
    cell = np.array([0, 0, 0, 1, 1])
    assert statistics.mean_of_cells(outcome, cell, np.array([0.5, 0.5])).tolist() == [0.5, 0.5]
    assert statistics.mean_of_cells(outcome, cell, np.array([0.75, 0.25])).tolist() == [0.75, 0.25]


def test_a_cell_without_scored_rows_is_left_out_and_nothing_scored_is_nan() -> None:
    outcome = np.array([[1.0, np.nan]])
    cell, weight = np.array([0, 1]), np.array([0.5, 0.5])
    assert statistics.mean_of_cells(outcome, cell, weight).tolist() == [1.0]
    assert np.isnan(statistics.mean_of_cells(np.full((1, 2), np.nan), cell, weight)).all()


def test_bootstrap_of_independent_rows_is_the_binomial() -> None:
    outcome = np.repeat([1.0, 0.0], [70, 30])[None]
    drawn = statistics.bootstrap(outcome, np.arange(100), *one_cell(100), resamples=20_000)[:, 0]
    assert drawn.std() == pytest.approx(np.sqrt(0.7 * 0.3 / 100), rel=0.03)
    low, high = statistics.interval(drawn)
    assert (low, high) == pytest.approx(binom.ppf([0.025, 0.975], 100, 0.7) / 100, abs=0.011)


def test_rows_of_one_picture_count_as_one() -> None:
    """Ten equal rows per picture say no more than one: the interval is as wide as that of the pictures alone."""
    alone = np.repeat([1.0, 0.0], [14, 6])[None]
    tenfold = np.repeat(alone, 10, axis=1)
    pictures = np.repeat(np.arange(20), 10)
    narrow = statistics.bootstrap(tenfold, np.arange(200), *one_cell(200), resamples=4000)
    wide = statistics.bootstrap(tenfold, pictures, *one_cell(200), resamples=4000)
    expected = statistics.bootstrap(alone, np.arange(20), *one_cell(20), resamples=4000)
    assert wide.std() == pytest.approx(expected.std(), rel=0.05)
    assert wide.std() > 2.5 * narrow.std()


def test_bootstrap_matches_a_loop_over_resamples() -> None:
    rng = np.random.default_rng(1)
    outcome = rng.integers(0, 2, (2, 40)).astype(float)
    outcome[:, 3] = np.nan
    picture, cell, weight = rng.integers(0, 9, 40), rng.integers(0, 3, 40), np.array([0.2, 0.3, 0.5])
    picture[:9] = np.arange(9)
    drawn = statistics.bootstrap(outcome, picture, cell, weight, resamples=5, seed=7)
    picks = np.random.default_rng(7).integers(0, 9, (5, 9))
    for r, m in itertools.product(range(5), range(2)):
        value = total = 0.0
        for c in range(3):
            seen = [outcome[m, n] for k in picks[r] for n in range(40) if picture[n] == k and cell[n] == c]
            seen = [one for one in seen if np.isfinite(one)]
            if seen:
                value, total = value + weight[c] * sum(seen) / len(seen), total + weight[c]
        assert drawn[r, m] == pytest.approx(value / total)


def test_same_seed_same_interval() -> None:
    outcome = np.array([[1.0, 0, 1, 1, 0]])
    draws = [statistics.bootstrap(outcome, np.arange(5), *one_cell(5), resamples=50, seed=s) for s in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("k", [3, 20, 100])
def test_all_right_is_not_certain(k: int) -> None:
    assert statistics.interval_at_bound(1.0, k) == pytest.approx((beta.ppf(0.025, k, 1), 1.0))
    assert statistics.interval_at_bound(0.0, k) == pytest.approx((0.0, beta.ppf(0.975, 1, k)))


@given(st.integers(0, 12), st.integers(0, 12))
@settings(deadline=None)
def test_permutation_of_single_row_pictures_is_mcnemar(won: int, lost: int) -> None:
    """With one row per picture both tests are the sign test on the rows that differ."""
    if won + lost > 13:
        won, lost = won // 2, lost // 2
    before = np.repeat([0.0, 1.0, 1.0], [won, lost, 4])
    after = np.repeat([1.0, 0.0, 1.0], [won, lost, 4])
    n = len(before)
    p = statistics.paired_permutation(before, after, np.arange(n), *one_cell(n))
    assert p == pytest.approx(statistics.mcnemar(won, lost))


def test_permutation_agrees_with_its_random_version_and_sees_clusters() -> None:
    before, after = np.zeros(28), np.repeat([1.0, 0.0], [14, 14])
    alone = statistics.paired_permutation(before, after, np.arange(28), *one_cell(28))
    assert alone == pytest.approx(2 / 2**14, abs=3e-4)
    together = statistics.paired_permutation(before, after, np.repeat(np.arange(4), 7), *one_cell(28))
    assert together == 0.5  # two pictures differ, and 2 of 4 sign patterns are as extreme


def test_permutation_without_rows_is_nan() -> None:
    nothing = np.full(3, np.nan)
    assert np.isnan(statistics.paired_permutation(nothing, nothing, np.arange(3), *one_cell(3)))


def test_mcnemar_known_values() -> None:
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(10, 2) == pytest.approx(0.03857, abs=1e-5)
    assert statistics.mcnemar(2, 10) == statistics.mcnemar(10, 2)


def test_holm_known_values() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = statistics.holm([0.5, float("nan"), 0.01])
    assert adjusted[0] == 0.5 and np.isnan(adjusted[1]) and adjusted[2] == 0.02


def test_minimum_detectable_difference_is_found_with_the_stated_power() -> None:
    error = 0.02
    difference = statistics.minimum_detectable_difference(error)
    assert difference == pytest.approx(2.8016 * error, rel=1e-3)
    found = np.abs(np.random.default_rng(0).normal(difference, error, 100_000)) > 1.96 * error
    assert found.mean() == pytest.approx(0.8, abs=0.01)
