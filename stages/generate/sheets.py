"""Tables that people bring or fill in, as TSV, CSV or Parquet: read into Arrow, and written."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import UserError

SEPARATORS = {".tsv": "\t", ".csv": ","}
"""By suffix, of what is written; in what is read, the header's most frequent of tab, comma and semicolon."""

BETWEEN_TEXTS = " | "
"""In a text column: between the texts of a list."""


def read(path: Path, command: str, texts: Sequence[str]) -> pa.Table:
    """A file's rows, all of its columns, in its order; in TSV and CSV every column is text.

    Args:
        path: Parquet by its suffix, anything else is delimited text in UTF-8 with a header, quoted as CSV is.
        command: who asks, for the errors.
        texts: columns that must be there, as text.

    Raises UserError for a file that is not there, cannot be read, has no row, or lacks a column.
    """
    wanted = "a TSV, CSV or Parquet file with " + ", ".join(texts)
    if not path.is_file():
        raise UserError(command, f"there is no file {path}", wanted, "check the path")
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _delimited(path, command)
        names = table.column_names
        if not table.num_rows:
            raise UserError(command, f"{path.name} has no row", wanted, "check the path")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(command, f"{path.name} has two columns {twice[0]!r}", wanted, "name each column once")
        for name in texts:
            if name not in names:
                what = f"{path.name} has no column {name!r}, found {', '.join(names)}"
                raise UserError(command, what, wanted, "name the columns in the first row")
            table = table.set_column(names.index(name), name, table[name].cast(pa.string()))
    except (OSError, pa.ArrowException) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(command, f"cannot read {path.name}: {why}", wanted, "write the file again") from None
    return table


def _delimited(path: Path, command: str) -> pa.Table:
    fix = "save it as UTF-8, with values that hold a separator, a quote or a line break in double quotes"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise UserError(command, f"{path.name}:{line} is not UTF-8 ({error.reason})", "UTF-8", fix) from None
    header = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max("\t,;", key=header.count), strict=True)
    try:
        names = next(rows, [])
        found = []
        for row in filter(None, rows):
            if len(row) != len(names):
                what = f"{path.name}:{rows.line_num} has {len(row)} fields, its header {len(names)}"
                raise UserError(command, what, "a field per column", fix)
            found.append(row)
    except csv.Error as error:
        raise UserError(command, f"{path.name}:{rows.line_num}: {error}", "quotes that are closed", fix) from None
    return pa.table([pa.array(column, pa.string()) for column in zip(*found, strict=True)] or [[]] * len(names), names)


def check_name(path: Path, command: str) -> None:
    """Raise UserError unless `write` knows the format of that name."""
    if path.suffix not in {*SEPARATORS, ".parquet"}:
        raise UserError(command, f"cannot write {path.name!r}", "a name in .tsv, .csv or .parquet", "choose another")


def write(path: Path, table: pa.Table, command: str) -> None:
    """Write a file in the format of its name; it is either absent or whole. In text, lists of texts are joined.

    Raises UserError where it cannot be written.
    """
    try:
        with tables.replacing(path) as unfinished:
            if path.suffix == ".parquet":
                pq.write_table(table, unfinished, compression="zstd")
                return
            for place, column in enumerate(table.schema):
                if pa.types.is_list(column.type):
                    joined = pc.binary_join(table.column(place).cast(pa.list_(pa.string())), BETWEEN_TEXTS)
                    table = table.set_column(place, column.name, joined)
            duckdb.from_arrow(table).write_csv(str(unfinished), sep=SEPARATORS[path.suffix], header=True)
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(command, f"cannot write {path}: {why}", "a folder to write to", "another name") from None
