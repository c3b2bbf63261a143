"""ColorSwap: two images and two captions of the same words, in which colours change places."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.records import records
from stages.benchmarks.records import square as square_row
from stages.benchmarks.rows import Subset


def read(folder: Path) -> Iterator[Subset]:
    """test.json of the authors ([{id, caption_1, caption_2, image_1, image_2}]), or the hub's Parquet file.

    Images are named as below the folder, "images/img_0_1.png". The training examples are another file and not read.
    """
    for path in [folder / "test.json", *sorted(folder.glob("test*.parquet"))]:
        if path.is_file():
            found = records(path, ("caption_1", "caption_2"), ("image_1", "image_2"), folder)
            rows = tuple(square_row(path, record, "caption_1", "caption_2", prefix="colorswap:") for record in found)
            yield Subset("colorswap", "test", "square", "wrong", fields.digest(path), rows)
            return


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text, image and group score; it is known by the group score."""
    return square(benchmark, names, "correct")
