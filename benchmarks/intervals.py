"""How often the intervals of stages/evaluate/statistics.py hold the truth, and its test rejects it, by simulation.

    python benchmarks/intervals.py [--repeats 1000]

A row's outcome is a threshold on the sum of an effect of its image, one of its texts and one of its own, so the true
mean is known and a share of the variance is common to rows of an image, or of texts. Prints one line per case:
coverage of the nominal 95 %, how often the truth lay above or below the interval, its mean width; and of the
differences without a true one, how often p <= 0.05. Two cores need about five minutes.

Shapes: N rows.
"""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from stages.evaluate.statistics import ACCURACY, DIFFERENCE, Design, Floats, estimate, paired_permutation


class Case(NamedTuple):
    """One kind of benchmark.

    Attributes:
        right: chance that a row is right; of a difference, that it is won.
        lost: chance that a row is lost; None = not a difference but an accuracy.
        images, per_image: how many, and rows of each.
        texts: how many sets of texts the rows share; None = each row has its own.
        image_effect, texts_effect: share of the variance that is common to rows of an image, of texts.
    """

    right: float
    lost: float | None = None
    images: int = 100
    per_image: int = 1
    texts: int | None = None
    image_effect: float = 0.0
    texts_effect: float = 0.0

    @property
    def truth(self) -> float:
        """What an endless benchmark would show."""
        return self.right - (self.lost or 0.0)

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Design]:
        """One benchmark of this kind: outcomes, and which rows hang together."""
        rows = self.images * self.per_image
        image_N = np.repeat(np.arange(self.images), self.per_image)
        texts_N = np.arange(rows) if self.texts is None else rng.integers(0, self.texts, rows)
        own = 1 - self.image_effect - self.texts_effect
        z_N = self.image_effect**0.5 * rng.standard_normal(self.images)[image_N]
        z_N += self.texts_effect**0.5 * rng.standard_normal(int(texts_N.max()) + 1)[texts_N]
        u_N = norm.cdf(z_N + own**0.5 * rng.standard_normal(rows))
        outcome_N = (u_N < self.right).astype(float) - (u_N > 1 - (self.lost or 0.0))
        return outcome_N, Design(np.zeros(rows, dtype=np.int64), np.ones(1), image_N, texts_N)


class Found(NamedTuple):
    """Shares of the repeats; `rejected` is None where the test would be right to reject."""

    covered: float
    above: float
    below: float
    width: float
    rejected: float | None


def simulate(case: Case, repeats: int, seed: int = 0) -> Found:
    """Draw benchmarks and count."""
    rng = np.random.default_rng(seed)
    above = below = width = rejected = 0.0
    for _ in range(repeats):
        outcome_N, design = case.draw(rng)
        found = estimate(outcome_N, design, ACCURACY if case.lost is None else DIFFERENCE)
        above, below, width = above + (found.high < case.truth), below + (found.low > case.truth), width + found.high
        width -= found.low
        if case.lost == case.right:
            rejected += paired_permutation(outcome_N, design, flips=999) <= 0.05
    above, below, width, rejected = (total / repeats for total in (above, below, width, rejected))
    return Found(1 - above - below, above, below, width, rejected if case.lost == case.right else None)


def cases() -> Iterator[Case]:
    for right, lost in ((0.5, None), (0.8, None), (0.97, None), (0.03, 0.03), (0.02, 0.0), (0.1, 0.05), (0.3, 0.3)):
        for images in (10, 30, 100, 300):
            yield Case(right, lost, images)
        for images, per_image in ((30, 10), (100, 5)):
            yield Case(right, lost, images, per_image, image_effect=0.3)
            yield Case(right, lost, images, per_image, image_effect=1.0)
        for texts in (8, 20, 50):
            yield Case(right, lost, 200, 2, texts)
            yield Case(right, lost, 200, 2, texts, texts_effect=0.3)
            yield Case(right, lost, 200, 2, texts, image_effect=0.3, texts_effect=0.3)
            yield Case(right, lost, 20, 20, texts, image_effect=0.3, texts_effect=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    print(
        "| right or won | lost | images x rows | texts | common: image, texts | covered | above | below | width | p |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in cases():
        found = simulate(case, repeats)
        shares = " | ".join(f"{100 * share:.1f}" for share in found[:3])
        lost, texts = "" if case.lost is None else case.lost, case.texts or "own"
        rejected = "" if found.rejected is None else f"{100 * found.rejected:.1f}"
        print(
            f"| {case.right} | {lost} | {case.images} x {case.per_image} | {texts} | {case.image_effect}, "
            f"{case.texts_effect} | {shares} | {found.width:.3f} | {rejected} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
