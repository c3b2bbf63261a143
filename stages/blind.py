"""Blind baselines: how much of a score needs no picture. Two judges that read only the options of a row.

rule    no model: prefer the option without a final full stop; then odd spacing or a lower-case start; then fewer
        words; then fewer characters; then a coin. Written after looking at SugarCrepe, so an upper-ish bound there.
ngrams  a linear classifier of word and character n-grams that learns to tell true captions from foils on other
        pictures of the same subset (five folds, grouped by picture).
"""

import zlib

from stages.benchmarks import Subset
from stages.ngrams import FEWEST, Judge


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


def ngrams(subset: Subset) -> list[list[float] | None]:
    """Scores of each row's options by a classifier that never saw the row's picture; None when it abstains."""
    if len({row.image_key for row in subset.rows}) < FEWEST:
        return [None] * len(subset.rows)
    pairs = [(row.image_key, row.texts[0], text) for row in subset.rows for text in row.texts[1:]]
    judge = Judge.train(*zip(*pairs, strict=True))
    options = [(row.image_key, text) for row in subset.rows for text in row.texts]
    scores = iter(-judge.score(*zip(*options, strict=True)))
    return [[float(next(scores)) for _ in row.texts] for row in subset.rows]
