"""Parquet tables: writing one part atomically, reading, counting, and asking SQL of them."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.negative_types import KINDS

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ROW_GROUP = 64 * 1024


def part(folder: Path, index: int, name: str = "part") -> Path:
    """The path of one Parquet part: `<folder>/<name>-00007.parquet`."""
    return folder / f"{name}-{index:05d}.parquet"


def write(path: Path, content: "pa.Table | list[dict[str, Any]]", schema: "pa.Schema") -> None:
    """Write one Parquet file (zstd) so that it is either absent or whole, whenever the process dies.

    The content is cast to `schema`; the same rows always give the same bytes. Raises pa.ArrowInvalid on a row that does
    not fit the schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = content.cast(schema) if isinstance(content, pa.Table) else pa.Table.from_pylist(content, schema=schema)
    with replacing(path) as unfinished:
        pq.write_table(table, unfinished, compression="zstd", row_group_size=ROW_GROUP)


def columns(folder: Path) -> list[str]:
    """Names of a table's columns; [] where it has no part."""
    import pyarrow.parquet as pq

    parts = files(folder)
    return list(pq.read_schema(parts[0]).names) if parts else []


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file so that it is either absent or whole, whenever the process dies."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; when the block ends it is flushed to the disk and gets its final name.

    So `path` is either as it was or whole, whenever the process dies. An exception leaves `path` untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    yield unfinished
    commit_file(unfinished, path)


def commit_file(unfinished: Path, path: Path) -> None:
    """Flush a finished file to the disk and give it its final name in one step."""
    with unfinished.open("rb") as handle:
        os.fsync(handle.fileno())
    unfinished.replace(path)


def files(folder: Path) -> list[Path]:
    """The Parquet parts directly in a folder, in order."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def read(folder: Path, columns: list[str] | None = None) -> "pa.Table":
    """All parts of one table as one Arrow table (memory: the columns asked for)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = files(folder)
    if not parts:
        raise UserError("tables", f"no Parquet file in {folder}", "at least one part", "rerun the stage with --force")
    return pa.concat_tables(pq.read_table(path, columns=columns) for path in parts).unify_dictionaries()


def rows(path: Path) -> int:
    """Rows of one Parquet file, from its footer alone."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def count(folder: Path) -> int:
    """Rows of one table, from the Parquet footers alone."""
    return sum(rows(path) for path in files(folder))


def table_folders(artifact: Path, kind: str) -> dict[str, Path]:
    """Table name -> folder, for the tables an artifact holds: the main one at its top, others in named folders."""
    from pipeline.schema import TABLES

    found = {kind: artifact} if files(artifact) else {}
    return found | {path.name: path for path in sorted(artifact.iterdir()) if path.name in TABLES and files(path)}


def connect(views: Mapping[str, Path]) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB with one view per table folder."""
    import duckdb

    connection = duckdb.connect()
    for name, folder in views.items():
        connection.read_parquet(str(folder / "*.parquet")).create_view(name)
    return connection


SPLITS = ("train", "val", "test")

ENUMS: dict[str, dict[str, tuple[str, ...]]] = {
    "pairs": {"split": SPLITS},
    "pairs_negatives": {"type": KINDS},
    "negatives": {"type": KINDS, "status": ("accepted", "rejected", "not_applicable")},
    "dataset": {"split": SPLITS},
    "leaks": {"rule": ("image_id", "caption_hash", "perceptual_hash", "foil_ngram")},
}
"""Table -> columns whose values are known beforehand, in the order that SQL sorts them by."""


def database(folders: Mapping[str, Path]) -> "duckdb.DuckDBPyConnection":
    """As `connect`, for people: columns of ENUMS are enums, and `columns` says which may be null, as no view can."""
    connection = connect({})
    required = []
    for name, folder in folders.items():
        rows = connection.read_parquet(str(folder / "*.parquet"))
        enums = [f"{column}::enum{values} as {column}" for column, values in ENUMS.get(name, {}).items()]
        (rows.select(f"* replace ({', '.join(enums)})") if enums else rows).create_view(name)
        path = str(files(folder)[0]).replace("'", "''")
        required.append(
            f"select '{name}' as table_name, name as column_name, repetition_type = 'REQUIRED' as never_null "  # noqa: S608
            f"from parquet_schema('{path}')"
        )
    connection.execute(
        "create view columns as select table_name, column_name, data_type, never_null "  # noqa: S608
        f"from duckdb_columns() join ({' union all '.join(required)}) using (table_name, column_name) "
        "order by table_name, column_index"
    )
    return connection


def batches(folder: Path, size: int, columns: list[str] | None = None) -> "Iterable[pa.RecordBatch]":
    """Stream one table in record batches of at most `size` rows, in file order."""
    import pyarrow.parquet as pq

    for path in files(folder):
        yield from pq.ParquetFile(path).iter_batches(batch_size=size, columns=columns)
