"""How sure a score is: intervals, paired tests and what a benchmark of this size can show at all.

Every estimate here is a weighted mean of cell means: a cell is a subset, a relation, an attribute pair or a class,
and a plain accuracy is the case of one cell. Rows that show the same image are not independent (93 % of SugarCrepe's
rows share theirs), and neither are rows that ask about the same texts: a model that prefers one text to another does so
on every image. So a row is in two clusters, that of its image and that of its texts.

Shapes: M models · N rows · C cells · K clusters · P pairs of cluster and cell that share a row.
"""

# ruff: noqa: N815 - shapes are suffixes of names here, also of fields

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 4_000_000
ACCURACY = (0.0, 1.0)
DIFFERENCE = (-1.0, 1.0)
"""Least and greatest outcome of a row."""


class Estimate(NamedTuple):
    """A value with its 95 % interval.

    Attributes:
        value: what was found; NaN without rows.
        low, high: the interval.
        error: standard error that a normal interval of this width would have.
    """

    value: float
    low: float
    high: float
    error: float


@dataclass(frozen=True)
class Design:
    """How rows are averaged, and which of them hang together.

    Attributes:
        cell_N: cell of each row.
        weight_C: of each cell; a cell without rows is left out, and the other weights rescaled to sum to 1.
        image_N, texts_N: cluster of each row, by its image and by its texts; any numbers from 0.
    """

    cell_N: Ints
    weight_C: Floats
    image_N: Ints
    texts_N: Ints

    @cached_property
    def share_N(self) -> Floats:  # noqa: N802 - shapes are suffixes of names here
        """What each row is of the estimate; they sum to 1."""
        count_C = np.bincount(self.cell_N, minlength=len(self.weight_C))
        weight_C = np.where(count_C > 0, self.weight_C, 0.0)
        share_N: Floats = (weight_C / np.maximum(count_C, 1) / max(weight_C.sum(), 1e-300))[self.cell_N]
        return share_N

    def mean(self, outcome_MN: Floats) -> Floats:
        """The estimate of each model, [M]: the sum over cells of weight · cell mean; NaN without rows."""
        return outcome_MN @ self.share_N if self.cell_N.size else np.full(outcome_MN.shape[:-1], np.nan)

    @cached_property
    def clusters(self) -> "tuple[Clusters, Clusters, Clusters]":
        """By image, by texts, and by both at once."""
        both_N = self.image_N * (int(self.texts_N.max(initial=0)) + 1) + self.texts_N
        image, texts, both = (Clusters(self, cluster_N) for cluster_N in (self.image_N, self.texts_N, both_N))
        return image, texts, both


class Clusters:
    """One way of clustering the rows of a design."""

    def __init__(self, design: Design, cluster_N: Ints) -> None:
        _, self.of_N = np.unique(cluster_N, return_inverse=True)
        self.design, self.cells = design, len(design.weight_C)
        pair_P, self.pair_N = np.unique(self.of_N * self.cells + design.cell_N, return_inverse=True)
        self.cluster_P, self.cell_P = pair_P // self.cells, pair_P % self.cells
        share_K = np.bincount(self.of_N, design.share_N)
        self.count = len(share_K)
        self.effective = float(1 / np.sum(share_K**2))
        """As many clusters of equal size would weigh so (Kish; Carter, Schnepel & Steigerwald 2017)."""

    def jackknife(self, outcome_N: Floats) -> float:
        """Variance of the estimate, leaving out one cluster at a time; 0 when there is but one.

        A cell that loses all its rows is left out with its weight.
        """
        if self.count == 1:
            return 0.0
        cell_N = self.design.cell_N
        count_C = np.bincount(cell_N, minlength=self.cells)
        weight_C = np.bincount(cell_N, self.design.share_N, self.cells)
        mean_C = np.bincount(cell_N, outcome_N, self.cells) / np.maximum(count_C, 1)
        left_P = count_C[self.cell_P] - np.bincount(self.pair_N)
        sum_P = (mean_C * count_C)[self.cell_P] - np.bincount(self.pair_N, outcome_N)
        kept_P = left_P > 0
        # Only the cells that a cluster has rows in change when it is left out.
        moved_P = weight_C[self.cell_P] * (kept_P * sum_P / np.maximum(left_P, 1) - mean_C[self.cell_P])
        lost_P = weight_C[self.cell_P] * ~kept_P
        value = float(weight_C @ mean_C)
        total_K = value + np.bincount(self.cluster_P, moved_P)
        weight_K = 1 - np.bincount(self.cluster_P, lost_P)
        without_K = np.divide(total_K, weight_K, out=np.full(self.count, value), where=weight_K > 1e-9)
        return float((self.count - 1) / self.count * np.sum((without_K - value) ** 2))


