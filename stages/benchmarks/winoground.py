"""Winoground: two images and two captions of the same words."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.rows import Row, Subset


def read(folder: Path) -> Iterator[Subset]:
    """Lines of {image_0, image_1, caption_0, caption_1}; the names are given without .png."""
    for path in fields.only(folder, "*.jsonl", "examples.jsonl"):
        rows = []
        for row_id, item in fields.lines(path):
            names = [fields.text(path, row_id, item, f"image_{k}").removesuffix(".png") for k in (0, 1)]
            texts = fields.texts(path, row_id, item, "caption_0", "caption_1")
            first, second = (fields.below(path, row_id, "image", f"{name}.png", folder / "images")[1] for name in names)
            rows.append(Row(row_id, names[0], first, texts, other=second))
        yield Subset("winoground", "all", "square", "wrong", fields.digest(path), tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text, image and group score; it is known by the group score."""
    return square(benchmark, names, "correct")
