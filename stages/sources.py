"""Readers of what users bring: each turns one kind of source into records, in file order, without decoding pictures.

`read` is the door; each reader below states the quirks of its format. Formats that pack pictures into archives are
unpacked into the `unpacked` folder, one file per picture, so that everything after ingest sees plain files.
"""

import ast
import csv
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import Field

from pipeline.config import Config
from pipeline.errors import UserError


class Record(NamedTuple):
    """One caption of one picture as its source states it; `image` is relative to the image folder."""

    origin: str
    image: str
    image_key: str
    caption: str
    split: str | None = None
    negatives: tuple[str, ...] = ()


class Format(Config):
    """How a source is laid out; each field says which sources read it."""

    captions: str = Field(
        "captions.csv", description="captions file relative to root; a glob for parquet and tar shards"
    )
    images: str = Field("images", description="picture folder, relative to root")
    image_column: str = Field("image", description="csv, parquet: column of the picture's path, or of its bytes")
    caption_column: str = Field("caption", description="csv, parquet: column of the caption, or of a list of captions")
    image_template: str = Field(
        "COCO_train2014_{:012d}.jpg", description="degla_json: file name of a picture from its number"
    )
    karpathy_splits: tuple[str, ...] = Field(
        ("train", "val", "test"), description="karpathy: which splits to take; restval (val2014) only when named"
    )
    encoding: str = Field("utf-8-sig", description="text encoding of the captions file")


def csv_pairs(path: Path, layout: Format) -> Iterator[Record]:
    """Rows of a CSV or TSV file with a header; the delimiter is read off the header line.

    Raises UserError when a column is missing (naming what was found), on text that is not in the stated encoding,
    and on a broken row.
    """
    lines = _text(path, layout.encoding).splitlines(keepends=True)
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter="\t" if header.count("\t") > header.count(",") else ",", strict=True)
    for column in (layout.image_column, layout.caption_column):
        if column not in (rows.fieldnames or ()):
            raise UserError(
                "ingest",
                f"{path.name} has no column {column!r}, found {rows.fieldnames}",
                "a header naming the picture and the caption column",
                "set ingest.format.image_column and ingest.format.caption_column",
            )
    try:
        for row in rows:
            image = (row[layout.image_column] or "").strip()
            key = f"csv:{path.stem}:{image}"
            yield Record(f"{path.name}:{rows.line_num}", image, key, row[layout.caption_column] or "")
    except csv.Error as error:
        raise _broken(path, rows.line_num, "CSV", error) from None


def coco_json(path: Path, layout: Format) -> Iterator[Record]:
    """Annotations of a COCO captions file; 2014 and 2017 file names both give the same key for the same picture."""
    found = _json(path, layout)
    with _shape(path, "COCO captions JSON: images[id, file_name], annotations[id, image_id, caption]"):
        names = {image["id"]: image["file_name"] for image in found["images"]}
        for note in found["annotations"]:
            name = names[note["image_id"]]
            yield Record(f"{path.name}:{note['id']}", name, coco_key(name), note["caption"])


def karpathy_json(path: Path, layout: Format) -> Iterator[Record]:
    """Karpathy's dataset_coco.json. `restval` pictures are val2014 and come only when asked for; they train."""
    found = _json(path, layout)
    with _shape(path, "dataset_coco.json: images[filepath, filename, split, sentences[raw]]"):
        for number, image in enumerate(found["images"]):
            if image["split"] not in layout.karpathy_splits:
                continue
            name = str(PurePosixPath(image.get("filepath", ""), image["filename"]))
            split = "train" if image["split"] == "restval" else image["split"]
            for order, sentence in enumerate(image["sentences"]):
                yield Record(f"{path.name}:{number}.{order}", name, coco_key(name), sentence["raw"], split)


