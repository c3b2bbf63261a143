"""BiVLC: two images and two captions, in the published Parquet shards or as files."""

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.clip import PICTURES
from pipeline.errors import UserError
from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, square
from stages.benchmarks.rows import ImageRef, Part, Row, Subset

if TYPE_CHECKING:
    from PIL.Image import Image

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
    for kind, row in (found for path in shards + tables for found in _rows(folder, path)):
        rows.setdefault(kind, []).append(row)
    digest = "+".join(fields.digest(path) for path in shards + tables)
    for kind in sorted(rows):
        yield Subset("bivlc", kind, "square", "wrong", digest, tuple(rows[kind]))


def _rows(folder: Path, path: Path) -> Iterator[tuple[str, Row]]:
    inside = path.suffix == ".parquet"
    for index, item in enumerate(_packed_rows(path) if inside else (row for _, row in fields.table(path))):
        row_id = f"{path.stem}:{index}"
        if inside:
            pair = [ImageRef(path, part=Part(read_parquet, column, index)) for column in IMAGES]
            key = item["key"] or row_id
        else:
            (key, first), (_, second) = (fields.image(path, row_id, item, name, folder / "images") for name in IMAGES)
            pair = [first, second]
        kind = "_".join(fields.text(path, row_id, item, name) for name in ("type", "subtype"))
        texts = fields.texts(path, row_id, item, "caption", "negative_caption")
        yield kind, Row(row_id, str(key), pair[0], texts, other=pair[1])


def _packed_rows(path: Path) -> list[dict[str, Any]]:
    """The words of a shard; `key` is the image's file name where the shard keeps it."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        shard = pq.ParquetFile(path)
        kept = shard.read([*WORDS, "image.path"])
        lacking = {*WORDS, *IMAGES} - set(shard.schema_arrow.names)
        if lacking:
            fields.wrong(path, "", "column", min(lacking), ", ".join((*WORDS, *IMAGES)))
        keys = pc.struct_field(kept["image"], "path") if "image" in kept.column_names else pa.nulls(len(kept))
        return list(kept.select(list(WORDS)).append_column("key", keys).to_pylist())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            "evaluate", f"{path} cannot be read: {error}", "a Parquet shard of BiVLC", fields.FIX
        ) from error


@lru_cache(maxsize=4)
def _row_group(path: Path, group: int, column: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.ParquetFile(path).read_row_group(group, columns=[column])[column].to_pylist())


def read_parquet(path: Path, column: str, row: int) -> "Image":
    """The image in one cell of a Parquet file, as RGB; the cell is Hugging Face's {bytes, path}."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    try:
        shape, group, inside = pq.read_metadata(path), 0, row
        while inside >= shape.row_group(group).num_rows:
            inside -= shape.row_group(group).num_rows
            group += 1
        content = io.BytesIO(_row_group(path, group, column)[inside]["bytes"])
        with Image.open(content, formats=PICTURES) as image:
            return image.convert("RGB")
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException, Image.DecompressionBombError) as error:
        raise UserError(
            "evaluate", f"{path} row {row} has no image in {column}: {error}", "{bytes, path}", fields.FIX
        ) from error


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Text (I2T), image (T2I) and group score; it is known by the group score."""
    return square(benchmark, names, "correct")
