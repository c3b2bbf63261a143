"""Artifacts of text: what sets a negative apart from its caption without the image, and refining the table by it.

Two scorers say how much likelier it is that a text is the negative of its caption than the other way round, a gap in
[-1, 1]: `ngrams`, a classifier trained on the negatives themselves (text/ngrams.py), and, where the table has it,
`likelihood`, by how much the generator finds the caption likelier. A gap of 0 tells nothing. Refining:

    drop       reject each negative that a scorer is surer about than a margin
    rebalance  reject negatives at random until a gap is as common as its opposite
    reweight   keep all, with a weight: the share that rebalancing would keep of the negative's kind

Rebalancing follows SugarCrepe's adversarial refinement (arXiv 2306.14610): a grid over the gaps of all scorers, in
which a cell and its mirror image end up with the same number of negatives. Made exact, that leaves too many on which
the judge was wrong: a judge trained on what is left, over other folds, is right about less than half of it. So only so
much is rejected as brings that second judge to a half. What the card then says comes from a third, over folds of its
own. Draws are fixed by the texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import tables
from pipeline.artifact import unit_interval
from pipeline.crew import Crew
from pipeline.negative_types import ALL_TYPES, KINDS
from stages.generate.config import Refine
from stages.text import ngrams
from stages.text.ngrams import Judge

CELLS = 20
"""Most cells of equal width on either side of a zero gap."""

PER_CELL = 50
"""Negatives per cell on average: fewer, and chance alone unbalances a cell and its mirror image."""

AIM, CARD = 1, 2
"""Seeds of the folds that decide how much is rejected, and of those that tell what came of it."""

HALVINGS = 4
"""Steps of the search for how much is rejected: to a sixteenth of it."""

REASON = "blind"
"""Why a negative that text alone tells from its caption is rejected."""

Vector = NDArray[np.float64]


class Row(NamedTuple):
    """A caption, its negative, the image they belong to, and the table's `likelihood`."""

    image_key: str
    caption: str
    negative: str
    likelihood: float | None = None


