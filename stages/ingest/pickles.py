"""Readers of data that others published as pickles. Only plain data is taken out of them: what would need any other
class or function is rejected, so nothing in the file is ever run.
"""

import pickle
import re
import struct
import tokenize
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pipeline.errors import UserError
from stages.ingest.records import Format, Record, coco_key

CE_CLIP = {
    "relation_aug_caption": "swap_nouns",
    "adj_aug_caption": "replace_adjectives",
    "noun_aug_caption": "replace_nouns",
    "verb_aug_caption": None,
}
"""Columns of negatives -> the type each makes (relation: the first two nouns change places; verbs are no type here)."""

BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, ArithmeticError, AssertionError, AttributeError, EOFError, ImportError,
    LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error,
    tokenize.TokenError,
)  # fmt: skip
"""What unpickling raises for bytes that are no pickle of data."""

ABSENT = ("###", "<mask>")
"""What CE-CLIP writes where it has no negative."""


def ce_clip(path: Path, layout: Format) -> Iterator[Record]:
    """CE-CLIP's .npy: an object array of COCO annotations with four negatives, and valid_caption, which are real.

    Raises UserError when the file holds anything but data, or data of another shape.
    """
    rows = _npy(path)
    for number, row in enumerate(rows):
        try:
            valid = list(row.get("valid_caption") or [1] * 5)
            kept = [
                (str(row[column]), kind)
                for (column, kind), real in zip(CE_CLIP.items(), valid[1:], strict=False)
                if real and str(row[column]) not in ABSENT
            ]
            name = str(row.get("image_path") or layout.image_template.format(int(row["image_id"])))
            negatives, types = tuple(text for text, _ in kept), tuple(kind for _, kind in kept)
            yield Record(f"{path.name}:{number}", name, coco_key(name), str(row["caption"]), None, negatives, types)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise _shape(path, number, error, "CE-CLIP's annotations: image_id, caption, *_aug_caption") from None


def cc_neg(path: Path, layout: Format) -> Iterator[Record]:
    """CC-Neg's ccneg_preprocessed.pt: {image_paths, annotations}; the last rows are its test split.

    Raises UserError as `ce_clip` does.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise _not_data(path, error) from None
    try:
        images, notes = list(found["image_paths"]), list(found["annotations"])
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError) as error:
        raise _shape(path, 0, error, "CC-Neg: {image_paths, annotations}") from None
    first_test = len(notes) - layout.evaluation_rows if len(notes) > layout.evaluation_rows else len(notes)
    for number, (image, note) in enumerate(zip(images, notes, strict=False)):
        try:
            # The paths are those of the authors' machine; all images lie in one folder.
            name = PurePosixPath(str(image)).name
            caption, negative = note["json"]["caption"], note["sop_data"]["negative-prompt"].replace(",", "")
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise _shape(path, number, error, "CC-Neg: json.caption, sop_data.negative-prompt") from None
        split = "test" if number >= first_test else "train"
        yield Record(f"{path.name}:{number}", name, f"cc_neg:{name}", caption, split, (negative,), (None,))


class _Kind:
    """Stands in for numpy.dtype, which believes whatever a file says of it, down to the addresses of objects."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def read(self, content: Any) -> list[Any]:
        """The numbers or texts in some bytes, or the objects themselves."""
        import numpy

        if self.code.startswith("O"):
            return list(content)
        if not re.fullmatch(r"[<>=|][biufUS]\d{1,5}", f"{self.order}{self.code}"):
            raise pickle.UnpicklingError(f"it holds values of kind {self.order}{self.code}")
        return list(numpy.frombuffer(content, f"{self.order}{self.code}").tolist())


class _Array(list[Any]):
    """Stands in for numpy.ndarray: its values in a row."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self[:] = state[2].read(state[4])


class _Data(pickle.Unpickler):
    """Builds what numpy pickles of plain Python data and nothing else, without numpy's own way of building it."""

    KNOWN: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Kind,
        ("multiarray", "_reconstruct"): lambda *_: _Array(),
        ("multiarray", "scalar"): lambda kind, content: kind.read(content)[0],
        ("numeric", "_frombuffer"): lambda content, kind, *_: _Array(kind.read(content)),
    }

    def find_class(self, module: str, name: str) -> Any:
        short = re.sub(r"^numpy\._?core\.", "", module)
        if (short, name) not in self.KNOWN or (short == module) != (module == "numpy"):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.KNOWN[short, name]


def _npy(path: Path) -> list[Any]:
    """The elements of an object array in a .npy file."""
    import numpy.lib.format

    npy: Any = numpy.lib.format
    try:
        with path.open("rb") as handle:
            version = npy.read_magic(handle)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            _, _, kind = read_header(handle)
            if not kind.hasobject:
                raise ValueError(f"an array of {kind}")
            return list(_Data(handle).load())
    except BROKEN as error:
        raise _not_data(path, error) from None


def _not_data(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return UserError(
        "ingest", f"{path.name} cannot be read as plain data ({reason})", "a pickle of data alone", "fetch it"
    )


def _shape(path: Path, number: int, error: Exception, expected: str) -> UserError:
    return UserError("ingest", f"{path.name}:{number} lacks {error}", expected, "check ingest.source")
