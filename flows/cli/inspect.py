"""Questions one asks of runs: rows of a table, what differs between two datasets."""

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from enum import StrEnum
from io import StringIO
from math import isfinite
from typing import TYPE_CHECKING, Any

from flows.terminal import out, print_json
from pipeline.errors import UserError, printable
from pipeline.run import Run, Status

if TYPE_CHECKING:
    import duckdb

MOST = 1000
"""Rows of an answer that a terminal shows."""


class Format(StrEnum):
    """What `degla sql --format` takes."""

    box = "box"
    csv = "csv"
    json = "json"
    md = "md"


def write(answer: "duckdb.DuckDBPyRelation", written: Format) -> None:
    """Write an answer on stdout: all of it, but in a box on a terminal, which is as wide as that and MOST rows long."""
    if written == Format.json:
        print_json([plain(dict(zip(answer.columns, row, strict=True))) for row in answer.fetchall()])
        return
    text = StringIO(newline="")
    if written == Format.box:
        limits = (
            {"max_width": out.width, "max_rows": MOST} if out.is_terminal else {"max_width": 10**6, "max_rows": 10**9}
        )
        with redirect_stdout(text):
            answer.show(**limits)
    else:
        rows = [answer.columns, *([_cell(value) for value in row] for row in answer.fetchall())]
        if written == Format.csv:
            csv.writer(text, lineterminator="\n").writerows(rows)
        else:
            rows.insert(1, ["---"] * len(answer.columns))
            cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
            text.writelines(f"| {' | '.join(row)} |\n" for row in cells)
    found = text.getvalue()
    sys.stdout.write(printable(found) if written == Format.box or sys.stdout.isatty() else found)


def plain(value: Any) -> Any:
    """A value as JSON has it: what is no finite number is null."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _cell(value: Any) -> Any:
    """A value in one cell of text: lists and structs as JSON, null as nothing."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(plain(value), ensure_ascii=False, default=str)
    return "" if value is None else value


def standing(status: Status) -> dict[str, Any]:
    """One stage of a run as plain data."""
    manifest = status.artifact.manifest if status.artifact else None
    return {
        "stage": status.stage,
        "state": status.state,
        "reasons": status.reasons,
        "made": manifest.finished if manifest else None,
        "rows": manifest.rows if manifest else {},
        "fingerprint": manifest.fingerprint if manifest else None,
    }


def show(run: Run, table: str, where: str, limit: int) -> Iterator[dict[str, Any]]:
    """Rows of one table, at most `limit`, that a SQL condition picks; columns without a value are left out."""
    if table not in (found := run.tables()):
        raise UserError(
            "show", f"run {run.name!r} has no table {table!r}", f"one of {', '.join(found)}", "name one of them"
        )
    answer = run.sql(f"select * from {table} where {where or 'true'} limit {limit:d}")  # noqa: S608 - user's own SQL
    assert answer is not None
    for row in answer.to_arrow_table().to_pylist():
        yield {name: value for name, value in row.items() if value is not None}
