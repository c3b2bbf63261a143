"""Token ids of a whole column of texts: every distinct word is tokenised once, the rest is array work.

Shapes: N texts, W words of all texts in a row, T token ids of all texts in a row.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Tokenize = Callable[[list[str]], list[list[int]]]
"""Texts -> token ids with start and end token, see `pipeline.clip.tokenizer`."""

Ints = NDArray[np.int64]

WORDS = 2**18
"""Words remembered at most."""

_NOT_PLAIN = r"[^\x20-\x7e]|&"
"""Such texts are mended as a whole before they are parted into words (Unicode, HTML entities)."""


class Tokeniser:
    """`tokenize` for columns of texts; remembers the words it met, for the next column.

    Fast where `tokenize` gives texts their own length: that is CLIP's byte-pair encoding, whose tokens never cross
    white space, so the tokens of a plain text are those of its words in a row. Any other tokenizer is simply called.
    """

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._by_words = len(tokenize(["a a"])[0]) == 4
        self._words: dict[str, int] = {}
        self._body: list[list[int]] = []
        if self._by_words:
            self._start, *_, self._end = tokenize(["a"])[0]
            self._most = len(tokenize(["a " * 10_000])[0]) - 2

    def column(self, texts: pa.Array) -> pa.ListArray:
        """`tokenize` of every text, as one list array of int32; null stays null. Equal to calling it on the texts."""
        null_N = np.asarray(texts.is_null())
        length_N = np.zeros(len(texts), np.int64)
        if not self._by_words:
            values_T, length_N[~null_N] = _flat(self._tokenize(texts.drop_null().to_pylist()))
            return _lists(values_T, length_N, null_N)

        plain_N = np.asarray(pc.invert(pc.match_substring_regex(texts, _NOT_PLAIN)).fill_null(False))
        found = []
        for chosen_N, tokens in ((plain_N, self._plain), (~plain_N & ~null_N, self._mended)):
            body_T, length = _cut(*tokens(texts.filter(pa.array(chosen_N))), self._most)
            length_N[chosen_N] = length + 2
            found.append((chosen_N, body_T, length))
        begin_N = np.cumsum(length_N) - length_N
        values_T = np.empty(int(length_N.sum()), np.int32)
        values_T[begin_N[~null_N]] = self._start
        values_T[(begin_N + length_N - 1)[~null_N]] = self._end
        for chosen_N, body_T, length in found:
            values_T[_ranges(begin_N[chosen_N] + 1, length)] = body_T
        return _lists(values_T, length_N, null_N)

    def lists(self, texts: pa.ListArray) -> pa.ListArray:
        """`column` of the texts in every list; a null list stays null."""
        length_N = np.asarray(texts.value_lengths().fill_null(0)).astype(np.int64)
        return _lists(self.column(texts.flatten()), length_N, np.asarray(texts.is_null()))

    def _plain(self, texts: pa.Array) -> tuple[NDArray[np.int32], Ints]:
        """Token ids without start and end of plain texts, in a row, and how many each text has."""
        words = pc.ascii_split_whitespace(pc.ascii_lower(texts))
        coded = words.flatten().dictionary_encode()
        body, length = _flat(self._bodies(coded.dictionary.to_pylist()))
        begin = np.cumsum(length) - length
        word_W = np.asarray(coded.indices)
        ends_W = np.concatenate([[0], np.cumsum(length[word_W])])
        offsets_N = np.asarray(words.offsets) - words.offsets[0].as_py()
        return body[_ranges(begin[word_W], length[word_W])], np.diff(ends_W[offsets_N])

    def _bodies(self, words: list[str]) -> list[list[int]]:
        if len(self._words) > WORDS:
            self._words, self._body = {}, []
        new = [word for word in words if word not in self._words]
        self._words |= {word: number for number, word in enumerate(new, start=len(self._body))}
        self._body += [row[1:-1] for row in self._tokenize(new)]
        return [self._body[self._words[word]] for word in words]

    def _mended(self, texts: pa.Array) -> tuple[NDArray[np.int32], Ints]:
        return _flat([row[1:-1] for row in self._tokenize(texts.to_pylist())])


def _flat(rows: list[list[int]]) -> tuple[NDArray[np.int32], Ints]:
    lists = pa.array(rows, pa.list_(pa.int32()))
    return np.asarray(lists.flatten()), np.diff(np.asarray(lists.offsets)).astype(np.int64)


def _cut(body_T: NDArray[np.int32], length_N: Ints, most: int) -> tuple[NDArray[np.int32], Ints]:
    if length_N.max(initial=0) <= most:
        return body_T, length_N
    kept_N = np.minimum(length_N, most)
    return body_T[_ranges(np.cumsum(length_N) - length_N, kept_N)], kept_N


def _ranges(begin: Ints, length: Ints) -> Ints:
    """begin[0], begin[0] + 1, ... (length[0] of them), begin[1], ..."""
    skipped = begin - (np.cumsum(length) - length)
    positions: Ints = np.repeat(skipped, length) + np.arange(int(length.sum()))
    return positions


def _lists(values: NDArray[np.int32] | pa.Array, length_N: Ints, null_N: NDArray[np.bool_]) -> pa.ListArray:
    offsets = pa.array(np.concatenate([[0], np.cumsum(length_N)]), pa.int32())
    values = pa.array(values, pa.int32()) if isinstance(values, np.ndarray) else values
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array(null_N))
