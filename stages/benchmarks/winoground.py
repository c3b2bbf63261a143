"""Winoground: two images and two captions of the same words."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.records import records
from stages.benchmarks.records import square as square_row
from stages.benchmarks.rows import Subset


def read(folder: Path) -> Iterator[Subset]:
    """Lines of {image_0, image_1, caption_0, caption_1}; the names are given without .png."""
    for path in fields.only(folder, "*.jsonl", "examples.jsonl"):
        found = records(path, (), ("image_0", "image_1"), folder / "images", ".png")
        rows = tuple(square_row(path, record, "caption_0", "caption_1") for record in found)
        yield Subset("winoground", "all", "square", "wrong", fields.digest(path), rows)


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text, image and group score; it is known by the group score."""
    return square(benchmark, names, "correct")
