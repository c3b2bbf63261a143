"""Readers of formats that pack images with their captions: tar shards and Parquet files with image bytes."""

import hashlib
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.tables import replacing
from stages.images import SUFFIXES
from stages.ingest.records import Format, Record, malformed

KINDS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}
"""First bytes of an image -> suffix, for images without a name."""

LARGEST = 1 << 28
"""Bytes of a file in a shard; a sparse or packed one of a few kilobytes may claim terabytes."""

IMG2DATASET = ".parquet"
"""Suffix of img2dataset's list beside a shard, which names also what never got into it."""


class Shard(NamedTuple):
    """Where the images packed in one file are written: `<folder>/<name>/<image>`.

    Attributes:
        folder: of all unpacked images.
        name: of the file in plain characters, different for different files of one source.
    """

    folder: Path
    name: str

    @classmethod
    def of(cls, file: str, folder: Path) -> "Shard":
        """The shard of a file, which is named by its path below the source's root."""
        return cls(folder, _plain(str(Path(file).with_suffix(""))))

    def unpack(self, image: str, content: bytes) -> str:
        """Write an image, whole or not at all, unless it is there. Gives its path below `folder`."""
        path = self.folder / self.name / image
        if not path.exists():
            with replacing(path) as unfinished:
                unfinished.write_bytes(content)
        return f"{self.name}/{image}"


def tar_shard(path: Path, layout: Format, shard: Shard) -> Iterator[Record]:
    """A webdataset shard, also as img2dataset writes them: {key}.jpg, {key}.txt, {key}.json per sample.

    What img2dataset could not fetch stands in the Parquet file beside the shard (status, error_message) and becomes a
    fault. Nothing in the archive chooses where a file goes: images are written as <shard>/<key in plain characters>.
    Raises UserError for a broken archive and for a key that stands twice in a shard.
    """
    seen = set[str]()
    try:
        with tarfile.open(path) as archive:
            for key, parts in _samples(archive):
                if key in seen:
                    raise UserError("ingest", f"{path.name} holds {key!r} twice", "a key once per shard", "mend it")
                seen.add(key)
                yield _sample(f"{path.name}:{key}", shard, key, parts, layout)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError, OverflowError) as error:
        raise malformed(path, 0, "a whole tar archive", error) from None
    yield from _not_fetched(path.with_suffix(IMG2DATASET), seen)


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard: files in a row that share all of their name but what follows the first dot of it."""

    def key(member: tarfile.TarInfo) -> str:
        if member.size > LARGEST:
            raise tarfile.ReadError(f"{member.name} claims {member.size} bytes")
        name = PurePosixPath(member.name)
        return str(name.parent / name.name.partition(".")[0])

    for name, members in groupby((member for member in archive if member.isfile()), key):
        streams = ((member.name, archive.extractfile(member)) for member in members)
        yield (
            name,
            {PurePosixPath(file).name.partition(".")[2].lower(): stream.read() for file, stream in streams if stream},
        )


def _sample(origin: str, shard: Shard, key: str, parts: dict[str, bytes], layout: Format) -> Record:
    try:
        facts = json.loads(parts.get("json", b"{}"))
        if not isinstance(facts, dict):
            raise ValueError(type(facts).__name__)
    except (ValueError, RecursionError) as error:
        return Record(origin, "", "", "", fault=("row_shape", f"its .json is no JSON object ({error})"))
    caption = str(facts.get("caption") or "")
    if (text := parts.get("txt", parts.get("caption"))) is not None:
        caption = text.decode(layout.encoding, "replace")
    image_key = str(facts.get("image_key") or f"tar:{shard.name}:{key}")
    if (status := facts.get("status", "success")) != "success":
        return Record(origin, "", image_key, caption, fault=("not_fetched", str(facts.get("error_message") or status)))
    suffix = next((suffix for suffix in parts if f".{suffix}" in SUFFIXES), None)
    if suffix is None:
        return Record(origin, "", image_key, caption, fault=("image_missing", f"no picture among {sorted(parts)}"))
    image = shard.unpack(f"{_plain(key)}.{suffix}", parts[suffix])
    negatives = facts.get("negatives") or ()
    if not isinstance(negatives, list | tuple):
        return Record(origin, "", "", "", fault=("row_shape", "negatives in its .json is no list"))
    return Record(origin, image, image_key, caption, None, tuple(map(str, negatives)))


def _not_fetched(path: Path, seen: set[str]) -> Iterator[Record]:
    """Rows of img2dataset's Parquet file beside a shard that never got into the shard."""
    if not path.is_file():
        return
    try:
        found = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise malformed(path, 0, "a whole Parquet file", error) from None
    for row in found:
        if row.get("status", "success") != "success" and str(row.get("key")) not in seen:
            detail = str(row.get("error_message") or row["status"])
            url, caption = str(row.get("url") or ""), str(row.get("caption") or "")
            yield Record(f"{path.name}:{row.get('key')}", url, "", caption, fault=("not_fetched", detail))


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


def parquet_file(path: Path, layout: Format, shard: Shard) -> Iterator[Record]:
    """Hugging Face style Parquet: an image (struct {bytes, path}, bytes, or a path), and a caption or a list of them.

    Raises UserError when the file is broken, or a column is missing or holds something else.
    """
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


def _image_kind(kind: pa.DataType) -> str | None:
    if pa.types.is_struct(kind):
        return "bytes" if "bytes" in {field.name for field in kind} else None
    return "bytes" if _is_binary(kind) else "path" if _is_text(kind) else None


def _caption_kind(kind: pa.DataType) -> str | None:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "texts" if _is_text(kind.value_type) else None
    return "text" if _is_text(kind) else None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _plain(name: str) -> str:
    """A name in characters that any file system takes; names that had others stay different by their digest."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"
