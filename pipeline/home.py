"""Where artifacts and runs are kept: the store of a command."""

import os
from pathlib import Path

from pipeline.errors import UserError
from pipeline.store import Store


def open_store(home: str | Path | None = None) -> Store:
    """The store at a folder or an address such as s3://bucket/folder; default $DEGLA_HOME, else `runs/` here.

    Raises UserError for an address that no file system answers to, and for a home that is empty or no folder.
    """
    place = str(os.environ.get("DEGLA_HOME", "runs") if home is None else home)
    if "://" in place:
        from pipeline.bucket import Bucket  # loads Arrow's clients of object storage, which few need

        return Bucket.at(place)
    folder = Path(place).expanduser().absolute()
    if not place.strip() or (folder.exists() and not folder.is_dir()):
        given, fix = ("DEGLA_HOME", "set DEGLA_HOME, or unset it") if home is None else ("home", "give another home")
        raise UserError("home", f"{given} is {place!r}", "a folder, there or to be made", fix)
    return Store(folder)
