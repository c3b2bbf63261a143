"""Rows of the scores table: when a row is right, and how it is written down.

Shapes: P prompts of a class · D embedding width.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.benchmarks.means import own_first
from stages.benchmarks.rows import Row, Rule, Subset

Floats = NDArray[np.float32]

Leaked = set[tuple[str, str, str]]
"""benchmark, subset, row_id of rows that overlap with training data."""

Judge = Callable[[Subset], Sequence[list[float] | None]]
"""A text-only baseline: a subset -> scores of each row's options, the preferred one highest; None where it abstains."""

WRONG_KEPT = 10
"""How many wrong options a row of many keeps, the best ones: enough for recall at 10."""

BLIND = "blind:"
"""Models whose name begins so are text-only baselines."""


def margin(rule: Rule, similarities: Sequence[float]) -> float:
    """By how much a row is right: above 0 right, below 0 wrong, 0 a tie. The order of `similarities` is the rule's."""
    first, *rest = similarities
    if rule == "both":
        return min(first, rest[0]) - rest[1]
    if rule == "square":
        (b, c, d) = rest
        return min(first - b, d - c, first - c, d - b)
    if rule == "set":
        return min(margin("choice", own) for own in own_first(similarities))
    return first - max(rest, default=float("-inf"))


def texts_key(subset: Subset, row: Row) -> str:
    """Identity of the texts that decide a row, in whatever order: its own, or those of its right options.

    Of zero-shot classification these are the prompts of the row's class: with other classes there would be other texts.
    """
    texts = row.texts or [text for option in row.right for text in subset.prompts[option]]
    return hashlib.sha256("\0".join(sorted(set(texts))).encode()).hexdigest()[:16]


def options(subsets: Sequence[Subset], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows of the options table: what each row asks about. Images are named as below the first folder that has them."""
    return [
        {
            "benchmark": subset.benchmark,
            "subset": subset.name,
            "row_id": row.row_id,
            "rule": subset.rule,
            "texts": row.texts or [text for option in row.right for text in subset.prompts[option][:1]],
            "image": _below(folders, row.image.path) if row.image else None,
        }
        for subset in subsets
        for row in subset.rows
    ]


def _below(folders: Sequence[Path], path: Path) -> str:
    return str(next((path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), path))


def table_row(subset: Subset, row: Row, similarities: list[float] | None, model: str, leaked: Leaked) -> dict[str, Any]:
    """One row of the scores table; similarities None = not scored."""
    by = margin(subset.rule, similarities) if similarities else float("nan")
    tied = float(subset.tie == "right")
    return {
        "model": model,
        "benchmark": subset.benchmark,
        "subset": subset.name,
        "row_id": row.row_id,
        "image_key": row.image_key,
        "texts_key": texts_key(subset, row),
        "group": row.group,
        "similarities": similarities,
        "correct": tied if by == 0 else by if np.isnan(by) else float(by > 0),
        "tie": by == 0,
        "leaked": (subset.benchmark, subset.name, row.row_id) in leaked,
        "protocol": subset.protocol,
    }


def prompted(prompt_PD: Floats) -> Floats:
    """One class: the mean of its prompts' embeddings, normalised again (CLIP's prompt ensemble)."""
    mean_D = prompt_PD.mean(0)
    return np.asarray(mean_D / np.linalg.norm(mean_D), dtype=np.float32)
