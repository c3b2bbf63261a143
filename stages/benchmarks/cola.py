"""COLA's multi-object set: two images and two captions, attributes exchanged between objects."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.rows import Row, Subset


def read(folder: Path) -> Iterator[Subset]:
    """[image, caption, image, caption]; images are given as addresses, whose last part is the file name."""
    for path in fields.only(folder, "*.json", "COLA_multiobjects_matching_benchmark.json"):
        rows = []
        for row_id, item in fields.items(path):
            if not isinstance(item, list) or len(item) != 4:
                fields.wrong(path, row_id, "row", item, "[image, caption, image, caption]")
            one, first, two, second = (fields.worded(path, row_id, "row", part) for part in item)
            (key, image), (_, other) = (
                fields.below(path, row_id, "row", address.rpartition("/")[2], folder / "images")
                for address in (one, two)
            )
            rows.append(Row(row_id, key, image, (first, second), others=(other,)))
        yield Subset("cola", "multi_object", "square", "wrong", fields.digest(path), tuple(rows))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text, image and group score; it is known by the image score."""
    return square(benchmark, names, "image")
