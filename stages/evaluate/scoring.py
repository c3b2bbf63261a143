"""Similarities and decisions, rule by rule: subsets and embeddings in, rows of the scores table out.

Shapes: N rows · T texts of several rows · O options of a whole subset · Q queries at a time · D embedding width.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.stage import Progress
from stages.benchmarks.loaders import Picture, Row, Rule, Subset
from stages.evaluate.blind import Judge

Floats = NDArray[np.float32]
Leaked = set[tuple[str, str, str]]
"""benchmark, subset, row_id of rows that overlap with training data."""

PIECE = 1024
WRONG_KEPT = 10
BLIND = "blind:"
"""Models whose name begins so are judges that saw no picture."""


class Embeds(Protocol):
    """What gives every distinct picture and text its embedding: item -> row, and the rows (NaN: no picture there)."""

    def pictures(self, pictures: Sequence[Picture]) -> tuple[dict[Picture, int], Floats]:
        """Embeddings of pictures."""

    def texts(self, texts: Sequence[str]) -> tuple[dict[str, int], Floats]:
        """Embeddings of texts."""


def score(embeds: Embeds, subsets: Sequence[Subset], model: str, leaked: Leaked) -> list[dict[str, Any]]:
    """Rows of the scores table for one model."""
    rows = [row for subset in subsets for row in subset.rows]
    text_at, text_ND = embeds.texts(
        [text for row in rows for text in row.texts]
        + [text for subset in subsets for prompt in subset.prompts for text in prompt]
    )
    image_at, image_ND = embeds.pictures(
        [picture for row in rows for picture in (row.picture, row.other) if picture]
        + [picture for subset in subsets for picture in subset.pictures]
    )

    def of(items: Sequence[Picture | str | None]) -> Floats:
        """Embeddings of pictures and texts, in the order given."""
        return np.stack([text_ND[text_at[x]] if isinstance(x, str) else image_ND[image_at[x]] for x in items if x])

    made = []
    for subset in subsets:
        if subset.rule == "text_to_image":
            asked = _ranked(of([row.texts[0] for row in subset.rows]), of(subset.pictures), subset.rows)
        elif subset.rule in ("classify", "image_to_text"):
            options_OD = np.stack([prompted(of(prompt)) for prompt in subset.prompts])
            asked = _ranked(of([row.picture for row in subset.rows]), options_OD, subset.rows)
        else:
            asked = _own(subset, of)
        for row, similarities in zip(subset.rows, asked, strict=True):
            made.append(table_row(subset, row, similarities, model, leaked))
    return made


def blind(
    name: str, judge: Judge, subsets: Sequence[Subset], leaked: Leaked, progress: Progress
) -> list[dict[str, Any]]:
    """Rows of the scores table for a judge that only reads the options; `similarities` hold its preferences."""
    asked, made = [subset for subset in subsets if subset.rule == "choice"], []
    for done, subset in enumerate(asked):
        progress(f"subsets, {BLIND}{name}", done, len(asked))
        for row, preferences in zip(subset.rows, judge(subset), strict=True):
            made.append(table_row(subset, row, preferences, f"{BLIND}{name}", leaked))
    return made


def margin(rule: Rule, similarities: Sequence[float]) -> float:
    """By how much a row is right: above 0 right, below 0 wrong, 0 a tie. The order of `similarities` is the rule's."""
    first, *rest = similarities
    if rule == "both":
        return min(first, rest[0]) - rest[1]
    if rule == "square":
        (b, c, d) = rest
        return min(first - b, d - c, first - c, d - b)
    return first - max(rest, default=float("-inf"))


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
        "group": row.group,
        "similarities": similarities,
        "correct": tied if by == 0 else by if np.isnan(by) else float(by > 0),
        "tie": by == 0,
        "leaked": (subset.benchmark, subset.name, row.row_id) in leaked,
        "protocol": subset.protocol,
    }


def _compared(rule: Rule, row: Row) -> list[tuple[Picture | str | None, Picture | str | None]]:
    """Which similarities a row keeps, in order."""
    if rule == "texts":
        first, second, foil = row.texts
        return [(first, second), (first, foil), (second, foil)]
    shown = (row.picture, row.other) if rule == "square" else (row.picture,)
    return [(picture, text) for picture in shown for text in row.texts]


def _own(subset: Subset, of: Callable[[Sequence[Picture | str | None]], Floats]) -> Iterator[list[float] | None]:
    """Similarities within each row; None when a picture is missing."""
    for start in range(0, len(subset.rows), PIECE):
        pairs = [_compared(subset.rule, row) for row in subset.rows[start : start + PIECE]]
        left_TD, right_TD = (of([pair[side] for row in pairs for pair in row]) for side in (0, 1))
        # Summed row by row, not as a matrix product: equal texts then get equal bits, and ties are real ties.
        similarity_T = iter((left_TD * right_TD).sum(1).tolist())
        for row in pairs:
            found = [next(similarity_T) for _ in row]
            yield None if any(np.isnan(found)) else found


def prompted(prompt_PD: Floats) -> Floats:
    """One class: the mean of its prompts' embeddings, normalised again (CLIP's prompt ensemble)."""
    mean_D = prompt_PD.mean(0)
    return np.asarray(mean_D / np.linalg.norm(mean_D), dtype=np.float32)


def _ranked(query_ND: Floats, option_OD: Floats, rows: Sequence[Row]) -> Iterator[list[float] | None]:
    """Similarity of the best right option, then of the ten best wrong ones; None when the query or all right ones lack.

    Options without a picture cannot be chosen and are left out.
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
