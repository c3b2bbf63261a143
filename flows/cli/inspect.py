"""Questions one asks of runs: rows of a table, what differs between two datasets."""

from collections.abc import Iterator
from typing import Any

from pipeline import tables
from pipeline.errors import UserError
from pipeline.run import Run, Status


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


def diff(one: Run, two: Run) -> dict[str, int]:
    """Rows that differ between the datasets of two runs: only in one, only in two, and per column the changed ones.

    What differs is said with one row as an example, that of the smallest pair_id.
    """
    from pipeline.schema import DATASET

    folders = {"one": one.tables(), "two": two.tables()}
    for run, found in zip((one, two), folders.values(), strict=True):
        if "dataset" not in found:
            fix = f"degla run {run.name} --until assemble"
            raise UserError("diff", f"run {run.name!r} has no dataset", "two datasets", fix)
    told: dict[str, int] = {}
    with tables.connect({name: found["dataset"] for name, found in folders.items()}) as sql:

        def count(what: str, rows: str, always: bool = False) -> None:
            number, example = sql.sql(f"select count(*), arg_min(example, pair_id) from ({rows})").fetchall()[0]  # noqa: S608
            if number or always:
                told[what + (f", e.g. {example}" if number else "")] = number

        for name, here, there in ((one.name, "one", "two"), (two.name, "two", "one")):
            count(
                f"rows only in {name}",
                f"select pair_id, pair_id || ' ' || caption as example from {here} anti join {there} using (pair_id)",  # noqa: S608
                always=True,
            )
        for name in DATASET.names:
            if name.endswith("_tokens") or name == "pair_id":
                continue
            count(
                f"{name} differs",
                f"""select pair_id, format('{{}}: {{}} -> {{}}', pair_id, coalesce(one.{name}::varchar, 'none'),
                                           coalesce(two.{name}::varchar, 'none')) as example
                    from one join two using (pair_id) where one.{name} is distinct from two.{name}""",  # noqa: S608
            )
    return told
