"""SQL over an artifact's tables, answered as rows of plain data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.schema import TABLES


@contextmanager
def asked(**folders: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Ask SQL of tables by name and get rows as dicts; a table that is not there is empty."""
    with tables.connect({name: folder for name, folder in folders.items() if tables.files(folder)}) as connection:
        for name, folder in folders.items():
            if not tables.files(folder):
                connection.register(name, TABLES[name].empty_table())
        yield lambda query: list(connection.sql(query).to_arrow_table().to_pylist())
