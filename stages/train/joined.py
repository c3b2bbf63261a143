"""CLIC's joined batches: two images in one, both their captions told in four ways, and a false way.

The false text exchanges a word of one caption with a word of the same part of speech of the other: true words, all of
them there, in the wrong image. No language model writes anything. Source: CLIC (arXiv 2505.24424).

Shapes: B pairs of images, N rows.
"""

import re
from typing import Any

import numpy as np
import torch

from pipeline import clip
from stages.text.words import parse
from stages.train.batches import Batch
from stages.train.pictures import Images
from stages.train.rows import Ints, Rows

FURTHER = 2
"""Further captions of each image that are told, beside the row's own."""

_EXCHANGED = ("CD", "IN", "JJ", "NN", "PR", "RB", "VB")
"""Parts of speech whose words are exchanged, as the beginnings of Penn tags: no determiner, particle or conjunction."""

_AUXILIARY = ("be", "do", "have")
_TRIES = 64


class Joined:
    """Makes the joined batch of some rows.

    Args:
        rows: the training rows, read with their captions.
        images: by the number of a file.
        model: whose tokens the texts are.
        seed: of the partners, the order in which they stand, and the words exchanged.
    """

    def __init__(self, rows: Rows, images: Images, model: str, seed: int) -> None:
        self.rows, self.images, self.model, self.seed = rows, images, model, seed
        self._upright_N = rows.upright[rows.image_file]
        self._alike = [np.flatnonzero(self._upright_N == upright) for upright in (False, True)]
        self._by_group = np.argsort(rows.image_group, kind="stable")
        self._groups_N = rows.image_group[self._by_group]

    def batch(self, rows_B: Ints, step: int, first: int) -> Batch:
        """The batch of these rows, each joined to one of another image of its orientation.

        What is drawn depends on seed, step and place in the global batch alone, `first` being that of the first row.
        """
        files, texts, more = np.empty((2, len(rows_B)), dtype=np.int64), [], []
        have = torch.zeros(len(rows_B), 1, dtype=torch.bool)
        for place, row in enumerate(rows_B):
            draw = np.random.default_rng((self.seed, step, 5, first + place))
            pair = [row, self._partner(row, draw)]
            one, two = (self._caption(each) for each in pair)
            texts.append(told(one, two))
            false = exchanged(one, two, draw)
            have[place] = false is not None
            more += [] if false is None else [false]
            more.append(told(two, one))
            more += [
                told(*draw.permutation(both))
                for both in zip(*(self._further(each, draw) for each in pair), strict=True)
            ]
            files[:, place] = self.rows.image_file[draw.permutation(pair)]
        (image_BCHW, _), (beside_BCHW, _) = map(self.images.stack, files)
        tokens = map(torch.tensor, clip.tokenizer(self.model)(texts + more))
        none_B = torch.zeros(len(rows_B), dtype=torch.bool)
        none_MCHW = image_BCHW.new_empty(0, image_BCHW.shape[1], *self.images.size)
        return Batch(
            image_BCHW, clip.pad(list(tokens)), have.long() - 1, none_MCHW, none_B, none_B,
            same_BP=torch.ones(len(rows_B), 1 + FURTHER, dtype=torch.bool),
            beside_BCHW=beside_BCHW,
            upright_B=torch.from_numpy(self._upright_N[rows_B]),
        )  # fmt: skip

    def _partner(self, row: int, draw: np.random.Generator) -> int:
        """A row of another image, of the same orientation unless next to none is."""
        group = self.rows.image_group[row]
        alike = self._alike[int(self._upright_N[row])]
        drawn = alike[draw.integers(len(alike), size=_TRIES)]
        others = drawn[self.rows.image_group[drawn] != group]
        if not len(others):
            others = draw.permutation(np.flatnonzero(self.rows.image_group != group))
        return int(others[0])

    def _further(self, row: int, draw: np.random.Generator) -> list[str]:
        """Other captions of a row's image: each once if they suffice, else the row's own, or the only other one."""
        start, stop = np.searchsorted(self._groups_N, self.rows.image_group[row] + np.arange(2))
        members = self._by_group[start:stop]
        others = members[members != row] if len(members) > 1 else members
        return [self._caption(other) for other in draw.choice(others, FURTHER, replace=len(others) < FURTHER)]

    def _caption(self, row: int) -> str:
        captions: Any = self.rows.captions
        return str(captions[int(row)]).lower()


def told(*captions: str) -> str:
    """Captions one after the other, each a sentence."""
    return " ".join(caption.strip().removesuffix(".") + "." for caption in captions)


def exchanged(one: str, two: str, draw: np.random.Generator) -> str | None:
    """Both captions in either order with a word of each in the other's place; None where all their words are alike.

    The words are of one part of speech, drawn among those of which both captions have words that the other lacks;
    where there is none such, any two words.
    """
    texts = (one, two)
    found = [_by_kind(text) for text in texts]
    own = [{kind: sorted(words[kind] - other[kind]) for kind in words} for words, other in (found, found[::-1])]
    kinds = [kind for kind in (*_EXCHANGED, "") if all(words[kind] for words in own)]
    if not kinds:
        return None
    kind = draw.choice([kind for kind in kinds if kind] or kinds)
    mine, theirs = (str(draw.choice(words[kind])) for words in own)
    changed = [_with(one, mine, theirs), _with(two, theirs, mine)]
    return told(*draw.permutation(changed))


def _by_kind(text: str) -> dict[str, set[str]]:
    """Part of speech -> the words of it; "" -> all words."""
    found: dict[str, set[str]] = {kind: set() for kind in (*_EXCHANGED, "")}
    for word in parse(text):
        if word.is_word:
            found[""].add(word.lower)
            if word.tag[:2] in found and word.lemma not in _AUXILIARY:
                found[word.tag[:2]].add(word.lower)
    return found


def _with(text: str, old: str, new: str) -> str:
    """The text with one word in place of another, wherever it stands."""
    return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, text)