class Blind(NamedTuple):
    """How well one scorer does on one type.

    Attributes:
        n: negatives tested, each against its caption.
        accuracy: share of them told from their caption; undecided counts half, and 0.5 means no artifact.
        low, high: its 95 % interval, clustered by image.
    """

    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Examined:
    """One type's blind test, and what refining needs to know of it.

    Attributes:
        blind: scorer -> how well it did.
        judge: the classifier, which scores images it has not read of.
        sides: cells on either side of a zero gap.
        keep: share of negatives to keep per cell of the grid over the gaps.
    """

    blind: dict[str, Blind]
    judge: Judge
    sides: int
    keep: Vector

    def gaps(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Gap of each row under each scorer, [rows, scorers], in [-1, 1]; positive = the negative is told."""
        return _gaps(rows, self.judge)


def examine(
    negatives: Path, pairs: Path, limit: int, crew: Crew, *, seed: int = 0, aim: bool = False
) -> dict[str, Examined]:
    """Train and test on up to `limit` accepted negatives per type, those of the smallest pair ids, which are hashes.

    With `aim`, what to keep is found out as well, for `rebalance` and `reweight`.
    """
    found = sample(negatives, pairs, limit)
    rows = {kind: [Row(*row) for row in found.get(kind, ())] for kind in ALL_TYPES}
    rows = {kind: some for kind, some in rows.items() if len({row.image_key for row in some}) >= ngrams.FEWEST}
    return dict(zip(rows, crew.map(partial(examine_type, seed=seed, aim=aim), list(rows.values())), strict=True))


def sample(negatives: Path, pairs: Path, limit: int) -> dict[str, list[tuple[str, str, str, float | None]]]:
    """Type -> (image, caption, negative, likelihood) of up to `limit` accepted candidates, a random sample.

    They are those of the smallest pair ids, which are hashes, in that order. Memory: the sample.
    """
    found = {}
    with tables.connect({"negatives": negatives, "pairs": pairs}) as sql:
        for kind in KINDS:
            found[kind] = sql.execute(
                "select image_key, caption, text, likelihood from (select pair_id, text, likelihood from negatives "
                "where status = 'accepted' and type = $1 order by pair_id limit $2) join pairs using (pair_id) "
                "order by pair_id",
                [kind, limit],
            ).fetchall()
    return {kind: rows for kind, rows in found.items() if rows}


def examine_type(rows: Sequence[Row], *, seed: int = 0, aim: bool = False) -> Examined:
    """The blind test of one type, its folds drawn by the seed. Raises ValueError below `ngrams.FEWEST` images."""
    pictures = [row.image_key for row in rows]
    judge = Judge.train(pictures, [row.caption for row in rows], [row.negative for row in rows], seed=seed)
    gaps = _gaps(rows, judge)
    names = ("ngrams", "likelihood")[: gaps.shape[1]]
    blind = {name: _blind(gaps[:, i], pictures) for i, name in enumerate(names)}
    sides = sides_of(gaps)
    shares = keep_shares(gaps, sides)
    if aim:
        shares = 1 - _strength(rows, shares[_cells(gaps, sides)]) * (1 - shares)
    return Examined(blind, judge, sides, shares)


def _strength(rows: Sequence[Row], shares: Vector) -> float:
    """How much of what exact balance rejects brings a judge with other folds to a half; 1 where that leaves it there.

    Args:
        rows: all of one type.
        shares: what exact balance keeps of each row's kind.
    """
    draws = np.array([_drawn(row) for row in rows])

    def told(strength: float) -> float:
        kept = [rows[i] for i in np.flatnonzero(draws < 1 - strength * (1 - shares))]
        if len({row.image_key for row in kept}) < ngrams.FEWEST:
            return 0.0
        return max(one.accuracy for one in examine_type(kept, seed=AIM).blind.values())

    if told(1.0) >= 0.5:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if told(middle) >= 0.5 else (low, middle)
    return (low + high) / 2


def refine(
    candidates: Sequence[dict[str, Any]],
    captions: Mapping[str, tuple[str, str]],
    examined: Mapping[str, Examined],
    mode: Refine,
    margin: float,
) -> list[dict[str, Any]]:
    """Reject or weigh down the accepted negatives that text alone tells from their captions.

    Args:
        candidates: rows of the negatives table.
        captions: pair id -> (image, caption).
        examined: type -> its blind test.
        mode: see above.
        margin: gap from which `drop` rejects.
    """
    refined = list(candidates)
    for kind, test in examined.items():
        places = [i for i, row in enumerate(refined) if row["type"] == kind and row["status"] == "accepted"]
        rows = [Row(*captions[refined[i]["pair_id"]], refined[i]["text"], refined[i]["likelihood"]) for i in places]
        if not rows or mode == "off":
            continue
        gaps = test.gaps(rows)
        weights = test.keep[_cells(gaps, test.sides)]
        for place, row, gap, weight in zip(places, rows, gaps, weights, strict=True):
            if mode == "reweight":
                refined[place] = {**refined[place], "weight": float(weight)}
            elif gap.max() >= margin if mode == "drop" else _drawn(row) >= weight:
                refined[place] = {**refined[place], "status": "rejected", "reason": REASON}
    return refined


def sides_of(gaps: NDArray[np.float64]) -> int:
    """Cells on either side of a zero gap, per scorer, for so many rows."""
    rows, scorers = gaps.shape
    return int(np.clip((rows / PER_CELL) ** (1 / scorers) / 2, 1, CELLS))


def keep_shares(gaps: NDArray[np.float64], sides: int) -> Vector:
    """Share of negatives to keep per cell, so that a cell and its mirror image are equally common: min(n, n') / n."""
    counts = np.bincount(_cells(gaps, sides), minlength=(2 * sides) ** gaps.shape[1]).astype(float)
    shares: Vector = np.minimum(counts, counts[::-1]) / np.maximum(counts, 1)
    return shares


def _cells(gaps: NDArray[np.float64], sides: int) -> NDArray[np.int64]:
    """Number of each row's cell; mirrored cells have numbers of the same sum, a gap of exactly 1 is in the last."""
    outward = np.minimum((np.abs(gaps) * sides).astype(np.int64), sides - 1)
    placed = np.where(gaps > 0, sides + outward, sides - 1 - outward)
    return np.asarray(placed @ (2 * sides) ** np.arange(gaps.shape[1]))


def _gaps(rows: Sequence[Row], judge: Judge) -> NDArray[np.float64]:
    pictures = [row.image_key for row in rows]
    captions, negatives = [row.caption for row in rows], [row.negative for row in rows]
    logits = [judge.score(pictures, negatives) - judge.score(pictures, captions)]
    likelihood = [row.likelihood for row in rows if row.likelihood is not None]
    if len(likelihood) == len(rows):
        logits.append(np.array(likelihood))
    return np.tanh(np.stack(logits, axis=1) / 2)


def _blind(gaps: Vector, pictures: Sequence[str]) -> Blind:
    right = (1 + np.sign(gaps)) / 2
    mean = float(right.mean())
    _, cluster = np.unique(pictures, return_inverse=True)
    spread = 1.96 * float(np.sqrt((np.bincount(cluster, right - mean) ** 2).sum())) / len(right)
    return Blind(len(right), round(mean, 4), round(max(mean - spread, 0.0), 4), round(min(mean + spread, 1.0), 4))


def _drawn(row: Row) -> float:
    """A number in [0, 1) fixed by the texts."""
    return unit_interval(f"{row.caption}\0{row.negative}")
