"""Subsets of stand-in images, and known embeddings for the real scoring."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.benchmarks.rows import ImageRef, Row, Subset


class Told:
    """A scorer that is told each embedding: the real scoring on known vectors."""

    def __init__(self, vectors: dict[Any, list[float]]) -> None:
        self.vectors = vectors

    def _of(self, items: Any) -> tuple[dict[Any, int], np.ndarray]:
        at = {item: index for index, item in enumerate(dict.fromkeys(items))}
        return at, np.asarray([self.vectors[item] for item in at] or [[0.0]], dtype=np.float32)

    images = texts = _of


def images(n: int) -> list[ImageRef]:
    return [ImageRef(Path(f"{index}.png")) for index in range(n)]


def pairs_of(n: int, **rest: Any) -> Subset:
    rows = tuple(Row(str(i), f"{i}", image, (f"true {i}", f"false {i}")) for i, image in enumerate(images(n)))
    return Subset(
        **({"benchmark": "sugarcrepe", "name": "swap_att", "rule": "choice", "tie": "wrong", "digest": "d"} | rest),
        rows=rows,
    )


def told(subset: Subset, cosines: list[tuple[float, float]]) -> dict[Any, list[float]]:
    """Unit vectors whose cosine with (1, 0) is as given; NaN = the image is missing."""
    vectors: dict[Any, list[float]] = {}
    for row, (true, false) in zip(subset.rows, cosines, strict=True):
        vectors[row.image] = [1.0, 0.0] if true == true else [float("nan")] * 2
        for text, cosine in zip(row.texts, (true, false), strict=True):
            vectors[text] = [cosine, float(np.sqrt(1 - cosine**2))] if cosine == cosine else [1.0, 0.0]
    return vectors
