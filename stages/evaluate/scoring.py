"""Similarities and decisions, rule by rule: subsets and embeddings in, rows of the scores table out.

Shapes: N rows · T texts of several rows · O options of a whole subset · Q queries at a time · D embedding width.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from pipeline.stage import Progress
from stages.benchmarks.rows import ImageRef, Row, Rule, Subset
from stages.evaluate.rows import BLIND, WRONG_KEPT, Floats, Judge, Leaked, prompted, table_row

PIECE = 1024
"""Rows, or queries, at a time."""


class Embeds(Protocol):
    """What gives every distinct image and text its embedding: item -> row, and the rows (NaN: no image there)."""

    def images(self, images: Sequence[ImageRef]) -> tuple[dict[ImageRef, int], Floats]:
        """Embeddings of images."""

    def texts(self, texts: Sequence[str]) -> tuple[dict[str, int], Floats]:
        """Embeddings of texts."""


def score(embeds: Embeds, subsets: Sequence[Subset], model: str, leaked: Leaked) -> list[dict[str, Any]]:
    """Rows of the scores table for one model."""
    rows = [row for subset in subsets for row in subset.rows]
    text_at, text_ND = embeds.texts(
        [text for row in rows for text in row.texts]
        + [text for subset in subsets for prompt in subset.prompts for text in prompt]
    )
    image_at, image_ND = embeds.images(
        [image for row in rows for image in (row.image, *row.others) if image]
        + [image for subset in subsets for image in subset.image_options]
    )

    def of(items: Sequence[ImageRef | str | None]) -> Floats:
        """Embeddings of images and texts, in the order given."""
        return np.stack([text_ND[text_at[x]] if isinstance(x, str) else image_ND[image_at[x]] for x in items if x])

    made = []
    for subset in subsets:
        if subset.rule == "text_to_image":
            found = _ranked(of([row.texts[0] for row in subset.rows]), of(subset.image_options), subset.rows)
        elif subset.rule in ("classify", "image_to_text"):
            options_OD = np.stack([prompted(of(prompt)) for prompt in subset.prompts])
            found = _ranked(of([row.image for row in subset.rows]), options_OD, subset.rows)
        else:
            found = _own(subset, of)
        for row, similarities in zip(subset.rows, found, strict=True):
            made.append(table_row(subset, row, similarities, model, leaked))
    return made


def score_blind(
    name: str, judge: Judge, subsets: Sequence[Subset], leaked: Leaked, progress: Progress
) -> list[dict[str, Any]]:
    """Rows of the scores table for a text-only baseline; `similarities` hold its preferences."""
    choices, made = [subset for subset in subsets if subset.rule == "choice"], []
    for done, subset in enumerate(choices):
        progress(f"subsets, {BLIND}{name}", done, len(choices))
        for row, preferences in zip(subset.rows, judge(subset), strict=True):
            made.append(table_row(subset, row, preferences, f"{BLIND}{name}", leaked))
    return made


def _compared(rule: Rule, row: Row) -> list[tuple[ImageRef | str | None, ImageRef | str | None]]:
    """Which similarities a row keeps, in order."""
    if rule == "texts":
        first, second, foil = row.texts
        return [(first, second), (first, foil), (second, foil)]
    return [(image, text) for image in (row.image, *row.others) for text in row.texts]


def _own(subset: Subset, of: Callable[[Sequence[ImageRef | str | None]], Floats]) -> Iterator[list[float] | None]:
    """Similarities within each row; None when an image is missing."""
    for start in range(0, len(subset.rows), PIECE):
        pairs = [_compared(subset.rule, row) for row in subset.rows[start : start + PIECE]]
        left_TD, right_TD = (of([pair[side] for row in pairs for pair in row]) for side in (0, 1))
        # Summed row by row, not as a matrix product: equal texts then get equal bits, and ties are real ties.
        similarity_T = iter((left_TD * right_TD).sum(1).tolist())
        for row in pairs:
            found = [next(similarity_T) for _ in row]
            yield None if any(np.isnan(found)) else found


def _ranked(query_ND: Floats, option_OD: Floats, rows: Sequence[Row]) -> Iterator[list[float] | None]:
    """Similarity of the best right option, then of the ten best wrong ones; None when the query or all right ones lack.

    Options without an image cannot be chosen and are left out.
    """
    lacking_O = np.isnan(option_OD[:, 0])
    for start in range(0, len(rows), PIECE):
        similarity_QO = query_ND[start : start + PIECE] @ option_OD.T
        similarity_QO[:, lacking_O] = -np.inf
        for row, similarity_O in zip(rows[start : start + PIECE], similarity_QO, strict=True):
            best_right = similarity_O[list(row.right)].max()
            if not np.isfinite(best_right):
                yield None
                continue
            similarity_O[list(row.right)] = -np.inf
            kept = min(WRONG_KEPT, len(similarity_O))
            wrong = np.partition(similarity_O, -kept)[-kept:]
            yield [float(best_right), *np.sort(wrong[np.isfinite(wrong)])[::-1].tolist()]
