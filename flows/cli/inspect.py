"""Questions one asks of runs: rows of a table, what differs between two datasets, why a stage would run again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
from pydantic import ValidationError

from flows import road
from flows.recipe import Recipe
from pipeline import tables
from pipeline.artifact import Store, digest
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.schema import DATASET

COMPARED = [name for name in DATASET.names if not name.endswith("_tokens") and name != "pair_id"]


def views(store: Store, run: str) -> dict[str, Path]:
    """Table name -> folder, for every table a run holds. Raises UserError when it holds none."""
    found: dict[str, Path] = {}
    for kind in road.MAKER:
        folder = store.run(run) / kind
        if folder.exists():
            found |= tables.table_folders(folder, kind)
    if not found:
        raise UserError(
            "sql", f"run {run!r} has no table", f"one of {', '.join(store.runs()) or 'no run'}", "degla run"
        )
    return found


def ask(store: Store, run: str, query: str) -> duckdb.DuckDBPyRelation | None:
    """Answer SQL over a run's tables. Raises UserError for SQL that DuckDB refuses."""
    found = views(store, run)
    connection = tables.connect(found)
    try:
        answer = connection.sql(query)
        return answer.materialize() if answer is not None else None
    except duckdb.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError("sql", reason, f"SQL over {', '.join(found)}", f"degla sql {run} 'describe pairs'") from None


def show(store: Store, run: str, table: str, where: str, limit: int) -> Iterator[dict[str, Any]]:
    """Rows of one table, at most `limit`, that a SQL condition picks; columns without a value are left out."""
    if table not in (found := views(store, run)):
        raise UserError("show", f"run {run!r} has no table {table!r}", f"one of {', '.join(found)}", "name one of them")
    answer = ask(store, run, f"select * from {table} where {where or 'true'} limit {limit:d}")  # noqa: S608 - user's own SQL
    assert answer is not None
    for row in answer.to_arrow_table().to_pylist():
        yield {name: value for name, value in row.items() if value is not None}


def diff(store: Store, one: str, two: str) -> dict[str, int]:
    """Rows that differ between the datasets of two runs: only in one, only in two, and per column the changed ones.

    What differs is said with one row as an example, that of the smallest pair_id.
    """
    folders = {"one": views(store, one), "two": views(store, two)}
    for run, found in zip((one, two), folders.values(), strict=True):
        if "dataset" not in found:
            raise UserError("diff", f"run {run!r} has no dataset", "two datasets", f"degla run {run} --until assemble")
    told: dict[str, int] = {}
    with tables.connect({name: found["dataset"] for name, found in folders.items()}) as sql:

        def count(what: str, rows: str, always: bool = False) -> None:
            number, example = sql.sql(f"select count(*), arg_min(example, pair_id) from ({rows})").fetchall()[0]  # noqa: S608
            if number or always:
                told[what + (f", e.g. {example}" if number else "")] = number

        for name, here, there in ((one, "one", "two"), (two, "two", "one")):
            count(
                f"rows only in {name}",
                f"select pair_id, pair_id || ' ' || caption as example from {here} anti join {there} using (pair_id)",  # noqa: S608
                always=True,
            )
        for name in COMPARED:
            count(
                f"{name} differs",
                f"""select pair_id, format('{{}}: {{}} -> {{}}', pair_id, coalesce(one.{name}::varchar, 'none'),
                                           coalesce(two.{name}::varchar, 'none')) as example
                    from one join two using (pair_id) where one.{name} is distinct from two.{name}""",  # noqa: S608
            )
    return told


def why(store: Store, run: str, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """For every stage: reused, or what makes it run again: a setting, an input, a file, the code's version."""
    upstream_changed: set[str] = set()
    for name, stage in road.STAGES.items():
        artifact = store.linked(run, stage.makes)
        stale_inputs = upstream_changed & set(stage.needs)
        if artifact is None:
            reasons = [f"no intact {stage.makes} on disk"]
        elif stale_inputs:
            reasons = [f"{kind} will be made again" for kind in sorted(stale_inputs)]
        else:
            wanted = road.identity(stage, getattr(recipe, name), road.inputs_of(store, run, stage))
            manifest = artifact.manifest
            made = {
                "stage_version": manifest.stage_version,
                "config": _deciding(stage.config, manifest.config),
                "inputs": manifest.inputs,
                "outside": manifest.outside,
            }
            reasons = [] if digest(wanted) == manifest.fingerprint else list(_changes("", made, wanted))
        if reasons:
            upstream_changed.add(stage.makes)
        yield name, "; ".join(reasons) or "reused"


def _deciding(config: type[Config], kept: dict[str, Any]) -> dict[str, Any]:
    """The deciding part of the settings that a manifest keeps; all of them when degla has other fields by now."""
    try:
        return config.model_validate(kept).identity()
    except ValidationError:
        return kept


def _changes(prefix: str, made: Any, wanted: Any) -> Iterator[str]:
    if isinstance(made, dict) and isinstance(wanted, dict):
        for key in sorted(set(made) | set(wanted) - {"stage"}):
            yield from _changes(f"{prefix}.{key}".lstrip("."), made.get(key), wanted.get(key))
    elif made != wanted:
        yield f"{prefix}: {made} -> {wanted}"
