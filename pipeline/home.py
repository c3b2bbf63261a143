"""Where artifacts and runs are kept: the store of a command."""

import os
from pathlib import Path

from pipeline.store import Store


def open_store(home: str | Path | None = None) -> Store:
    """The store at a folder or an address such as s3://bucket/folder; default $DEGLA_HOME, else `runs/` here.

    Raises UserError for an address that no file system answers to.
    """
    place = str(home or os.environ.get("DEGLA_HOME") or "runs")
    if "://" in place:
        from pipeline.bucket import Bucket  # loads Arrow's clients of object storage, which few need

        return Bucket.at(place)
    return Store(Path(place).expanduser().absolute())