def estimate(outcome_N: Floats, design: Design, ends: tuple[float, float] = ACCURACY, level: float = 0.95) -> Estimate:
    """The estimate and its interval, for new images and new texts.

    The variance is that of two-way clustering, V(image) + V(texts) - V(both), or the largest of these where that is
    more; with it go Student's t of the rarer clusters and the number of independent rows that would be as sure. To
    these, t²/2 rows at each end of the scale are added: so near its ends the interval keeps its level, and it is never
    without width. Sources: Cameron, Gelbach & Miller 2011 (two ways); MacKinnon, Nielsen & Webb, arXiv 2406.08880 (by
    jackknife, and the largest); Korn & Graubard 1998 (rows as sure, with t); Agresti & Coull 1998 and, for differences,
    Agresti & Min 2005 (added rows). Coverage: benchmarks/intervals.py.

    Args:
        outcome_N: within the ends; all rows count.
        design: of the rows.
        ends: least and greatest outcome there is, `ACCURACY` or `DIFFERENCE`.
        level: of the interval.
    """
    if not outcome_N.size:
        return Estimate(*[float("nan")] * 4)
    low, high = ends
    value, square = (float(found) for found in design.mean(np.stack([outcome_N, outcome_N**2])))
    value, spread = min(max(value, low), high), max(0.0, square - value**2)
    image, texts, both = (clusters.jackknife(outcome_N) for clusters in design.clusters)
    alone = spread * float(np.sum(design.share_N**2))
    variance = max(image, texts, image + texts - both, alone)
    fewest = min(clusters.effective for clusters in design.clusters[:2])
    rows = spread / variance if spread > 1e-12 else fewest
    quantile = min(float(t.ppf((1 + level) / 2, max(fewest - 1, 0.1))), 1e8)
    added = quantile**2 / 2
    total = rows + 2 * added
    centre = (rows * value + added * (low + high)) / total
    spread = (rows * square + added * (low**2 + high**2)) / total - centre**2
    half = quantile * float(np.sqrt(spread / total))
    return Estimate(value, max(low, centre - half), min(high, centre + half), half / float(norm.ppf((1 + level) / 2)))


def paired_permutation(difference_N: Floats, design: Design, *, flips: int = 9999, seed: int = 0) -> float:
    """Two-sided p of "no difference": the two models change places cluster by cluster; NaN without rows.

    Those clusters that vary more, of images or of texts, change places: exact (all flips) up to 13 that differ, else
    `flips` random ones with the usual (hits + 1) / (flips + 1). Where the other way of clustering adds to their
    variance, the difference is first divided by the root of what it adds. Source: Fisher's paired permutation test,
    clusters as units; Cameron, Gelbach & Miller 2011 for the two ways.

    Args:
        difference_N: after minus before; all rows count.
        design: of the rows.
        flips: random ones.
        seed: of these.
    """
    if not difference_N.size:
        return float("nan")
    parts = [np.bincount(clusters.of_N, difference_N * design.share_N) for clusters in design.clusters]
    image, texts, both = (float(np.sum(part_K**2)) for part_K in parts)
    part_K, most = (parts[0], image) if image >= texts else (parts[1], texts)
    part_K = part_K[np.abs(part_K) > 1e-12]
    if not part_K.size:
        return 1.0
    both_ways = max(most, image + texts - both)
    observed = abs(float(part_K.sum())) * (most / both_ways) ** 0.5 - 1e-12
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

    It takes rows as independent, so with shared images or texts it is sharper than the data; read it beside the
    permutation.
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
