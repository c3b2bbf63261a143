"""Sources: what users bring, and the table of the formats it may come in.

A reader turns one file into records, in file order, without decoding images, and its docstring states the quirks of its
format. A row that cannot be understood is a record with a fault; a file that cannot is a UserError. Adding a format is
a reader (here, or in a file of its own on top of `records`) and a line of SOURCES.
"""

import ast
import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.errors import UserError
from pipeline.stage import Progress, silent
from stages.images import SUFFIXES
from stages.ingest import packed, parquet, pickles
from stages.ingest.packed import Shard
from stages.ingest.records import Format, Record, coco_key, expect_shape, lines, malformed, read_json, read_text

FEW = 5
"""Names of a folder that a message shows."""


def csv_pairs(path: Path, layout: Format) -> Iterator[Record]:
    """Rows of a CSV or TSV file with a header, which tells the delimiter: a comma, a semicolon (Excel's in much of
    Europe) or a tab.

    Raises UserError when a column is missing (naming what was found), on text that is not in the stated encoding,
    and on a broken row.
    """
    text, columns = (
        read_text(path, layout.encoding).removeprefix("\ufeff"),
        (layout.image_column, layout.caption_column),
    )
    rows = csv.reader(lines(text), delimiter=_delimiter(next(lines(text), ""), columns), strict=True)
    try:
        names = next(rows, [])
        for column in columns:
            if column not in names:
                raise UserError(
                    "ingest",
                    f"{path.name} has no column {column!r}, found {names}",
                    "a header naming the image and the caption column, parted by commas, semicolons or tabs",
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
        raise malformed(path, rows.line_num, "CSV", error) from None


def _delimiter(header: str, columns: Sequence[str]) -> str:
    """The one that parts the columns out of the header, else the one that parts most."""
    parts: dict[str, list[str]] = {}
    for sign in ",;\t":
        with suppress(csv.Error):
            parts[sign] = next(csv.reader([header], delimiter=sign), [])
    return max(parts, key=lambda sign: (set(columns) <= set(parts[sign]), len(parts[sign])), default=",")


def coco_json(path: Path, layout: Format) -> Iterator[Record]:
    """Annotations of a COCO captions file; file names of 2014 (COCO_train2014_...) or of 2017 (the number alone)."""
    found = read_json(path, layout)
    with expect_shape(path, "COCO captions JSON: images[id, file_name], annotations[id, image_id, caption]"):
        names = {image["id"]: image["file_name"] for image in found["images"]}
        for note in found["annotations"]:
            origin = f"{path.name}:{note['id']}"
            if (name := names.get(note["image_id"])) is None:
                yield Record(origin, "", "", note["caption"], fault=("image_unlisted", f"image_id {note['image_id']}"))
            else:
                yield Record(origin, name, coco_key(name), note["caption"])


def karpathy_json(path: Path, layout: Format) -> Iterator[Record]:
    """Karpathy's dataset_coco.json. `restval` images are val2014 and come only when asked for; they train."""
    found = read_json(path, layout)
    with expect_shape(path, "dataset_coco.json: images[filepath, filename, split, sentences[raw]]"):
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
    rows = csv.DictReader(lines(read_text(path, layout.encoding)), delimiter="\t", strict=True)
    try:
        missing = {"title", "filepath", "neg_caption"} - set(rows.fieldnames or ())
    except csv.Error as error:
        raise malformed(path, 1, "TSV", error) from None
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
        raise malformed(path, rows.line_num, "TSV", error) from None


def degla_json(path: Path, layout: Format) -> Iterator[Record]:
    """The DeGLA release's JSON: a list of image_id, original, enhanced (four or more negatives)."""
    found = read_json(path, layout)
    with expect_shape(path, "DeGLA.json: a list of {image_id, original, enhanced}"):
        for number, row in enumerate(found):
            name, negatives = layout.image_template.format(int(row["image_id"])), row["enhanced"]
            if not isinstance(negatives, list):
                raise TypeError(f"a list in 'enhanced' of row {number}")
            yield Record(f"{path.name}:{number}", name, coco_key(name), row["original"], None, tuple(negatives))


def sidecar_folder(folder: Path, layout: Format) -> Iterator[Record]:
    """A folder of images, each with a .txt of the same name holding one caption per line."""
    images = {path.with_suffix(""): path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}
    for text in sorted(folder.rglob("*.txt")):
        image = images.get(text.with_suffix(""))
        name = str((image or text).relative_to(folder))
        for number, line in enumerate(read_text(text, layout.encoding).splitlines(), start=1):
            origin, key = f"{text.relative_to(folder)}:{number}", f"folder:{folder.name}:{name}"
            fault = None if image else ("image_missing", f"no picture beside {name}")
            yield Record(origin, name, key, line, fault=fault)


class SourceFormat(NamedTuple):
    """A kind of source: what reads one of its files, and where its images are.

    Attributes:
        read: records of one captions file; the images lie in a folder. None where `unpack` is given, and for the
            built-in world, whose images and captions the stage draws.
        unpack: records of one file that may hold the images too; it writes them to the file's Shard.
        holds_images: whether these files do hold them.
        captions: whether there are captions files; without, `read` is given the image folder.
        is_pickle: whether the files are pickles, which are read only when the user allows it.
        beside: suffix of files that are read too where they lie beside the others.
    """

    read: Callable[[Path, Format], Iterator[Record]] | None = None
    unpack: Callable[[Path, Format, Shard], Iterator[Record]] | None = None
    holds_images: Callable[[Sequence[Path], Format], bool] = lambda files, layout: False
    captions: bool = True
    is_pickle: bool = False
    beside: str | None = None

    @property
    def built_in(self) -> bool:
        """Whether there is nothing to read: the built-in world is drawn."""
        return self.read is None and self.unpack is None


SOURCES: dict[str, SourceFormat] = {
    "scenes": SourceFormat(captions=False),
    "csv": SourceFormat(csv_pairs),
    "coco": SourceFormat(coco_json),
    "karpathy": SourceFormat(karpathy_json),
    "negclip_tsv": SourceFormat(negclip_tsv),
    "degla_json": SourceFormat(degla_json),
    "webdataset": SourceFormat(
        unpack=packed.tar_shard, holds_images=lambda files, layout: True, beside=packed.IMG2DATASET
    ),
    "parquet": SourceFormat(unpack=parquet.parquet_file, holds_images=parquet.holds_images),
    "folder": SourceFormat(sidecar_folder, captions=False),
    "ce_clip": SourceFormat(pickles.ce_clip, is_pickle=True),
    "cc_neg": SourceFormat(pickles.cc_neg, is_pickle=True),
}
"""Every format of a source by its name in `ingest.source`."""


class Source(NamedTuple):
    """A source that was found on this machine.

    Attributes:
        name: key of SOURCES.
        layout: of it.
        files: captions files by their path below the root, in the order they are read.
        beside: files that are read with them, likewise.
        images: the image folder; None where images are packed in the files, or drawn.
    """

    name: str
    layout: Format
    files: dict[str, Path]
    beside: dict[str, Path]
    images: Path | None


def find(name: str, root: Path | None, layout: Format) -> Source:
    """Find the files and the image folder of a source.

    Raises UserError when one of them is not there, or when it is a pickle and that was not allowed.
    """
    kind = SOURCES[name]
    if kind.built_in:
        return Source(name, layout, {}, {}, None)
    if root is None:
        raise UserError("ingest", "no folder given", "where captions and images are", "--set ingest.root=<folder>")
    root = root.expanduser().resolve()
    if kind.is_pickle and not layout.allow_pickle:
        raise UserError(
            "ingest",
            f"{name} files are pickles, which can run code when they are loaded",
            "your word that they come from where you trust",
            "set ingest.format.allow_pickle=true (they are read without running code)",
        )
    paths = sorted(root.glob(layout.captions)) if kind.captions else []
    if kind.captions and not any(path.is_file() for path in paths):
        raise UserError(
            "ingest",
            f"{root / layout.captions} is not there{_beside(root)}",
            "an existing path",
            "set ingest.root or ingest.format.captions",
        )
    images = None if kind.holds_images(paths, layout) else root / layout.images
    if images is not None and not images.is_dir():
        raise UserError(
            "ingest",
            f"{images} is not there{_beside(root)}",
            "an existing path",
            "set ingest.root or ingest.format.images",
        )
    beside = [path.with_suffix(kind.beside) for path in paths] if kind.beside else []
    return Source(
        name,
        layout,
        {str(path.relative_to(root)): path for path in paths},
        {str(path.relative_to(root)): path for path in beside if path.is_file()},
        images,
    )


def _beside(root: Path) -> str:
    """What a folder has instead of what was looked for: its first few names."""
    try:
        found = nsmallest(FEW + 1, root.iterdir())
    except OSError:
        return ""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in found[:FEW]]
    return f"; there are {', '.join(names)}{', ...' if len(found) > FEW else ''}" if names else "; the folder is empty"


def read(source: Source, unpacked: Path, progress: Progress = silent) -> Iterator[Record]:
    """All records of a source, in file order; `unpacked` receives the images of packed formats."""
    return map(_writable, _read(source, unpacked, progress))


def _read(source: Source, unpacked: Path, progress: Progress) -> Iterator[Record]:
    kind = SOURCES[source.name]
    paths = source.files or ({source.images.name: source.images} if source.images else {})
    for done, (name, path) in enumerate(paths.items(), start=1):
        if kind.unpack is not None:
            yield from kind.unpack(path, source.layout, Shard.of(name, unpacked))
        elif kind.read is not None:
            yield from kind.read(path, source.layout)
        progress("files read", done, len(paths))


def _writable(record: Record) -> Record:
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
