"""A text-only judge: a linear classifier of word and character n-grams that learns to tell true captions from others.

Whatever it tells right, it tells without an image. Folds never part the captions of one image, so it is always asked
about images it has not read of.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FOLDS = 5
FEWEST = 20
"""Images below which nothing can be learnt."""

FEATURES = 1 << 18
PENALTY = 0.1
"""Inverse strength C of the L2 penalty; of 0.05 to 5, the best on SugarCrepe's seven files taken together."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """Weights over the n-grams, one set per fold; an image's texts are judged by the fold that never saw them."""

    weights: NDArray[np.float64]
    seed: int = 0

    @classmethod
    def train(cls, pictures: Sequence[str], right: Sequence[str], wrong: Sequence[str], *, seed: int = 0) -> Self:
        """Fit a logistic regression of each fold on what sets a wrong text apart from the true caption beside it.

        Args:
            pictures: the image of each pair of texts.
            right: the true captions.
            wrong: the other texts.
            seed: of the folds; another one parts the images otherwise.

        Raises ValueError below `FEWEST` images.
        """
        from scipy.sparse import vstack
        from sklearn.linear_model import LogisticRegression

        if len(set(pictures)) < FEWEST:
            raise ValueError(f"{len(set(pictures))} pictures; expected {FEWEST}")
        folds, apart = _folds(pictures, seed), _features(wrong) - _features(right)
        weights = np.zeros((FOLDS, FEATURES))
        for fold in range(FOLDS):
            kept = apart[folds != fold]
            used = np.unique(kept.indices)
            both = vstack([kept[:, used], -kept[:, used]])
            label = np.repeat([1, 0], kept.shape[0])
            fitted = LogisticRegression(C=PENALTY, fit_intercept=False, max_iter=1000).fit(both, label)
            weights[fold, used] = fitted.coef_[0]
        return cls(weights, seed)

    def score(self, pictures: Sequence[str], texts: Sequence[str]) -> Vector:
        """How much each text looks like a wrong one, in logits; only differences mean something."""
        scored = np.empty(len(texts))
        folds = _folds(pictures, self.seed)
        for fold in range(FOLDS):
            if len(chosen := np.flatnonzero(folds == fold)):
                scored[chosen] = (_features([texts[i] for i in chosen]) @ self.weights[fold]).round(6)
        return scored


def _folds(pictures: Sequence[str], seed: int) -> NDArray[np.int64]:
    start = zlib.crc32(str(seed).encode()) if seed else 0
    return np.array([zlib.crc32(picture.encode(), start) % FOLDS for picture in pictures], dtype=np.int64)


def _features(texts: Sequence[str]) -> "csr_matrix":
    """Which of the hashed word 1-2-grams and character 1-4-grams, start and end marked."""
    from sklearn.feature_extraction.text import HashingVectorizer

    shared = {"n_features": FEATURES, "binary": True, "norm": None, "alternate_sign": False}
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", **shared)  # noqa: S106
    letters = HashingVectorizer(analyzer="char", lowercase=False, ngram_range=(1, 4), **shared)
    marked = [f"< {text} >" for text in texts]
    return words.transform(marked) + letters.transform(marked)
