"""COCO-Counterfactuals: two captions that differ in one noun, and an image drawn of each."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.records import examples
from stages.benchmarks.rows import Subset


def read(folder: Path) -> Iterator[Subset]:
    """examples.jsonl: lines of {id, image_0, image_1, caption_0, caption_1}; the names are given without .jpg."""
    return examples("coco_counterfactuals", folder, ".jpg")


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text, image and group score; it is known by the group score."""
    return square(benchmark, names, "correct")
