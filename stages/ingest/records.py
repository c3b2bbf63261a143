"""What every reader of a source stands on: the record, the layout of a source, and how files are read and faulted."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from pipeline.config import Config
from pipeline.errors import UserError


class Record(NamedTuple):
    """One caption of one image as its source states it.

    Attributes:
        origin: file and row.
        image: relative to the image folder.
        image_key: see PAIRS.
        caption: as it stands there.
        split: where the source decides it.
        negatives: captions of the source's own that are not true of the image.
        types: of each of these, in the same order; empty where the source does not say.
        fault: (reason, detail) of a row that the source itself, or its reader, calls unusable.
        scene: scene graph of an image of the built-in world, as JSON.
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
    images: str = Field("images", description="image folder, relative to root; unused where images are packed")
    image_column: str = Field("image", description="csv, parquet: column of the image's path, or of its bytes")
    caption_column: str = Field("caption", description="csv, parquet: column of the caption, or of a list of captions")
    image_template: str = Field(
        "COCO_train2014_{:012d}.jpg", description="degla_json, ce_clip: file name of an image from its number"
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
            raise ValueError("a text encoding that Python knows, such as utf-8, cp1252 or utf-16") from None
        return encoding


def coco_key(file_name: str) -> str:
    """`coco:<collection>:<12-digit id>` of a COCO file name: COCO_train2014_000000000009.jpg, or 000000000009.jpg.

    2017 names carry no collection; the ids of 2014 and 2017 are the same images, so the collection is then "2017".
    """
    stem = PurePosixPath(file_name).stem
    collection, _, number = stem.removeprefix("COCO_").rpartition("_")
    return f"coco:{collection or '2017'}:{number}"


def read_text(path: Path, encoding: str) -> str:
    """The text of a file. Raises UserError, with the line, on bytes that are not in that encoding."""
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


def read_json(path: Path, layout: Format) -> Any:
    """The value a JSON file holds. Raises UserError, with the line where there is one, when it is not JSON."""
    try:
        return json.loads(read_text(path, layout.encoding))
    except json.JSONDecodeError as error:
        raise malformed(path, error.lineno, "JSON", error) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise malformed(path, 0, "JSON", error) from None


def lines(text: str) -> io.StringIO:
    """The lines of a text as csv wants them: ended by carriage return and newline alone, not by U+2028 and its like."""
    return io.StringIO(text, newline="")


def malformed(path: Path, line: int, kind: str, error: Exception) -> UserError:
    """The error of a file, or of a line of it (0 = the whole file), that is not what it should be."""
    where = f"{path.name}:{line}" if line else path.name
    return UserError("ingest", f"{where} is not {kind} ({error})", kind, "repair that file or fetch it again")


@contextmanager
def expect_shape(path: Path, expected: str) -> Iterator[None]:
    """What plain data of another shape raises (a missing key, a number for a list), as a UserError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise UserError(
            "ingest", f"{path.name} lacks {error}", expected, "check ingest.source and ingest.format.captions"
        ) from None
