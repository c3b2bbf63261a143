"""Can text alone tell a negative from its caption? A classifier tries; what gives itself away can be dropped.

A logistic regression over hashed word and character n-grams is trained on captions against their accepted negatives of
one type, in folds that never part a picture. Its out-of-fold accuracy is 50 % when the negatives carry no artefact. The
idea of dropping what it can exploit is SugarCrepe's adversarial refinement (arXiv 2306.14610), made seeded and with
gaps of exactly one inside.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import tables
from pipeline.schema import NEGATIVE_TYPES

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FOLDS = 5
FEWEST = 20
"""Pictures below which a type is not examined."""

BINS = 1 << 18
L2 = 1e-4
CELLS = 20
"""Cells of equal width on either side of a zero gap."""

REASON = "blind"
"""Why a negative that text alone gives away is rejected."""

Vector = NDArray[np.float64]


class Row(NamedTuple):
    """A caption, its negative, and the picture they belong to."""

    image_key: str
    caption: str
    negative: str


class Blind(NamedTuple):
    """How well text alone does, for one type.

    Attributes:
        n: negatives tested, each against its caption.
        accuracy: share of texts told right, captions and negatives alike; 0.5 = no artefact.
        low, high: its 95 % interval, clustered by picture.
        pairwise: share of pairs in which the negative looks more like a negative than its caption does.
    """

    n: int
    accuracy: float
    low: float
    high: float
    pairwise: float


class Examined(NamedTuple):
    """A blind test, the classifier that did it, and the share of negatives to keep per cell of its gap."""

    blind: Blind
    classifier: "Classifier"
    keep: Vector


@dataclass(frozen=True)
class Classifier:
    """One model per fold; a picture is scored by the model that never saw it."""

    weights: Vector

    def gaps(self, rows: Sequence[Row]) -> Vector:
        """P(negative) of the negative minus P(negative) of the caption, per row, in [-1, 1]."""
        return self.scores(rows, "negative") - self.scores(rows, "caption")

    def scores(self, rows: Sequence[Row], which: str) -> Vector:
        """P(negative) of each row's caption or negative."""
        scored = np.empty(len(rows))
        folds = np.array([_fold(row.image_key) for row in rows])
        for fold in range(FOLDS):
            chosen = np.flatnonzero(folds == fold)
            features = _features([getattr(rows[i], which) for i in chosen])
            scored[chosen] = np.round(_sigmoid(features @ self.weights[fold]), 6)
        return scored


def examine(negatives: Path, pairs: Path, limit: int) -> dict[str, Examined]:
    """Train and test on up to `limit` accepted negatives per type, those of the smallest pair ids, which are hashes."""
    with tables.connect({"negatives": negatives, "pairs": pairs}) as sql:
        found = sql.execute(
            "select type, image_key, caption, text from negatives join pairs using (pair_id) where status = 'accepted' "
            "qualify row_number() over (partition by type order by pair_id) <= $1 order by type, pair_id",
            [limit],
        ).fetchall()
    examined = {}
    for kind in NEGATIVE_TYPES:
        rows = [Row(*row) for named, *row in found if named == kind]
        if len({row.image_key for row in rows}) >= FEWEST:
            classifier = train(rows)
            examined[kind] = Examined(test(rows, classifier), classifier, keep_shares(classifier.gaps(rows)))
    return examined


def refine(
    candidates: Sequence[dict[str, Any]], captions: Mapping[str, tuple[str, str]], examined: Mapping[str, Examined]
) -> list[dict[str, Any]]:
    """Reject accepted negatives that text alone gives away, until a gap is as often against them as for them.

    Args:
        candidates: rows of the negatives table.
        captions: pair id -> (picture, caption).
        examined: type -> its blind test.
    """
    refined = list(candidates)
    for kind, (_, classifier, keep) in examined.items():
        places = [i for i, row in enumerate(refined) if row["type"] == kind and row["status"] == "accepted"]
        rows = [Row(*captions[refined[i]["pair_id"]], refined[i]["text"]) for i in places]
        for place, drop in zip(places, dropped(rows, classifier.gaps(rows), keep), strict=True):
            if drop:
                refined[place] = {**refined[place], "status": "rejected", "reason": REASON}
    return refined


