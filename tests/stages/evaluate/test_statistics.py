"""Intervals that hold and tests that reject no more often than they say, by known values and by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from benchmarks.intervals import Case, simulate
from stages.evaluate import statistics
from stages.evaluate.statistics import ACCURACY, DIFFERENCE, Design, estimate


def design(image: object, texts: object = None, cell: object = None, weight: object = (1.0,)) -> Design:
    """Every row has its own texts, and all are of one cell, unless others are given."""
    image_N = np.asarray(image)
    rows = np.arange(len(image_N))
    return Design(
        np.zeros(len(image_N), dtype=np.int64) if cell is None else np.asarray(cell),
        np.asarray(weight, dtype=float),
        image_N,
        rows if texts is None else np.asarray(texts),
    )


def width(outcome: object, rows: Design, ends: tuple[float, float] = ACCURACY) -> float:
    found = estimate(np.asarray(outcome, dtype=float), rows, ends)
    return found.high - found.low


def test_the_mean_weighs_cells_not_rows() -> None:
    outcome = np.array([[1, 1, 1, 0], [0, 0, 0, 1.0]])
    for weight, expected in (((0.5, 0.5), [0.5, 0.5]), ((0.75, 0.25), [0.75, 0.25])):
        assert design(range(4), cell=[0, 0, 0, 1], weight=weight).mean(outcome) == pytest.approx(expected)


def test_a_cell_without_rows_is_left_out_and_nothing_scored_is_nan() -> None:
    assert design([0], cell=[0], weight=(0.5, 0.5)).mean(np.array([[1.0]])) == pytest.approx([1.0])
    nothing = design([], cell=np.zeros(0, dtype=np.int64))
    assert np.isnan(nothing.mean(np.zeros((2, 0)))).all()
    assert np.isnan(estimate(np.zeros(0), nothing)).all()
    assert np.isnan(statistics.paired_permutation(np.zeros(0), nothing))


@pytest.mark.parametrize("right", [0, 1, 30, 50, 99, 100])
def test_of_independent_rows_the_interval_is_agresti_and_coulls_with_students_t(right: int) -> None:
    found = estimate(np.repeat([1.0, 0.0], [right, 100 - right]), design(range(100)))
    quantile = t.ppf(0.975, 99)
    # The jackknife's variance of a mean has n - 1 below, so 100 rows are as sure as 99; all alike they are 100.
    rows = 99 if 0 < right < 100 else 100
    share = (rows * right / 100 + quantile**2 / 2) / (rows + quantile**2)
    half = quantile * (share * (1 - share) / (rows + quantile**2)) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx(
        (right / 100, max(0, share - half), min(1, share + half))
    )
    assert found.error == pytest.approx(half / norm.ppf(0.975))


def test_nothing_is_certain_where_all_rows_agree() -> None:
    for rows in (1, 2, 5, 30, 1000):
        for outcome, ends in ((0.0, ACCURACY), (1.0, ACCURACY), (0.0, DIFFERENCE), (1.0, DIFFERENCE)):
            found = estimate(np.full(rows, outcome), design(range(rows)), ends)
            assert ends[0] <= found.low <= found.value <= found.high <= ends[1]
            assert found.high - found.low > min(0.99, 2.7 / rows), "about the rule of three, at least"


def test_rows_of_one_image_or_of_the_same_texts_count_as_one() -> None:
    """Ten equal rows per cluster say no more than one: the interval is that of the clusters alone."""
    alone, tenfold, cluster = np.repeat([1.0, 0.0], [14, 6]), np.repeat([1.0, 0.0], [140, 60]), np.repeat(range(20), 10)
    expected = estimate(alone, design(range(20)))
    for rows in (design(cluster), design(range(200), texts=cluster), design(cluster, texts=cluster)):
        assert estimate(tenfold, rows) == pytest.approx(expected)
    assert width(tenfold, design(range(200))) < width(alone, design(range(20))) / 2.5


def test_an_image_that_is_right_as_often_as_wrong_does_not_narrow_the_interval() -> None:
    outcome = np.tile([1.0, 0.0], 50)
    assert width(outcome, design(np.repeat(range(50), 2))) >= width(outcome, design(range(100)))


def test_one_set_of_texts_says_nothing_of_others() -> None:
    found = estimate(np.tile([1.0, 0.0, 1.0], 100), design(range(300), texts=np.zeros(300, dtype=np.int64)))
    assert found.low < 0.01 and found.high > 0.99


def test_both_ways_of_clustering_add_up() -> None:
    """Each image and each set of texts shifts its rows: wider than either alone."""
    rng = np.random.default_rng(0)
    image, texts = np.repeat(range(40), 40), np.tile(range(40), 40)
    outcome = (rng.standard_normal(40)[image] + rng.standard_normal(40)[texts] < 0).astype(float)
    one, other = (width(outcome, design(image)) ** 2, width(outcome, design(range(1600), texts=texts)) ** 2)
    assert width(outcome, design(image, texts)) ** 2 == pytest.approx(one + other, rel=0.1)


def test_the_jackknife_matches_a_loop_that_leaves_out_a_cluster() -> None:
    rng = np.random.default_rng(1)
    outcome, image, cell = rng.integers(0, 2, 40).astype(float), rng.integers(0, 9, 40), rng.integers(0, 4, 40)
    image[:9], cell[:4] = np.arange(9), [0, 1, 2, 2]
    cell[cell == 3] = 0
    cell[5] = 3  # the only row of its cell: without its image, the cell is gone
    weight = np.array([0.1, 0.2, 0.3, 0.4])

    def mean(kept: np.ndarray) -> float:
        value = total = 0.0
        for c in range(4):
            if (kept & (cell == c)).any():
                value, total = value + weight[c] * outcome[kept & (cell == c)].mean(), total + weight[c]
        return value / total

    whole = mean(np.full(40, True))
    expected = 8 / 9 * sum((mean(image != k) - whole) ** 2 for k in range(9))
    by_image, _, _ = design(image, cell=cell, weight=weight).clusters
    assert by_image.jackknife(outcome) == pytest.approx(expected)


COVERAGE = [
    Case(0.97, images=30),
    Case(0.97, images=100),
    Case(0.8, images=100, per_image=5, image_effect=0.3),
    Case(0.97, images=100, per_image=5, image_effect=0.3),
    Case(0.5, images=200, per_image=2, texts=20, texts_effect=0.3),
    Case(0.8, images=200, per_image=2, texts=20, image_effect=0.3, texts_effect=0.3),
    Case(0.5, images=20, per_image=20, texts=20, image_effect=0.3, texts_effect=0.3),
    Case(0.03, 0.03, images=30),
    Case(0.03, 0.03, images=100),
    Case(0.1, 0.05, images=100, per_image=5, image_effect=0.3),
    Case(0.2, 0.1, images=200, per_image=2, texts=20, image_effect=0.3, texts_effect=0.3),
]


@pytest.mark.parametrize("case", COVERAGE, ids=str)
def test_the_interval_holds_the_truth_in_95_of_100_benchmarks_or_more(case: Case) -> None:
    """600 seeded benchmarks; the standard error of the share is 0.9 of 100."""
    found = simulate(case, 600)
    assert found.covered >= 0.93
    if case.images * case.per_image >= 400:
        assert found.covered <= 0.98, "and is no wider than it must be"


@pytest.mark.parametrize(
    "case",
    [
        Case(0.1, 0.1, images=100),
        Case(0.1, 0.1, images=40, per_image=5, image_effect=0.5),
        Case(0.1, 0.1, images=200, per_image=2, texts=8, texts_effect=0.5),
        Case(0.1, 0.1, images=20, per_image=20, texts=20, image_effect=0.4, texts_effect=0.4),
    ],
    ids=str,
)
def test_a_true_null_is_rejected_no_more_often_than_in_5_of_100(case: Case) -> None:
    found = simulate(case, 400)
    assert found.rejected is not None and found.rejected <= 0.07


def test_a_model_of_random_weights_is_not_below_guessing() -> None:
    """It prefers one text of a pair whatever the image: eight pairs decide four hundred rows."""
    rng, sure = np.random.default_rng(0), 0
    for _ in range(200):
        texts = np.repeat(range(8), 50)
        found = estimate(rng.integers(0, 2, 8)[texts].astype(float), design(range(400), texts))
        sure += found.high < 0.5
    assert sure <= 0.05 * 200


@given(st.integers(0, 12), st.integers(0, 12))
@settings(deadline=None)
def test_permutation_of_single_rows_is_mcnemar(won: int, lost: int) -> None:
    """With one row per image and texts both tests are the sign test on the rows that differ."""
    if won + lost > 13:
        won, lost = won // 2, lost // 2
    difference = np.repeat([1.0, -1.0, 0.0], [won, lost, 4])
    p = statistics.paired_permutation(difference, design(range(len(difference))))
    assert p == pytest.approx(statistics.mcnemar(won, lost))


def test_permutation_agrees_with_its_random_version_and_sees_clusters() -> None:
    difference = np.repeat([1.0, 0.0], [14, 14])
    alone = statistics.paired_permutation(difference, design(range(28)))
    assert alone == pytest.approx(2 / 2**14, abs=3e-4)
    four = np.repeat(range(4), 7)
    for rows in (design(four), design(range(28), texts=four)):
        assert statistics.paired_permutation(difference, rows) == 0.5  # of 4 sign patterns 2 are as extreme


def test_p_is_higher_where_images_and_texts_both_turn_rows() -> None:
    rng = np.random.default_rng(4)
    image, texts = np.repeat(range(20), 20), np.tile(range(20), 20)
    z = rng.standard_normal(20)[image] + rng.standard_normal(20)[texts] + 0.8
    difference = (z > 1).astype(float) - (z < -1)
    by_image, by_texts, by_both = (
        statistics.paired_permutation(difference, rows)
        for rows in (design(image), design(range(400), texts=texts), design(image, texts))
    )
    assert by_both > 1.2 * max(by_image, by_texts)


def test_permutation_weighs_cells_as_the_estimate_does() -> None:
    """A loop over all signs of the images' parts, for cells of unlike size and weight."""
    difference, image = np.array([1.0, 1, -1, 0, 1, -1, 1]), np.array([0, 0, 1, 2, 3, 4, 4])
    share = np.array([0.2 / 4] * 4 + [0.8 / 3] * 3)
    part = np.bincount(image, difference * share)
    expected = np.mean(
        [abs(np.dot(signs, part)) >= abs(part.sum()) - 1e-12 for signs in itertools.product((1, -1), repeat=5)]
    )
    rows = design(image, texts=image, cell=[0] * 4 + [1] * 3, weight=(0.2, 0.8))
    assert statistics.paired_permutation(difference, rows) == pytest.approx(expected)


def test_the_same_seed_gives_the_same_p() -> None:
    difference = np.repeat([1.0, -1.0], [40, 25])
    same, again, other = (statistics.paired_permutation(difference, design(range(65)), seed=s) for s in (1, 1, 2))
    assert same == again != other


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
