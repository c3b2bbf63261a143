"""Readers of what users bring: each turns one kind of source into records, in file order, without decoding pictures.

`read` is the door; each reader below states the quirks of its format. A row that cannot be understood is a record with
a fault; a file that cannot is a UserError. Formats that pack pictures (`stages.packed`) are unpacked into a folder, one
file per picture, so that everything after ingest sees plain files.
"""

import ast
import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.stage import Progress, silent


class Record(NamedTuple):
    """One caption of one picture as its source states it.

    Attributes:
        origin: file and row.
        image: relative to the image folder.
        image_key: see PAIRS.
        caption: as it stands there.
        split: where the source decides it.
        negatives: captions of the source's own that are not true of the picture.
        types: of each of these, in the same order; empty where the source does not say.
        fault: (reason, detail) of a row that the source itself, or its reader, calls unusable.
        scene: scene graph of a picture of the built-in world, as JSON.
    """

    origin: str
    image: str
    image_key: str
    caption: str
    split: str | None = None
    negatives: tuple[str, ...] = ()
    types: tuple[str | None, ...] = ()
    fault: tuple[str, str] | None = None
    scene: str | None = None


class Format(Config):
    """How a source is laid out; each field says which sources read it."""

    captions: str = Field(
        "captions.csv", description="captions file relative to root; a glob for parquet, tar shards and ce_clip"
    )
    images: str = Field("images", description="picture folder, relative to root; unused where pictures are packed")
    image_column: str = Field("image", description="csv, parquet: column of the picture's path, or of its bytes")
    caption_column: str = Field("caption", description="csv, parquet: column of the caption, or of a list of captions")
    image_template: str = Field(
        "COCO_train2014_{:012d}.jpg", description="degla_json, ce_clip: file name of a picture from its number"
    )
    karpathy_splits: tuple[str, ...] = Field(
        ("train", "val", "test"), description="karpathy: which splits to take; restval (val2014) only when named"
    )
    allow_pickle: bool = Field(
        False, description="ce_clip, cc_neg: read files that are pickles; only data is taken from them, no code is run"
    )
    evaluation_rows: int = Field(40_000, ge=0, description="cc_neg: rows at the file's end that are its test split")
    encoding: str = Field("utf-8-sig", description="text encoding of the captions file")

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError:
            raise ValueError("Python knows no such text encoding") from None
        return encoding


def csv_pairs(path: Path, layout: Format) -> Iterator[Record]:
    """Rows of a CSV or TSV file with a header; the delimiter is read off the header line.

    Raises UserError when a column is missing (naming what was found), on text that is not in the stated encoding,
    and on a broken row.
    """
    text = _text(path, layout.encoding)
    header = text.partition("\n")[0]
    rows = csv.reader(lines(text), delimiter="\t" if header.count("\t") > header.count(",") else ",", strict=True)
    try:
        names = next(rows, [])
        for column in (layout.image_column, layout.caption_column):
            if column not in names:
                raise UserError(
                    "ingest",
                    f"{path.name} has no column {column!r}, found {names}",
                    "a header naming the picture and the caption column",
                    "set ingest.format.image_column and ingest.format.caption_column",
                )
        image_at, caption_at = names.index(layout.image_column), names.index(layout.caption_column)
        for row in filter(None, rows):
            origin = f"{path.name}:{rows.line_num}"
            if len(row) != len(names):
                # Most often a caption with a comma and no quotes: taking the row would cut the caption.
                found = f"{len(row)} fields where the header has {len(names)}: {row}"[:200]
                yield Record(origin, "", "", "", fault=("row_shape", found))
                continue
            image = row[image_at].strip()
            yield Record(origin, image, f"csv:{path.stem}:{image}", row[caption_at])
    except csv.Error as error:
        raise broken(path, rows.line_num, "CSV", error) from None


