"""What else says what a caption says: rewrites of it, and other captions of its image; which is drawn when.

Shapes: R rows, P rewrites of all rows in a row.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import UserError
from stages.train.config import Source

Ints = NDArray[np.int64]


class Paraphrases:
    """The paraphrases of some rows.

    Args:
        rewrites: per row the token ids of each rewrite of its caption; null = none.
        image_group: row -> number of its group; rows that share one are captions of one image.
        sources: what counts as a paraphrase.

    Raises:
        UserError: no row has one.
    """

    def __init__(self, rewrites: pa.ListArray, image_group: Ints, sources: Sequence[Source]) -> None:
        texts = rewrites.flatten()
        self._tokens, lengths = np.asarray(texts.flatten()), np.asarray(texts.value_lengths())
        self._offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._own_R = np.asarray(rewrites.value_lengths().fill_null(0)).astype(np.int64)
        if "rewrites" not in sources:
            self._own_R = np.zeros_like(self._own_R)
        self._first_R = np.cumsum(self._own_R) - self._own_R
        self._by_group = np.argsort(image_group, kind="stable")
        self._size_R = np.bincount(image_group)[image_group]
        self._start_R = np.searchsorted(image_group[self._by_group], image_group)
        self._place_R = np.empty_like(self._by_group)
        self._place_R[self._by_group] = np.arange(len(image_group))
        self._place_R -= self._start_R
        self._others_R = self._size_R - 1 if "captions" in sources else np.zeros_like(self._size_R)
        if not (self._own_R + self._others_R).any():
            raise UserError(
                "train",
                f"no caption of the dataset has a paraphrase (train.paraphrases: {', '.join(sources)})",
                "rewrites, or images with several captions",
                "--set generate.paraphrases=true, or leave out the terms that need them",
            )

    def draw(self, seed: int, epoch: int) -> Ints:
        """[R]: the paraphrase of each row in one epoch, as a number for `tokens`, drawn uniformly; -1 = it has none.

        A number below R is the row of another caption of the image, R + p is rewrite p.
        """
        count_R = self._own_R + self._others_R
        drawn_R = np.random.default_rng((seed, epoch, 4)).integers(np.maximum(count_R, 1))
        step_R = drawn_R - self._own_R
        other_R = self._by_group[self._start_R + (self._place_R + 1 + np.maximum(step_R, 0)) % self._size_R]
        found_R = np.where(step_R < 0, len(count_R) + self._first_R + drawn_R, other_R)
        return np.where(count_R > 0, found_R, -1)

    def tokens(self, rewrite: int) -> Ints:
        """Token ids of one rewrite."""
        found: Ints = self._tokens[self._offsets[rewrite] : self._offsets[rewrite + 1]].astype(np.int64)
        return found