def train(rows: Sequence[Row]) -> Classifier:
    """Fit the models, each on all folds but one."""
    folds = np.array([_fold(row.image_key) for row in rows])
    captions, negatives = _features([row.caption for row in rows]), _features([row.negative for row in rows])
    return Classifier(np.stack([_fit(captions[folds != fold], negatives[folds != fold]) for fold in range(FOLDS)]))


def test(rows: Sequence[Row], classifier: Classifier) -> Blind:
    """Out-of-fold accuracy of a classifier on the rows it was trained on; an undecided text is half right."""
    negative, caption = classifier.scores(rows, "negative"), classifier.scores(rows, "caption")
    right = (1 + (np.sign(negative - 0.5) - np.sign(caption - 0.5)) / 2) / 2
    pairs = (1 + np.sign(negative - caption)) / 2
    mean = float(right.mean())
    _, cluster = np.unique([row.image_key for row in rows], return_inverse=True)
    spread = 1.96 * float(np.sqrt((np.bincount(cluster, right - mean) ** 2).sum())) / len(rows)
    low, high = max(mean - spread, 0.0), min(mean + spread, 1.0)
    return Blind(len(rows), round(mean, 4), round(low, 4), round(high, 4), round(float(pairs.mean()), 4))


def keep_shares(gaps: Vector) -> Vector:
    """Share of negatives to keep per cell so that a gap and its opposite are equally common: min(n, n') / n."""
    counts = np.bincount(_cells(gaps), minlength=2 * CELLS).astype(float)
    shares: Vector = np.minimum(counts, counts[::-1]) / np.maximum(counts, 1)
    return shares


def dropped(rows: Sequence[Row], gaps: Vector, keep: Vector) -> Iterator[bool]:
    """Whether each negative is dropped: a draw fixed by its texts, against its cell's share."""
    for row, cell in zip(rows, _cells(gaps), strict=True):
        drawn = hashlib.sha256(f"{row.caption}\0{row.negative}".encode()).hexdigest()[:12]
        yield int(drawn, 16) / 16**12 >= keep[cell]


def _cells(gaps: Vector) -> NDArray[np.int64]:
    """Cell of each gap; a gap and its opposite fall into mirrored cells, a gap of exactly 1 into the last."""
    outward = np.minimum((np.abs(gaps) * CELLS).astype(np.int64), CELLS - 1)
    return np.where(gaps > 0, CELLS + outward, CELLS - 1 - outward)


def _fold(image_key: str) -> int:
    return zlib.crc32(image_key.encode()) % FOLDS


def _features(texts: Sequence[str]) -> "csr_matrix":
    """Rows of unit length over hashed word 1-2-grams and character 2-4-grams, start and end marked."""
    from scipy.sparse import csr_matrix

    columns: list[int] = []
    starts = [0]
    for text in texts:
        words = ["<", *text.split(), ">"]
        grams = {*words, *(f"{one} {two}" for one, two in pairwise(words))}
        marked = f"<{text}>"
        grams |= {f"#{marked[i : i + n]}" for n in (2, 3, 4) for i in range(len(marked) - n + 1)}
        columns += sorted({zlib.crc32(gram.encode()) % BINS for gram in grams})
        starts.append(len(columns))
    sizes = np.diff(starts)
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    return csr_matrix((values, columns, starts), shape=(len(texts), BINS))


def _fit(captions: "csr_matrix", negatives: "csr_matrix") -> Vector:
    """L2-regularised logistic regression, negative = 1; weights over all bins."""
    from scipy.optimize import minimize
    from scipy.sparse import vstack

    features = vstack([captions, negatives]).tocsr()
    used = np.unique(features.indices)
    features = features[:, used]
    sign = np.repeat([-1.0, 1.0], [captions.shape[0], negatives.shape[0]])

    def loss(weights: Vector) -> tuple[float, Vector]:
        margins = sign * (features @ weights)
        value = float(np.logaddexp(0, -margins).mean() + L2 / 2 * weights @ weights)
        slope = L2 * weights - (features.T @ (sign * _sigmoid(-margins))) / len(sign)
        return value, slope

    weights = np.zeros(BINS)
    if len(used):
        found = minimize(loss, np.zeros(len(used)), jac=True, method="L-BFGS-B", options={"maxiter": 60})
        weights[used] = found.x
    return weights


def _sigmoid(values: Vector) -> Vector:
    squashed: Vector = 0.5 * (1 + np.tanh(values / 2))
    return squashed
