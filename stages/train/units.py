"""Units of captions, what they name, each with a foil; which is drawn when.

Shapes: R rows, U units drawn per row.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import UserError

UNITS = 3
"""U, as CS-CLIP has it."""

Ints = NDArray[np.int64]


class Units:
    """The units of some rows.

    Args:
        units: per row the token ids of each unit; null = none.
        foils: the same of their foils.

    Raises:
        UserError: no row has one.
    """

    def __init__(self, units: pa.ListArray, foils: pa.ListArray) -> None:
        self._texts = [rows.flatten() for rows in (units, foils)]
        self._count_R = np.asarray(units.value_lengths().fill_null(0)).astype(np.int64)
        self._first_R = np.cumsum(self._count_R) - self._count_R
        if not self._count_R.any():
            raise UserError(
                "train",
                "no caption of the dataset has a unit",
                "things and relations with a foil each",
                "degla show RUN negatives, or leave out the terms that need them",
            )

    def draw(self, seed: int, epoch: int) -> Ints:
        """[R, U]: units of each row in one epoch, as numbers for `tokens`, each drawn uniformly; -1 = it has none."""
        shape = len(self._count_R), UNITS
        drawn_RU = np.random.default_rng((seed, epoch, 5)).integers(np.maximum(self._count_R, 1)[:, None], size=shape)
        return np.where(self._count_R[:, None] > 0, self._first_R[:, None] + drawn_RU, -1)

    def tokens(self, unit: int) -> tuple[Ints, Ints]:
        """Token ids of a unit and of its foil."""
        one, foil = (texts[unit].values.to_numpy().astype(np.int64) for texts in self._texts)
        return one, foil
