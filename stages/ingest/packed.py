"""Readers of formats that pack images with their captions: tar shards and Parquet files with image bytes."""

import hashlib
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise malformed(path, 0, "a whole Parquet file", error) from None
    for row in found:
        if row.get("status", "success") != "success" and str(row.get("key")) not in seen:
            detail = str(row.get("error_message") or row["status"])
            url, caption = str(row.get("url") or ""), str(row.get("caption") or "")
            yield Record(f"{path.name}:{row.get('key')}", url, "", caption, fault=("not_fetched", detail))


def _plain(name: str) -> str:
    """A name in characters that any file system takes; names that had others stay different by their digest."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"
