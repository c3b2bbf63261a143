"""Benchmark files read with care: whatever is wrong with one is a UserError of one line with the file and the row."""

import ast
import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from pipeline.artifact import file_sha256
from pipeline.errors import UserError
from stages.benchmarks.rows import ImageRef

FIX = "download the file again"
LONGEST_NAME = 255
"""Bytes in a file name, on every usual file system."""


def digest(path: Path) -> str:
    """First twelve digits of the file's sha256."""
    return file_sha256(path)[:12]


def digest_of(files: Sequence[Path]) -> str:
    """Of many small files, as one: twelve digits over their names and digests."""
    return hashlib.sha256("\n".join(f"{path.name} {file_sha256(path)}" for path in files).encode()).hexdigest()[:12]


def only(folder: Path, pattern: str, *known: str) -> list[Path]:
    """Those of the known files that are there. Raises UserError for another that matches: it would be passed over."""
    for path in sorted(folder.glob(pattern)):
        if path.name not in known:
            raise UserError("evaluate", f"{path} is no file of this benchmark", ", ".join(known), "move it elsewhere")
    return [folder / name for name in known if (folder / name).is_file()]


def read_json(path: Path) -> Any:
    """Content of a JSON file; a key given twice is an error, since one of its rows would be lost."""
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_once)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            "evaluate", f"{path} cannot be read: {error}", "the benchmark's complete JSON file", FIX
        ) from error


def items(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON list (row id = position) or of a JSON object (row id = key; SugarCrepe's keys have holes)."""
    content = read_json(path)
    if not isinstance(content, dict | list) or not content:
        raise UserError("evaluate", f"{path} holds no rows", "a JSON list or object of rows", FIX)
    named = content.items() if isinstance(content, dict) else enumerate(content)
    yield from _distinct(path, ((str(row_id), item) for row_id, item in named))


def lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a JSON-lines file, by position."""
    found = [line for line in _utf8(path).split("\n") if line.strip()]
    if not found:
        raise UserError("evaluate", f"{path} holds no rows", "one JSON object per line", FIX)
    yield from _distinct(path, ((str(number), _line(path, number, line)) for number, line in enumerate(found)))


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError("evaluate", f"{path} line {number + 1} is no JSON: {error}", "one row per line", FIX) from error


def _distinct(path: Path, rows: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The rows; one that has the `id` of another is an error."""
    seen = set()
    for row_id, item in rows:
        name = json.dumps(item["id"]) if isinstance(item, dict) and "id" in item else row_id
        if name in seen:
            wrong(path, row_id, "id", item["id"], "an id no other row has")
        seen.add(name)
        yield row_id, item


def table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file with a header, by position."""
    try:
        rows = csv.DictReader(io.StringIO(_utf8(path), newline=""), strict=True)
        found = list(rows)
    except csv.Error as error:
        raise UserError("evaluate", f"{path} is no CSV: {error}", "the benchmark's complete CSV file", FIX) from error
    if not found:
        raise UserError("evaluate", f"{path} holds no rows", "a header and rows", FIX)
    for number, row in enumerate(found):
        if None in row or None in row.values():
            wrong(path, str(number), "row", list(row.values()), f"{len(rows.fieldnames or ())} fields")
        yield str(number), row


def field(path: Path, row_id: str, item: Any, name: str, kind: Any) -> Any:
    """A field of a row. Raises UserError when it is absent or of another type."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        wrong(path, row_id, name, value, f"a value of type {getattr(kind, '__name__', kind)}")
    return value


def text(path: Path, row_id: str, item: Any, name: str) -> str:
    """A field that is a text with something in it."""
    return worded(path, row_id, name, field(path, row_id, item, name, str))


def worded(path: Path, row_id: str, name: str, value: Any) -> str:
    """The value itself, when it is a text that can be read and written."""
    if not isinstance(value, str) or not value.strip() or not _encodable(value):
        wrong(path, row_id, name, value, "a text")
    return str(value)


def listed(path: Path, row_id: str, item: Any, name: str) -> list[str]:
    """A field that is a list of texts written as Python writes it, as in a CSV file; at least one."""
    value = text(path, row_id, item, name)
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        found = None
    if not isinstance(found, list | tuple) or not found:
        wrong(path, row_id, name, value, "a list of texts, ['...', '...']")
    return [worded(path, row_id, name, one) for one in found]


def first_line(path: Path) -> str:
    """The first line of a text file, without its ends."""
    return _utf8(path).split("\n", 1)[0].strip()


def texts(path: Path, row_id: str, item: Any, *names: str) -> tuple[str, ...]:
    """Several fields that are texts, in the order given."""
    return tuple(text(path, row_id, item, name) for name in names)


def image(
    path: Path, row_id: str, item: Any, name: str, folder: Path, box: tuple[int, int, int, int] | None = None
) -> tuple[str, ImageRef]:
    """A field that names an image below a folder: the name, and the image."""
    return below(path, row_id, name, text(path, row_id, item, name), folder, box)


def below(
    path: Path, row_id: str, name: str, value: str, folder: Path, box: tuple[int, int, int, int] | None = None
) -> tuple[str, ImageRef]:
    """An image file below a folder. Raises UserError for a name that leads elsewhere or that no file can have."""
    parts = PurePosixPath(value).parts
    fits = all(len(part.encode()) <= LONGEST_NAME for part in parts)
    if value.startswith("/") or ".." in parts or "\0" in value or not fits:
        wrong(path, row_id, name, value, f"a file name below {folder.name}")
    return value, ImageRef(folder / value, box)


def box(path: Path, row_id: str, item: Any, *names: str) -> tuple[int, int, int, int]:
    """Left, top, right, bottom from the four fields left, top, width, height, in pixels."""
    found = [_number(path, row_id, item, name) for name in names]
    if not all(math.isfinite(number) for number in found) or min(found) < 0 or min(found[2:]) < 1:
        wrong(path, row_id, "box", found, "left and top >= 0, width and height >= 1")
    left, top, width, height = (int(number) for number in found)
    return left, top, left + width, top + height


def _number(path: Path, row_id: str, item: Any, name: str) -> float:
    """A field that is a number, or in a CSV file the text of one."""
    value = field(path, row_id, item, name, int | float | str)
    try:
        return float(value)
    except (ValueError, OverflowError):
        wrong(path, row_id, name, value, "a number")


def wrong(path: Path, row_id: str, name: str, value: Any, expected: str) -> NoReturn:
    """Say which field of which row is wrong."""
    where = f" row {row_id}" if row_id else ""
    shown = ascii(value) if isinstance(value, str) and not _encodable(value) else repr(value)
    raise UserError("evaluate", f"{path.parent.name}/{path.name}{where} has {name} = {shown[:200]}", expected, FIX)


def _encodable(value: str) -> bool:
    """False for halves of surrogate pairs, which JSON may hold and UTF-8 may not."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise UserError("evaluate", f"{path} cannot be read: {error}", "a UTF-8 text file", FIX) from error
