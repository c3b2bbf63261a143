"""How sure a score is: intervals, paired tests and what a benchmark of this size can show at all.

Every estimate here is a weighted mean of cell means: a cell is a subset, a relation, an attribute pair or a class,
and a plain accuracy is the case of one cell. Rows that show the same image are not independent (93 % of SugarCrepe's
rows share theirs), so images, not rows, are drawn and flipped.

Shapes: M models · N rows · K images · C cells · R resamples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import binomtest, norm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 4_000_000


def mean_of_cells(outcome_MN: Floats, cell_N: Ints, weight_C: Floats) -> Floats:
    """The estimate of each model, [M]: sum over cells of weight · cell mean, weights rescaled to 1; NaN without rows.

    NaN outcomes (not scored) are left out of their cell; a cell that has none left is left out with its weight.
    """
    together_N = np.zeros(outcome_MN.shape[1], dtype=np.int64)
    estimate_RM = _estimate(np.ones((1, 1)), _by_image(outcome_MN, together_N, cell_N, len(weight_C)), weight_C)
    return estimate_RM.reshape(-1)


def bootstrap(
    outcome_MN: Floats, image_N: Ints, cell_N: Ints, weight_C: Floats, *, resamples: int = 2000, seed: int = 0
) -> Floats:
    """Draw images with replacement, all their rows at once, and estimate again; [R, M], the models side by side.

    Column differences are the bootstrap of a paired difference. Source: cluster bootstrap, Davison & Hinkley 1997, 3.8;
    why clusters: Miller, "Adding Error Bars to Evals", arXiv 2411.00640.
    """
    by_image = _by_image(outcome_MN, image_N, cell_N, len(weight_C))
    images = by_image[0][0].shape[0]
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, step := max(1, CHUNK // images)):
        size = min(step, resamples - start)
        picks = rng.integers(0, images, (size, images)) + np.arange(size)[:, None] * images
        times_RK = np.bincount(picks.ravel(), minlength=size * images).reshape(size, images).astype(float)
        drawn.append(_estimate(times_RK, by_image, weight_C))
    return np.concatenate(drawn)


def interval(drawn_R: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap draws; NaN where nothing was drawn."""
    finite = drawn_R[np.isfinite(drawn_R)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_at_bound(value: float, images: int, level: float = 0.95) -> tuple[float, float]:
    """Interval when all rows are right (1) or all wrong (0), where resampling finds nothing else: Clopper-Pearson.

    With the image as the unit, the other end is (1 - level)/2 to the power of 1 / images, away from the bound.
    """
    far = ((1 - level) / 2) ** (1 / images) if images else float("nan")
    return (far, 1.0) if value == 1 else (0.0, 1 - far)


def paired_permutation(
    before_N: Floats,
    after_N: Floats,
    image_N: Ints,
    cell_N: Ints,
    weight_C: Floats,
    *,
    flips: int = 9999,
    seed: int = 0,
) -> float:
    """Two-sided p of "no difference": the two models change places image by image; NaN without rows.

    Exact (all flips) up to 13 images that differ, else `flips` random ones with the usual (hits + 1) / (flips + 1).
    Source: Fisher's paired permutation test, clusters as units.
    """
    both = np.isfinite(before_N) & np.isfinite(after_N)
    if not both.any():
        return float("nan")
    count_C = np.bincount(cell_N[both], minlength=len(weight_C))
    share_C = np.where(count_C > 0, weight_C, 0) / np.maximum(count_C, 1)
    share_C = share_C / max(float(share_C @ count_C), 1e-300)
    part_K = np.bincount(image_N[both], weights=(after_N - before_N)[both] * share_C[cell_N[both]])
    part_K = part_K[np.abs(part_K) > 1e-12]
    observed = abs(float(part_K.sum())) - 1e-12
    if len(part_K) <= 13:
        signs = 1 - 2 * ((np.arange(2 ** len(part_K))[:, None] >> np.arange(len(part_K))) & 1)
        return float(np.mean(np.abs(signs @ part_K) >= observed))
    rng, hits = np.random.default_rng(seed), 0
    for start in range(0, flips, step := max(1, CHUNK // len(part_K))):
        size = min(step, flips - start)
        signs = rng.integers(0, 2, (size, len(part_K)), dtype=np.int8) * 2 - 1
        hits += int(np.sum(np.abs(signs @ part_K) >= observed))
    return (hits + 1) / (flips + 1)


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided McNemar p: of the rows on which two models differ, `won` turned right and `lost` turned wrong.

    It takes rows as independent, so with shared images it is sharper than the data; read it beside the permutation.
    """
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p values; NaN stays NaN and does not count."""
    values = np.asarray(p, dtype=float)
    order = [index for index in np.argsort(values) if np.isfinite(values[index])]
    adjusted, running = np.full(len(values), np.nan), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, float(values[index]) * (len(order) - rank)))
        adjusted[index] = running
    return [float(value) for value in adjusted]


def minimum_detectable_difference(standard_error: float, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference that a repeat of this comparison would call significant with that power.

    (z of the two-sided level + z of the power) · standard error of the paired difference (2.80 of them by default).
    """
    return float((norm.ppf((1 + level) / 2) + norm.ppf(power)) * standard_error)


def _by_image(
    outcome_MN: Floats, image_N: Ints, cell_N: Ints, cells: int
) -> list[tuple[sparse.csr_array, sparse.csr_array]]:
    """Per model: sum of outcomes and count of scored rows by image and cell, sparse [K, C] each."""
    shape = (int(image_N.max()) + 1 if image_N.size else 1, cells)

    def spread(values_N: Floats) -> sparse.csr_array:
        return sparse.coo_array((values_N, (image_N, cell_N)), shape=shape).tocsr()

    return [(spread(np.nan_to_num(row_N)), spread(np.isfinite(row_N).astype(float))) for row_N in outcome_MN]


def _estimate(times_RK: Floats, by_image: list[tuple[sparse.csr_array, sparse.csr_array]], weight_C: Floats) -> Floats:
    """The estimate of each model when image k counts times_RK[r, k] times, [R, M]."""
    estimates = []
    for sums_KC, count_KC in by_image:
        sums_RC, count_RC = times_RK @ sums_KC, times_RK @ count_KC
        weight_RC = (count_RC > 0) * weight_C
        total_R = weight_RC.sum(1)
        mean_R = (weight_RC * sums_RC / np.maximum(count_RC, 1)).sum(1)
        estimates.append(np.divide(mean_R, total_R, out=np.full(total_R.shape, np.nan), where=total_R > 0))
    return np.stack(estimates, axis=1)