def coco_json(path: Path, layout: Format) -> Iterator[Record]:
    """Annotations of a COCO captions file; file names of 2014 (COCO_train2014_...) or of 2017 (the number alone)."""
    found = _json(path, layout)
    with _shape(path, "COCO captions JSON: images[id, file_name], annotations[id, image_id, caption]"):
        names = {image["id"]: image["file_name"] for image in found["images"]}
        for note in found["annotations"]:
            origin = f"{path.name}:{note['id']}"
            if (name := names.get(note["image_id"])) is None:
                yield Record(origin, "", "", note["caption"], fault=("image_unlisted", f"image_id {note['image_id']}"))
            else:
                yield Record(origin, name, coco_key(name), note["caption"])


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
    rows = csv.DictReader(lines(_text(path, layout.encoding)), delimiter="\t", strict=True)
    try:
        missing = {"title", "filepath", "neg_caption"} - set(rows.fieldnames or ())
    except csv.Error as error:
        raise broken(path, 1, "TSV", error) from None
    if missing:
        raise UserError(
            "ingest",
            f"{path.name} has no column {min(missing)!r}, found {rows.fieldnames}",
            "a NegCLIP TSV: title, filepath, neg_caption",
            "check ingest.source and ingest.format.captions",
        )
    try:
        for row in rows:
            origin, image = f"{path.name}:{rows.line_num}", row["filepath"] or ""
            try:
                negatives = ast.literal_eval(row["neg_caption"] or "")
                if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
                    raise ValueError(type(negatives).__name__)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                detail = f"neg_caption is no Python list of texts: {row['neg_caption']}"[:200]
                yield Record(origin, image, coco_key(image), row["title"] or "", fault=("row_shape", detail))
            else:
                yield Record(origin, image, coco_key(image), row["title"] or "", None, tuple(negatives))
    except csv.Error as error:
        raise broken(path, rows.line_num, "TSV", error) from None


def degla_json(path: Path, layout: Format) -> Iterator[Record]:
    """The DeGLA release's JSON: a list of image_id, original, enhanced (four or more negatives)."""
    found = _json(path, layout)
    with _shape(path, "DeGLA.json: a list of {image_id, original, enhanced}"):
        for number, row in enumerate(found):
            name, negatives = layout.image_template.format(int(row["image_id"])), row["enhanced"]
            if not isinstance(negatives, list):
                raise TypeError(f"a list in 'enhanced' of row {number}")
            yield Record(f"{path.name}:{number}", name, coco_key(name), row["original"], None, tuple(negatives))


def sidecar_folder(root: Path, layout: Format) -> Iterator[Record]:
    """A folder of pictures, each with a .txt of the same name holding one caption per line."""
    folder = root / layout.images
    pictures = {path.with_suffix(""): path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES}
    for text in sorted(folder.rglob("*.txt")):
        picture = pictures.get(text.with_suffix(""))
        name = str((picture or text).relative_to(folder))
        for number, line in enumerate(_text(text, layout.encoding).splitlines(), start=1):
            origin, key = f"{text.relative_to(folder)}:{number}", f"folder:{folder.name}:{name}"
            fault = None if picture else ("image_missing", f"no picture beside {name}")
            yield Record(origin, name, key, line, fault=fault)


PICTURES = frozenset(
    f".{suffix}"
    for suffix in [
        "jpg",
        "jpeg",
        "jfif",
        "png",
        "webp",
        "gif",
        "bmp",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "avif",
        "jp2",
        "img",
    ]
)
"""Suffixes by which a picture is told from what lies beside it; what is in the file decides when it is opened."""

FILES: dict[str, Callable[[Path, Format], Iterator[Record]]] = {
    "csv": csv_pairs,
    "coco": coco_json,
    "karpathy": karpathy_json,
    "negclip_tsv": negclip_tsv,
    "degla_json": degla_json,
}
PICKLES = ("ce_clip", "cc_neg")