def negclip_tsv(path: Path, layout: Format) -> Iterator[Record]:
    """NegCLIP's TSV: title, filepath, neg_caption as a Python list literal (read as data, never run).

    Its neg_image column holds row numbers of this very file, which mean nothing once rows are chosen, so it is left.
    """
    rows = csv.DictReader(_text(path, layout.encoding).splitlines(keepends=True), delimiter="\t", strict=True)
    with _shape(path, "a NegCLIP TSV: title, filepath, neg_caption"):
        for row in rows:
            try:
                negatives = ast.literal_eval(row["neg_caption"] or "[]")
            except (ValueError, SyntaxError) as error:
                raise _broken(path, rows.line_num, "a Python list in neg_caption", error) from None
            image = row["filepath"]
            yield Record(f"{path.name}:{rows.line_num}", image, coco_key(image), row["title"], None, tuple(negatives))


def degla_json(path: Path, layout: Format) -> Iterator[Record]:
    """The DeGLA release's JSON: a list of image_id, original, enhanced (four or more negatives)."""
    found = _json(path, layout)
    with _shape(path, "DeGLA.json: a list of {image_id, original, enhanced}"):
        for number, row in enumerate(found):
            name = layout.image_template.format(row["image_id"])
            yield Record(f"{path.name}:{number}", name, coco_key(name), row["original"], None, tuple(row["enhanced"]))


def sidecar_folder(root: Path, layout: Format) -> Iterator[Record]:
    """A folder of pictures, each with a .txt of the same name holding one caption per line."""
    folder = root / layout.images
    for text in sorted(folder.rglob("*.txt")):
        pictures = [path for path in sorted(text.parent.glob(f"{text.stem}.*")) if path.suffix != ".txt"]
        name = str((pictures[0] if pictures else text.with_suffix(".jpg")).relative_to(folder))
        for number, line in enumerate(_text(text, layout.encoding).splitlines(), start=1):
            yield Record(f"{text.relative_to(folder)}:{number}", name, f"folder:{folder.name}:{name}", line)


def tar_shards(paths: list[Path], layout: Format, unpacked: Path) -> Iterator[Record]:
    """webdataset shards, also as img2dataset writes them: {key}.jpg, {key}.txt, {key}.json per sample.

    A sample whose .json says another status than "success" has no picture and is passed over. Nothing in the archive
    chooses where a file goes: pictures are written as <shard>/<key with plain characters>.<suffix>.
    """
    for path in paths:
        samples: dict[str, dict[str, bytes]] = {}
        try:
            with tarfile.open(path) as shard:
                for member in shard:
                    key, _, suffix = member.name.partition(".")
                    if member.isfile() and (stream := shard.extractfile(member)):
                        samples.setdefault(key, {})[suffix.lower()] = stream.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise _broken(path, 0, "a whole tar archive", error) from None
        for key, parts in samples.items():
            facts = json.loads(parts.get("json", b"{}"))
            caption = (
                parts["txt"].decode(layout.encoding, "replace") if "txt" in parts else str(facts.get("caption") or "")
            )
            picture = next((name for name in ("jpg", "jpeg", "png", "webp") if name in parts), None)
            if facts.get("status", "success") != "success":
                continue
            name = f"{path.stem}/{_plain(key)}.{picture or 'jpg'}"
            if picture:
                _unpack(unpacked / name, parts[picture])
            key_in_source = str(facts.get("image_key") or f"tar:{path.stem}:{key}")
            negatives = tuple(map(str, facts.get("negatives") or ()))
            yield Record(f"{path.name}:{key}", name, key_in_source, caption, None, negatives)


