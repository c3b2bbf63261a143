"""Rows of a benchmark's file with their images, whatever the form.

JSON, JSON lines and CSV name the images; Parquet and Arrow hold them, in cells {bytes, path} as Hugging Face has them.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.clip import PICTURES
from pipeline.errors import UserError
from stages.benchmarks import fields
from stages.benchmarks.rows import ImageRef, Part, Row, Subset

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

PACKED = (".parquet", ".arrow")


class Record(NamedTuple):
    """One row.

    Attributes:
        row_id: its position, or its key.
        item: its fields.
        keys: name of each image, without `ending`; of an image inside a file without a name, file and position.
        images: the images.
    """

    row_id: str
    item: dict[str, Any]
    keys: tuple[str, ...]
    images: tuple[ImageRef, ...]


def records(
    path: Path, words: Sequence[str], images: Sequence[str], folder: Path, ending: str = ""
) -> Iterator[Record]:
    """Rows of a file, by its ending.

    Args:
        path: .json, .jsonl, .csv, .parquet or .arrow (a stream, as `datasets` saves it).
        words: columns to read of a packed file, beside the images.
        images: fields, or columns, of the images.
        folder: image files are below it.
        ending: of the image files, where names may lack it.

    Raises UserError as `fields` does, and for a packed file that is cut short or lacks a column.
    """
    if path.suffix in PACKED:
        for index, item in enumerate(_packed(path, words, images)):
            keys = tuple(item.get(name) or f"{path.stem}:{index}" for name in images)
            found = tuple(ImageRef(path, part=Part(read_packed, name, index)) for name in images)
            yield Record(str(index), item, keys, found)
        return
    readers: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {".csv": fields.table, ".jsonl": fields.lines}
    for row_id, item in readers.get(path.suffix, fields.items)(path):
        names = [fields.text(path, row_id, item, name).removesuffix(ending) for name in images]
        found = tuple(fields.below(path, row_id, "image", name + ending, folder)[1] for name in names)
        yield Record(row_id, item, tuple(names), found)


def square(path: Path, record: Record, *texts: str, prefix: str = "") -> Row:
    """A record of two images and two texts as a row; `prefix` tells its images from another set's of the same name."""
    first, *others = record.images
    found = fields.texts(path, record.row_id, record.item, *texts)
    return Row(record.row_id, prefix + record.keys[0], first, found, others=tuple(others))


def examples(benchmark: str, folder: Path, ending: str) -> Iterator[Subset]:
    """examples.jsonl: lines of {image_0, image_1, caption_0, caption_1}; names in images/ may lack `ending`."""
    for path in fields.only(folder, "*.jsonl", "examples.jsonl"):
        found = records(path, (), ("image_0", "image_1"), folder / "images", ending)
        rows = tuple(square(path, record, "caption_0", "caption_1") for record in found)
        yield Subset(benchmark, "all", "square", "wrong", fields.digest(path), rows)


def right_first(path: Path, row_id: str, name: str, options: Sequence[Any], right: Any) -> list[Any]:
    """The options with the right one, given by its position, before the others."""
    place = str(right)
    if not place.isascii() or not place.isdigit() or not int(place) < len(options) or len(options) < 2:
        fields.wrong(path, row_id, name, right, f"the position of one of {len(options)} options, of two at least")
    return [options[int(place)], *options[: int(place)], *options[int(place) + 1 :]]


def _packed(path: Path, words: Sequence[str], images: Sequence[str]) -> list[dict[str, Any]]:
    """The words of a packed file, and of each image its file name where it has one."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            shard = pq.ParquetFile(path)
            names = set(shard.schema_arrow.names)
            kept = shard.read([*words, *(f"{name}.path" for name in images)])
        else:
            kept = _stream(path)
            names = set(kept.schema.names)
        lacking = {*words, *images} - names
        if lacking:
            fields.wrong(path, "", "column", min(lacking), ", ".join((*words, *images)))
        plain = kept.select(list(words))
        for name in images:
            named = name in kept.column_names and kept.schema.field(name).type.get_field_index("path") >= 0
            keys = pc.struct_field(kept[name], "path") if named else pa.nulls(len(kept))
            plain = plain.append_column(name, keys)
        return list(plain.to_pylist())
    except (OSError, ValueError, AttributeError, pa.ArrowException) as error:
        raise UserError("evaluate", f"{path} cannot be read: {error}", "a whole shard", fields.FIX) from error


@lru_cache(maxsize=8)
def _stream(path: Path) -> "pa.Table":
    """An Arrow stream, mapped: nothing of the images is read before it is asked for."""
    import pyarrow as pa

    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


@lru_cache(maxsize=4)
def _row_group(path: Path, group: int, column: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.ParquetFile(path).read_row_group(group, columns=[column])[column].to_pylist())


def read_packed(path: Path, column: str, row: int) -> "Image":
    """The image in one cell of a packed file, as RGB."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    try:
        if path.suffix == ".arrow":
            cell = _stream(path)[column][row].as_py()
        else:
            shape, group, inside = pq.read_metadata(path), 0, row
            while inside >= shape.row_group(group).num_rows:
                inside -= shape.row_group(group).num_rows
                group += 1
            cell = _row_group(path, group, column)[inside]
        with Image.open(io.BytesIO(cell["bytes"]), formats=PICTURES) as image:
            return image.convert("RGB")
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException, Image.DecompressionBombError) as error:
        raise UserError(
            "evaluate", f"{path} row {row} has no image in {column}: {error}", "{bytes, path}", fields.FIX
        ) from error