def places(source: str, root: Path | None, layout: Format) -> tuple[list[Path], Path | None]:
    """The files a source is read from, and its picture folder (None when the pictures are packed inside).

    Raises UserError when one of them is not there, or when it is a pickle and that was not allowed.
    """
    from stages.ingest import packed

    if root is None:
        raise UserError("ingest", "no folder given", "where captions and pictures are", "--set ingest.root=<folder>")
    root = root.expanduser().resolve()
    if source in PICKLES and not layout.allow_pickle:
        raise UserError(
            "ingest",
            f"{source} files are pickles, which can run code when they are loaded",
            "your word that they come from where you trust",
            "set ingest.format.allow_pickle=true (they are read without running code)",
        )
    captions = [] if source == "folder" else sorted(root.glob(layout.captions))
    if source != "folder" and not any(path.is_file() for path in captions):
        raise UserError(
            "ingest",
            f"{root / layout.captions} is not there",
            "an existing path",
            "set ingest.root or ingest.format.captions",
        )
    images = root / layout.images
    if source == "webdataset" or (source == "parquet" and packed.holds_pictures(captions, layout)):
        return captions, None
    if not images.is_dir():
        raise UserError(
            "ingest", f"{images} is not there", "an existing path", "set ingest.root or ingest.format.images"
        )
    return captions, images


def read(source: str, root: Path, layout: Format, unpacked: Path, progress: Progress = silent) -> Iterator[Record]:
    """All records of a source, in file order; `unpacked` receives the pictures of packed formats."""
    return map(_sound, _read(source, root, layout, unpacked, progress))


def _read(source: str, root: Path, layout: Format, unpacked: Path, progress: Progress) -> Iterator[Record]:
    from stages.ingest import packed, pickles

    paths, _ = places(source, root, layout)
    root = root.expanduser().resolve()
    if source == "folder":
        yield from sidecar_folder(root, layout)
    for done, path in enumerate(paths, start=1):
        if source == "webdataset":
            yield from packed.tar_shard(root, path, layout, unpacked)
        elif source == "parquet":
            yield from packed.parquet_file(root, path, layout, unpacked)
        elif source in PICKLES:
            yield from (pickles.ce_clip if source == "ce_clip" else pickles.cc_neg)(path, layout)
        else:
            yield from FILES[source](path, layout)
        progress("files read", done, len(paths))


def _sound(record: Record) -> Record:
    """The record, or a fault when one of its values is no text (half a pair in a caption is ingest's to judge)."""
    origin = record.origin.encode(errors="replace").decode()
    try:
        for text in (record.image_key, *record.negatives):
            text.encode()
        for text in (record.image, record.caption):
            text.encode(errors="replace")
    except (AttributeError, UnicodeEncodeError) as error:
        return Record(origin, "", "", "", fault=("row_shape", f"a value is no text that can be written ({error})"))
    return record._replace(origin=origin)


def coco_key(file_name: str) -> str:
    """`coco:<collection>:<12-digit id>` of a COCO file name: COCO_train2014_000000000009.jpg, or 000000000009.jpg.

    2017 names carry no collection; the ids of 2014 and 2017 are the same pictures, so the collection is then "2017".
    """
    stem = PurePosixPath(file_name).stem
    collection, _, number = stem.removeprefix("COCO_").rpartition("_")
    return f"coco:{collection or '2017'}:{number}"


def lines(text: str) -> io.StringIO:
    """The lines of a text as csv wants them: ended by carriage return and newline alone, not by U+2028 and its like."""
    return io.StringIO(text, newline="")


def broken(path: Path, line: int, kind: str, error: Exception) -> UserError:
    """The error of a file, or a line of it, that is not what it should be."""
    where = f"{path.name}:{line}" if line else path.name
    return UserError("ingest", f"{where} is not {kind} ({error})", kind, "mend or fetch that file again")


@contextmanager
def _shape(path: Path, expected: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
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
        raise broken(path, error.lineno, "JSON", error) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise broken(path, 0, "JSON", error) from None
