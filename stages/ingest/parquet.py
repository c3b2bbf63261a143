"""Parquet files in the style of Hugging Face: an image and its caption, or captions, per row.

Arrow is imported where it is used: the table of sources is read at every start of the command line.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.images import SUFFIXES
from stages.ingest.packed import KINDS, Shard
from stages.ingest.records import Format, Record, malformed

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_file(path: Path, layout: Format, shard: Shard) -> Iterator[Record]:
    """Hugging Face style Parquet: an image (struct {bytes, path}, bytes, or a path), and a caption or a list of them.

    Raises UserError when the file is broken, or a column is missing or holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    image_kind, caption_kind = _columns(path, layout)
    try:
        for batch in pq.ParquetFile(path).iter_batches(256, columns=[layout.image_column, layout.caption_column]):
            columns = batch.to_pydict()
            for image, told in zip(columns[layout.image_column], columns[layout.caption_column], strict=True):
                origin, key, fault = f"{path.name}:{number}", f"parquet:{shard.name}:{number}", None
                if image_kind == "path":
                    name = str(image or "")
                    key = f"parquet:{name}"
                else:
                    name, fault = _image(shard, number, image)
                for caption in (told or [""]) if caption_kind == "texts" else [told]:
                    yield Record(origin, name, key, caption or "", fault=fault)
                number += 1
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise malformed(path, 0, f"a whole Parquet file, after row {number}", error) from None


def _image(shard: Shard, number: int, image: Any) -> tuple[str, tuple[str, str] | None]:
    content, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
    if not content:
        return str(path or ""), ("image_missing", f"no bytes of {path}")
    suffix = PurePosixPath(path or "").suffix.lower()
    if suffix not in SUFFIXES:
        suffix = next((suffix for start, suffix in KINDS.items() if content.startswith(start)), ".img")
    return shard.unpack(f"{number:08d}{suffix}", content), None


def _columns(path: Path, layout: Format) -> tuple[str, str]:
    """What kind of image (bytes, path) and caption (text, texts) a Parquet file has. Raises UserError otherwise."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise malformed(path, 0, "a whole Parquet file", error) from None
    found = {field.name: str(field.type) for field in schema}
    kinds = []
    for name, expected, kind in (
        (layout.image_column, "a path, bytes, or a struct {bytes, path}", _image_kind),
        (layout.caption_column, "a text or a list of texts", _caption_kind),
    ):
        if name not in found:
            raise UserError(
                "ingest",
                f"{path.name} has no column {name!r}, found {list(found)}",
                "the image and the caption column",
                "set ingest.format.image_column and ingest.format.caption_column",
            )
        if (told := kind(schema.field(name).type)) is None:
            raise UserError(
                "ingest",
                f"{path.name} has {name!r} as {found[name]}",
                expected,
                "set ingest.format.image_column and ingest.format.caption_column",
            )
        kinds.append(told)
    return kinds[0], kinds[1]


def _image_kind(kind: "pa.DataType") -> str | None:
    from pyarrow import types

    if types.is_struct(kind):
        return "bytes" if "bytes" in {field.name for field in kind} else None
    return "bytes" if _is_binary(kind) else "path" if _is_text(kind) else None


def _caption_kind(kind: "pa.DataType") -> str | None:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return "texts" if _is_text(kind.value_type) else None
    return "text" if _is_text(kind) else None


def _is_text(kind: "pa.DataType") -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_binary(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def holds_images(paths: Sequence[Path], layout: Format) -> bool:
    """Whether Parquet files hold the images themselves, not their names; UserError unless all of them agree."""
    found = {path.name: _columns(path, layout)[0] for path in paths}
    first = next(iter(found))
    for name, kind in found.items():
        if kind != found[first]:
            raise UserError(
                "ingest",
                f"{name} has {layout.image_column!r} as {kind}, {first} as {found[first]}",
                "files of one schema",
                "narrow ingest.format.captions to files that belong together",
            )
    return found[first] == "bytes"
