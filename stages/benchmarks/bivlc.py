"""BiVLC: two images and two captions, in the published Parquet shards or as files."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.records import records
from stages.benchmarks.records import square as square_row
from stages.benchmarks.rows import Row, Subset

WORDS = ("caption", "negative_caption", "type", "subtype")
IMAGES = ("image", "negative_image")


def read(folder: Path) -> Iterator[Subset]:
    """The published Parquet shards with their images inside, or a test.csv that names image files.

    Columns: image, caption, negative_caption, negative_image, type, subtype. One subset per type and subtype.
    """
    shards = sorted(folder.glob("*.parquet"))
    tables = [folder / "test.csv"] if (folder / "test.csv").is_file() else []
    if shards and tables:
        raise UserError("evaluate", f"{folder} holds test.csv and {shards[0].name}", "one of the two", "move one away")
    rows: dict[str, list[Row]] = {}
    for path in shards + tables:
        for found in records(path, WORDS, IMAGES, folder / "images"):
            record = found._replace(row_id=f"{path.stem}:{found.row_id}")
            kind = "_".join(fields.texts(path, record.row_id, record.item, "type", "subtype"))
            rows.setdefault(kind, []).append(square_row(path, record, "caption", "negative_caption"))
    digest = "+".join(fields.digest(path) for path in shards + tables)
    for kind in sorted(rows):
        yield Subset("bivlc", kind, "square", "wrong", digest, tuple(rows[kind]))


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text (I2T), image (T2I) and group score; it is known by the group score."""
    return square(benchmark, names, "correct")
