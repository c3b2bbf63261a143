"""What else says what a caption says: rewrites of it, and other captions of its image; which is drawn when.

Shapes: S sources of texts, R rows, P texts of all sources and rows in a row.
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
        absences: per row the token ids of each text that also says what its image lacks; null = none.

    Raises:
        UserError: no row has one.
    """

    def __init__(
        self,
        rewrites: pa.ListArray,
        image_group: Ints,
        sources: Sequence[Source],
        absences: pa.ListArray | None = None,
    ) -> None:
        given = {"rewrites": rewrites, "absences": absences}
        lists = [rows for name, rows in given.items() if name in sources and rows is not None]
        texts = pa.concat_arrays([rows.flatten() for rows in lists]) if lists else rewrites.flatten()[:0]
        self._tokens, lengths = np.asarray(texts.flatten()), np.asarray(texts.value_lengths())
        self._offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._count_SR = [np.asarray(rows.value_lengths().fill_null(0)).astype(np.int64) for rows in lists]
        before = np.cumsum([0, *(count_R.sum() for count_R in self._count_SR)])
        self._first_SR = [
            np.cumsum(count_R) - count_R + at for count_R, at in zip(self._count_SR, before, strict=False)
        ]
        self._by_group = np.argsort(image_group, kind="stable")
        self._size_R = np.bincount(image_group)[image_group]
        self._start_R = np.searchsorted(image_group[self._by_group], image_group)
        self._place_R = np.empty_like(self._by_group)
        self._place_R[self._by_group] = np.arange(len(image_group))
        self._place_R -= self._start_R
        self._others_R = self._size_R - 1 if "captions" in sources else np.zeros_like(self._size_R)
        self._total_R = np.sum([*self._count_SR, self._others_R], axis=0)
        if not self._total_R.any():
            raise UserError(
                "train",
                f"no caption of the dataset has a paraphrase (train.paraphrases: {', '.join(sources)})",
                "rewrites, or images with several captions",
                "--set generate.paraphrases=true, or leave out the terms that need them",
            )

    def draw(self, seed: int, epoch: int) -> Ints:
        """[R]: the paraphrase of each row in one epoch, as a number for `tokens`, drawn uniformly; -1 = it has none.

        A number below R is the row of another caption of the image, R + p is text p.
        """
        left_R = np.random.default_rng((seed, epoch, 4)).integers(np.maximum(self._total_R, 1))
        found_R = np.full_like(left_R, -1)
        for count_R, first_R in zip(self._count_SR, self._first_SR, strict=True):
            found_R = np.where((left_R >= 0) & (left_R < count_R), len(left_R) + first_R + left_R, found_R)
            left_R = left_R - count_R
        other_R = self._by_group[self._start_R + (self._place_R + 1 + np.maximum(left_R, 0)) % self._size_R]
        found_R = np.where(left_R >= 0, other_R, found_R)
        return np.where(self._total_R > 0, found_R, -1)

    def tokens(self, text: int) -> Ints:
        """Token ids of one text."""
        found: Ints = self._tokens[self._offsets[text] : self._offsets[text + 1]].astype(np.int64)
        return found
