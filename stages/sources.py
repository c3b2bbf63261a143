"""Readers of what users bring: each turns one kind of file into records, in file order, without opening pictures."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pipeline.errors import UserError


class Record(NamedTuple):
    """One caption of one picture as its source states it; `image` is relative to the image folder."""

    origin: str
    image: str
    image_key: str
    caption: str
    split: str | None


def csv_pairs(captions: Path, *, image_column: str, caption_column: str, encoding: str) -> Iterator[Record]:
    """Rows of a CSV or TSV file with a header; the delimiter is read off the header line.

    Raises UserError when a column is missing (naming what was found), on text that is not `encoding`, and on a
    broken row.
    """
    text = _text(captions, encoding)
    lines = text.splitlines(keepends=True)
    header = lines[0] if lines else ""
    delimiter = "\t" if header.count("\t") > header.count(",") else ","
    rows = csv.DictReader(lines, delimiter=delimiter, strict=True)
    for column in (image_column, caption_column):
        if column not in (rows.fieldnames or ()):
            raise UserError(
                "ingest",
                f"{captions.name} has no column {column!r}, found {rows.fieldnames}",
                "a header naming the picture and the caption column",
                "set ingest.image_column and ingest.caption_column",
            )
    try:
        for row in rows:
            image = (row[image_column] or "").strip()
            yield Record(
                f"{captions.name}:{rows.line_num}",
                image,
                f"csv:{captions.stem}:{image}",
                row[caption_column] or "",
                None,
            )
    except csv.Error as error:
        raise UserError(
            "ingest", f"{captions.name}:{rows.line_num} is not CSV ({error})", "balanced quotes", "mend that line"
        ) from None


def coco_pairs(captions: Path, *, encoding: str) -> Iterator[Record]:
    """Annotations of a COCO captions JSON file (2014 and 2017 file names).

    Raises UserError on broken JSON and on missing keys.
    """
    found = _json(captions, encoding)
    try:
        names = {image["id"]: image["file_name"] for image in found["images"]}
        for note in found["annotations"]:
            name = names[note["image_id"]]
            yield Record(f"{captions.name}:{note['id']}", name, coco_key(name), note["caption"], None)
    except (KeyError, TypeError) as error:
        raise UserError(
            "ingest",
            f"{captions.name} lacks {error}",
            "COCO captions JSON: images[id, file_name], annotations[id, image_id, caption]",
            "check ingest.captions, or set ingest.source",
        ) from None


def coco_key(file_name: str) -> str:
    """`coco:<collection>:<12-digit id>` of a COCO file name: COCO_train2014_000000000009.jpg, or 000000000009.jpg.

    2017 names carry no collection; the ids of 2014 and 2017 are the same pictures, so the collection is then "2017".
    """
    stem = PurePosixPath(file_name).stem
    collection, _, number = stem.removeprefix("COCO_").rpartition("_")
    return f"coco:{collection or '2017'}:{number}"


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
            "set ingest.encoding (latin-1, cp1252, utf-16, ...) or convert the file",
        ) from None


def _json(path: Path, encoding: str) -> Any:
    try:
        return json.loads(_text(path, encoding))
    except json.JSONDecodeError as error:
        raise UserError(
            "ingest", f"{path.name}:{error.lineno} is not JSON ({error.msg})", "a whole JSON file", "fetch it again"
        ) from None
