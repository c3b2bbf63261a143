"""Long computations piece by piece, each kept under a name made from what is in it.

So a killed run repeats at most one piece, and no piece is ever taken for another.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import tables
from pipeline.stage import Progress
from stages.evaluate.rows import Floats

PIECE = 1024
"""Items per file."""


def pieces(
    work: Path | None,
    what: str,
    items: Sequence[Any],
    names: Sequence[str],
    compute: Callable[[Sequence[Any]], Any],
    progress: Progress,
) -> Iterator[Floats]:
    """What `compute` gives of the items, in order, piece by piece; pieces that `work` holds are not computed again.

    Args:
        work: folder of the pieces; None = memory only.
        what: the unit, for progress and file names.
        items: what `compute` takes some of.
        names: their identities, in the same order; a piece is named by those in it.
        compute: items -> fp32 array with one row each.
        progress: callback.
    """
    for start in range(0, len(items), PIECE):
        name = hashlib.sha256("\0".join(names[start : start + PIECE]).encode()).hexdigest()[:16]
        file = work / f"{what}-{name}.npy" if work else None
        if file and file.exists():
            found = np.load(file)
        else:
            found = np.asarray(compute(items[start : start + PIECE]), dtype=np.float32)
            if file:
                _write(file, found)
        progress(what, min(start + PIECE, len(items)), len(items))
        yield found


def _write(path: Path, array: Floats) -> None:
    with tables.replacing(path) as unfinished, unfinished.open("wb") as handle:
        np.save(handle, array)
