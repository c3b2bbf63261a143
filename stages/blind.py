"""Blind baselines: how much of a score needs no picture. Two judges that read only the options of a row.

rule    no model: prefer the option without a final full stop; then odd spacing or a lower-case start; then fewer
        words; then fewer characters; then a coin. Written after looking at SugarCrepe, so an upper-ish bound there.
ngrams  a linear classifier of word and character n-grams that learns to tell true captions from foils on other
        pictures of the same subset (five folds, grouped by picture).

Shapes: P (right, wrong) pairs · T options · F hashed features.
"""

import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from stages.benchmarks import Subset

FEATURES = 2**18
FOLDS = 5
FEWEST_PICTURES = 20
"""Below this many pictures a subset teaches nothing, and the classifier abstains."""


def rule(subset: Subset) -> list[list[float]]:
    """Scores of each row's options; only options with the same text tie."""
    found = []
    for row in subset.rows:
        keys = [_surface(text) for text in row.texts]
        ranks = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        found.append([-float(ranks[key]) for key in keys])
    return found


def _surface(text: str) -> tuple[bool, bool, int, int, int]:
    odd = text != text.strip() or "  " in text or text[:1].islower()
    return text.rstrip().endswith("."), not odd, len(text.split()), len(text), zlib.crc32(text.encode())


def ngrams(subset: Subset, seed: int = 0) -> list[list[float] | None]:
    """Scores of each row's options by a classifier that never saw the row's picture; None when it abstains."""
    pictures = sorted({row.image_key for row in subset.rows})
    if len(pictures) < FEWEST_PICTURES:
        return [None] * len(subset.rows)
    shuffled = np.random.default_rng(seed).permutation(len(pictures))
    fold_of = {picture: int(place) % FOLDS for picture, place in zip(pictures, shuffled, strict=True)}
    texts = list(dict.fromkeys(text for row in subset.rows for text in row.texts))
    at = {text: index for index, text in enumerate(texts)}
    features_TF = _features(texts)
    scores: list[list[float] | None] = [None] * len(subset.rows)
    for fold in range(FOLDS):
        learn = [row for row in subset.rows if fold_of[row.image_key] != fold]
        right = [at[row.texts[0]] for row in learn for _ in row.texts[1:]]
        wrong = [at[text] for row in learn for text in row.texts[1:]]
        told_T = features_TF @ _fit(features_TF[right] - features_TF[wrong])
        for index, row in enumerate(subset.rows):
            if fold_of[row.image_key] == fold:
                scores[index] = [float(told_T[at[text]]) for text in row.texts]
    return scores


def _features(texts: Sequence[str]) -> sparse.csr_array:
    """Which hashed n-grams each text has: one and two words, one to three characters with the text's ends marked."""
    rows, columns = [], []
    for index, text in enumerate(texts):
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        marked = f"\x02{text}\x03"
        grams = {*words, *(f"{a} {b}" for a, b in pairwise(words))}
        grams |= {"\x00" + marked[i : i + n] for n in (1, 2, 3) for i in range(len(marked) - n + 1)}
        found = {zlib.crc32(gram.encode()) % FEATURES for gram in grams}
        rows += [index] * len(found)
        columns += sorted(found)
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(texts), FEATURES))


def _fit(difference_PF: sparse.csr_array, penalty: float = 1.0) -> np.ndarray:
    """Weights of a logistic regression on right - wrong: sum of log(1 + exp(-w·x)) + penalty / 2 · |w|²; no intercept.

    Solved over the features that occur, by L-BFGS.
    """
    used = np.unique(difference_PF.indices)
    x_PU = difference_PF[:, used]

    def loss(w_U: np.ndarray) -> tuple[float, np.ndarray]:
        margin_P = x_PU @ w_U
        pull_P = -1 / (1 + np.exp(np.clip(margin_P, -500, 500)))
        return float(np.logaddexp(0, -margin_P).sum() + penalty / 2 * w_U @ w_U), x_PU.T @ pull_P + penalty * w_U

    weights_F = np.zeros(FEATURES)
    if used.size:
        weights_F[used] = minimize(loss, np.zeros(used.size), jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
    return weights_F