def parquet_files(paths: list[Path], layout: Format, unpacked: Path) -> Iterator[Record]:
    """Hugging Face style Parquet: an image struct {bytes, path} or a path, and a caption or a list of captions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            table = pq.ParquetFile(path)
            missing = {layout.image_column, layout.caption_column} - set(table.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise _broken(path, 0, "a whole Parquet file", error) from None
        if missing:
            raise UserError(
                "ingest",
                f"{path.name} has no column {min(missing)!r}, found {table.schema_arrow.names}",
                "the picture and the caption column",
                "set ingest.format.image_column and ingest.format.caption_column",
            )
        number = 0
        for batch in table.iter_batches(256, columns=[layout.image_column, layout.caption_column]):
            for image, captions in zip(*(batch[name].to_pylist() for name in batch.schema.names), strict=True):
                name = f"{path.stem}/{number:08d}.img" if isinstance(image, dict) else str(image or "")
                if isinstance(image, dict) and image.get("bytes"):
                    _unpack(unpacked / name, image["bytes"])
                for caption in captions if isinstance(captions, list) else [captions]:
                    yield Record(f"{path.name}:{number}", name, f"parquet:{path.stem}:{number}", caption or "")
                number += 1


FILES: dict[str, Callable[[Path, Format], Iterator[Record]]] = {
    "csv": csv_pairs,
    "coco": coco_json,
    "karpathy": karpathy_json,
    "negclip_tsv": negclip_tsv,
    "degla_json": degla_json,
}
PACKED: dict[str, Callable[[list[Path], Format, Path], Iterator[Record]]] = {
    "webdataset": tar_shards,
    "parquet": parquet_files,
}


def places(source: str, root: Path | None, layout: Format) -> tuple[list[Path], Path | None]:
    """The files a source is read from, and its picture folder (None when the pictures are packed inside).

    Raises UserError when one of them is not there.
    """
    if root is None:
        raise UserError("ingest", "no folder given", "where captions and pictures are", "--set ingest.root=<folder>")
    root = root.expanduser().resolve()
    images = root / layout.images
    if source in PACKED:
        packed = sorted(root.glob(layout.captions))
        if not packed:
            raise UserError("ingest", f"no file {root / layout.captions}", "shards", "set ingest.format.captions")
        return packed, images if images.is_dir() else None
    captions = [] if source == "folder" else [root / layout.captions]
    absent = [("captions", path) for path in captions if not path.is_file()]
    for field, path in [*absent, *([] if images.is_dir() else [("images", images)])]:
        raise UserError(
            "ingest", f"{path} is not there", "an existing path", f"set ingest.root or ingest.format.{field}"
        )
    return captions, images


def read(source: str, root: Path, layout: Format, unpacked: Path) -> Iterator[Record]:
    """All records of a source, in file order; `unpacked` receives the pictures of packed formats."""
    paths, _ = places(source, root, layout)
    if source == "folder":
        return sidecar_folder(root.expanduser().resolve(), layout)
    return PACKED[source](paths, layout, unpacked) if source in PACKED else FILES[source](paths[0], layout)


def coco_key(file_name: str) -> str:
    """`coco:<collection>:<12-digit id>` of a COCO file name: COCO_train2014_000000000009.jpg, or 000000000009.jpg.

    2017 names carry no collection; the ids of 2014 and 2017 are the same pictures, so the collection is then "2017".
    """
    stem = PurePosixPath(file_name).stem
    collection, _, number = stem.removeprefix("COCO_").rpartition("_")
    return f"coco:{collection or '2017'}:{number}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _unpack(path: Path, content: bytes) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _broken(path: Path, line: int, kind: str, error: Exception) -> UserError:
    where = f"{path.name}:{line}" if line else path.name
    return UserError("ingest", f"{where} is not {kind} ({error})", kind, "mend or fetch that file again")


@contextmanager
def _shape(path: Path, expected: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UserError(
            "ingest", f"{path.name} lacks {error}", expected, "check ingest.source and ingest.format.captions"
        ) from None


def _text(path: Path, encoding: str) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(
            "ingest",
            f"{path.name}:{line} holds byte 0x{raw[error.start]:02x}, which is not {encoding}",
            f"{encoding} text",
            "set ingest.format.encoding (latin-1, cp1252, utf-16, ...) or convert the file",
        ) from None


def _json(path: Path, layout: Format) -> Any:
    try:
        return json.loads(_text(path, layout.encoding))
    except json.JSONDecodeError as error:
        raise _broken(path, error.lineno, "JSON", error) from None
