"""From the dataset's rows to training batches: which pair stands in which batch, its negatives, its image.

A batch is a pure function of (dataset, settings, step), so a resumed run needs to remember nothing but its step.

Shapes: B pairs of this process, K negatives per caption, P texts that say the same, U units of a caption, X = K + 1 + P
+ 2U further texts (the negatives, a paraphrase, what says the same, the units, their foils), N texts = B captions + the
R further ones there are, L tokens of the longest of them, M pairs with a second image, C, H, W pixels.
"""
# ruff: noqa: N815 - shapes are suffixes of names here, also of fields

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import clip
from pipeline.clip import Clip, Pooling
from pipeline.clip.text_tree import Tree
from pipeline.errors import UserError
from stages.train import crops
from stages.train.pictures import Images, size_of
from stages.train.rows import Ints, Rows


class Places(NamedTuple):
    """Where things of a batch are, found on the CPU: a step would have to wait for the device to tell.

    Attributes:
        more_R: int64, place of each text behind the captions among the B * X further ones.
        depicted_M: int64, the rows of `depicted_B`.
        tree: the distinct beginnings of the texts; None where the text tower cannot use it.
    """

    more_R: Tensor
    depicted_M: Tensor
    tree: Tree | None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Places":
        """The same with each tensor changed."""
        return Places(change(self.more_R), change(self.depicted_M), self.tree and self.tree.map(change))


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch.

    Attributes:
        image_BCHW: uint8 as `Images` has them; what the model reads after `on`.
        tokens_NL: int64, zero-padded; the B captions, then what else there is, row by row of `more_BX`.
        type_BK: int64, which type each negative is of (its place in `types`); -1 = there is none.
        other_MCHW: images of the first negatives, as `image_BCHW`, for the rows of `depicted_B`.
        depicted_B: bool, which pairs have such an image.
        rephrased_B: bool, which captions bring a paraphrase.
        box_B4: where each image is cut at random (`crops.draw`); None = it is as the model wants it.
        other_box_M4: the same of the others.
        same_BP: bool, which of P texts that say the same as the caption there are; None = P is 0.
        beside_BCHW: images that are to be joined to the others, as `image_BCHW`; None = nothing is joined.
        upright_B: bool, which of these are higher than wide.
        told_BU: bool, which of U units there are, each with a foil; None = U is 0.
        places: what `located` finds.
    """

    image_BCHW: Tensor
    tokens_NL: Tensor
    type_BK: Tensor
    other_MCHW: Tensor
    depicted_B: Tensor
    rephrased_B: Tensor
    box_B4: Tensor | None = None
    other_box_M4: Tensor | None = None
    same_BP: Tensor | None = None
    beside_BCHW: Tensor | None = None
    upright_B: Tensor | None = None
    told_BU: Tensor | None = None
    places: Places | None = None

    @property
    def have_BK(self) -> Tensor:  # noqa: N802 - shapes are suffixes of names here
        """bool, which negatives there are."""
        return self.type_BK >= 0

    @property
    def more_BX(self) -> Tensor:  # noqa: N802 - shapes are suffixes of names here
        """bool, which texts there are beside the caption, in the order of X."""
        same = [] if self.same_BP is None else [self.same_BP]
        units = [] if self.told_BU is None else [self.told_BU, self.told_BU]
        return torch.cat([self.have_BK, self.rephrased_B[:, None], *same, *units], dim=1)

    def on(self, device: str, model: Clip) -> "Batch":
        """The batch on a device, its images cut and normalised for the model."""
        move = partial(torch.Tensor.to, device=device, non_blocking=True)
        moved = self.map(move)

        def ready(image_BCHW: Tensor, box_B4: Tensor | None) -> Tensor:
            cut_BCHW = image_BCHW if box_B4 is None else crops.cut(image_BCHW, box_B4, size_of(model))
            return clip.normalise(model, cut_BCHW)

        image_BCHW = moved.image_BCHW
        if moved.beside_BCHW is not None and moved.upright_B is not None:
            image_BCHW = crops.joined(image_BCHW, moved.beside_BCHW, moved.upright_B, size_of(model))
        return replace(
            moved,
            image_BCHW=ready(image_BCHW, moved.box_B4),
            other_MCHW=ready(moved.other_MCHW, moved.other_box_M4),
            box_B4=None,
            other_box_M4=None,
            beside_BCHW=None,
            upright_B=None,
        )

    def pin_memory(self) -> "Batch":
        """In memory that a GPU copies from while the program goes on; torch's loader calls it."""
        return self.map(torch.Tensor.pin_memory)

    def located(self, pooled: Pooling | None) -> "Batch":
        """With its places; the tree is grown for a text tower that pools so."""
        more_R, depicted_M = (there.flatten().nonzero()[:, 0] for there in (self.more_BX, self.depicted_B))
        return replace(self, places=Places(more_R, depicted_M, pooled and clip.tree(self.tokens_NL, pooled)))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same with each tensor changed."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        changed: dict[str, Any] = {
            name: value.map(change) if isinstance(value, Places) else change(value)
            for name, value in given.items()
            if value is not None
        }
        return replace(self, **changed)

    def split(self, parts: int) -> list["Batch"]:
        """The batch in pieces of as equal a size as can be; each keeps the texts and images of its captions."""
        count = len(self.type_BK)
        if parts == 1:
            return [self]
        ends = np.cumsum([0, *self.more_BX.sum(dim=1).tolist()]) + count
        shown = np.cumsum([0, *self.depicted_B.tolist()])
        pieces = []
        for rows in np.array_split(np.arange(count), min(parts, count)):
            first, last = int(rows[0]), int(rows[-1]) + 1
            texts = torch.cat([self.tokens_NL[first:last], self.tokens_NL[ends[first] : ends[last]]])
            of_pairs = self._of_pairs().items()
            mine: dict[str, Any] = {name: None if part is None else part[first:last] for name, part in of_pairs}
            box_M4 = None if self.other_box_M4 is None else self.other_box_M4[shown[first] : shown[last]]
            other_MCHW = self.other_MCHW[shown[first] : shown[last]]
            pieces.append(
                replace(self, **mine, tokens_NL=texts, other_MCHW=other_MCHW, other_box_M4=box_M4, places=None)
            )
        return pieces

    def _of_pairs(self) -> dict[str, Any]:
        """What there is of each pair, by its field."""
        others = ("tokens_NL", "other_MCHW", "other_box_M4", "places")
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in others}


# -- which rows, which negatives ---------------------------------------------------------------------------------------


def epoch_order(image_group: Ints, batch: int, seed: int, epoch: int) -> Ints:
    """The rows of one epoch, [batches, batch]: a random order in which no batch holds two captions of one image.

    Two captions of an image in one batch would be each other's false negatives. A row that would clash waits for
    the next batch; rows that fill no whole batch at the end are left out of this epoch.
    """
    stream = iter(np.random.default_rng((seed, epoch)).permutation(len(image_group)).tolist())
    groups = image_group.tolist()
    batches: list[list[int]] = []
    waiting: list[int] = []
    while True:
        current: list[int] = []
        seen: set[int] = set()
        clashing: list[int] = []
        earlier = iter(waiting)
        for row in chain(earlier, stream):
            if groups[row] in seen:
                clashing.append(row)
                continue
            current.append(row)
            seen.add(groups[row])
            if len(current) == batch:
                break
        else:
            return np.array(batches, dtype=np.int64).reshape(-1, batch)
        batches.append(current)
        waiting = [*clashing, *earlier]


def epoch_negatives(
    have: NDArray[np.bool_], count: int, seed: int, epoch: int, chances: NDArray[np.float32] | None = None
) -> Ints:
    """Which negatives each row trains with in one epoch, [rows, count]: type numbers, -1 for none.

    A uniform draw without replacement from the types the row has, so over the epochs a caption meets all of them; a
    negative with a probability below 1 in `chances`, [rows, types], sits out the other epochs.
    """
    draw = np.random.default_rng((seed, epoch, 1)).random(have.shape)
    draw[~have] = np.inf
    if chances is not None:
        draw[np.random.default_rng((seed, epoch, 3)).random(have.shape) >= chances] = np.inf
    chosen: Ints = np.argsort(draw, axis=1, kind="stable")[:, :count]
    return np.where(np.isfinite(np.take_along_axis(draw, chosen, axis=1)), chosen, -1)


def with_neighbours(order: Ints, rows: Rows, neighbours: Ints, seed: int, epoch: int) -> Ints:
    """Each batch of `order`, [batches, half], followed by one row for each of its rows: a caption of a similar image.

    The image is drawn from the row's `neighbours`, [images, k], among those the batch does not show yet; where it
    shows all of them, from all images.
    """
    draw = np.random.default_rng((seed, epoch, 2))
    by_file = np.argsort(rows.image_file, kind="stable")
    ends = np.searchsorted(rows.image_file[by_file], np.arange(len(rows.uris) + 1))
    partners = np.empty_like(order)
    for number, anchors in enumerate(order):
        seen = set(rows.image_group[anchors].tolist())
        for place, anchor in enumerate(anchors):
            similar = draw.permutation(neighbours[rows.image_file[anchor]]).tolist()
            captions = (int(draw.choice(by_file[ends[p] : ends[p + 1]])) for p in similar)
            chosen = next((row for row in captions if int(rows.image_group[row]) not in seen), None)
            while chosen is None or int(rows.image_group[chosen]) in seen:
                chosen = int(draw.integers(len(rows)))
            seen.add(int(rows.image_group[chosen]))
            partners[number, place] = chosen
    return np.concatenate([order, partners], axis=1)


# -- batches -----------------------------------------------------------------------------------------------------------


class Batches(Dataset[Batch]):
    """Batch number `step` (0-based, over all epochs) of the whole training, for one process of `world`.

    Args:
        rows: the training rows.
        images: by the number of a file.
        batch: pairs in the global batch.
        negatives: K, negatives per caption.
        epochs: passes over the rows.
        seed: of order and draw.
        rank: which share of each batch, `batch / world` rows of it.
        world: processes that share each batch.
        neighbours: [images, k], similar images of each; with them the second half of each batch is drawn from
            those of the first.
        joined: makes every other batch, the first of an epoch among them, from its rows, its step and the place of its
            first row in the global batch (`joined.Joined`).

    Raises:
        UserError: not one batch of different images can be made.
    """

    def __init__(
        self,
        rows: Rows,
        images: Images,
        batch: int,
        negatives: int,
        epochs: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        neighbours: Ints | None = None,
        joined: Callable[[Ints, int, int], Batch] | None = None,
    ) -> None:
        self.rows, self.images, self.seed, self.batch, self.joined = rows, images, seed, batch, joined
        of_order = batch if neighbours is None else batch // 2
        orders = [epoch_order(rows.image_group, of_order, seed, epoch) for epoch in range(epochs)]
        different = int(rows.image_group.max()) + 1
        if neighbours is not None and different >= batch:
            orders = [with_neighbours(order, rows, neighbours, seed, epoch) for epoch, order in enumerate(orders)]
        if not sum(map(len, orders)) or different < batch:
            raise UserError(
                "train",
                f"a batch of {batch} needs as many different images, and there are {different}",
                "a batch no larger than the training split's images",
                "lower train.batch",
            )
        self.share = slice(rank * batch // world, (rank + 1) * batch // world)
        self.order = np.concatenate(orders)[:, self.share]
        self.epoch = np.repeat(np.arange(epochs), [len(order) for order in orders])
        self.negatives = [epoch_negatives(rows.have, negatives, seed, epoch, rows.chances) for epoch in range(epochs)]
        self.rephrasing = [rows.paraphrases.draw(seed, epoch) for epoch in range(epochs)] if rows.paraphrases else None
        self.units = [rows.units.draw(seed, epoch) for epoch in range(epochs)] if rows.units else None

    def __len__(self) -> int:
        return len(self.order)

    def epoch_starts(self, step: int) -> bool:
        """Whether the batch of that 0-based step is the first of its epoch."""
        return step == 0 or (step < len(self) and bool(self.epoch[step] != self.epoch[step - 1]))

    def epochs_done(self, step: int) -> float:
        """Epochs done, fractional, after `step` steps."""
        epoch = int(self.epoch[step - 1])
        first, last = np.searchsorted(self.epoch, [epoch, epoch + 1])
        return epoch + float(step - first) / float(last - first)

    def __getitem__(self, step: int) -> Batch:
        rows, chosen = self.order[step], self.negatives[self.epoch[step]][self.order[step]]
        if self.joined and not (step - np.searchsorted(self.epoch, self.epoch[step])) % 2:
            return self.joined(rows, step, self.share.start)
        shown_B = self._first_shown(rows, chosen)
        none_B = np.full(len(rows), -1, dtype=np.int64)
        rephrasing_B = none_B if self.rephrasing is None else self.rephrasing[self.epoch[step]][rows]
        texts = [self.rows.text(0, row) for row in rows]
        unit_BU = np.empty((len(rows), 0)) if self.units is None else self.units[self.epoch[step]][rows]
        for row, kinds, rephrasing, units in zip(rows, chosen, rephrasing_B, unit_BU, strict=True):
            texts += [self.rows.text(1 + kind, row) for kind in kinds if kind >= 0]
            texts += [self.rows.paraphrase(rephrasing)] if rephrasing >= 0 else []
            texts += self.rows.unit_texts(units[units >= 0])
        depicted_B = shown_B >= 0
        image_BCHW, aspect_B = self.images.stack(self.rows.image_file[rows])
        other_MCHW, aspect_M = self.images.stack(shown_B[depicted_B])
        box_B4 = box_M4 = None
        if self.images.crop == "random":  # by seed, step and place in the global batch, whichever process this is
            random_2BT4 = np.random.default_rng((self.seed, step)).random((2, self.batch, crops.TRIES, 4))
            own_BT4, other_BT4 = random_2BT4[:, self.share]
            box_B4, box_M4 = crops.draw(own_BT4, aspect_B), crops.draw(other_BT4[depicted_B], aspect_M)
        type_BK, depicted, rephrased = map(torch.from_numpy, (chosen, depicted_B, rephrasing_B >= 0))
        told_BU = None if self.units is None else torch.from_numpy(unit_BU >= 0)
        return Batch(
            image_BCHW, clip.pad(texts), type_BK, other_MCHW, depicted, rephrased, box_B4, box_M4, told_BU=told_BU
        )

    def _first_shown(self, rows: Ints, chosen: Ints) -> Ints:
        """The image of each row's first negative, -1 = none; a negative that has one is moved to the front."""
        if not chosen.shape[1]:
            return np.full(len(rows), -1, dtype=np.int64)
        shown = np.where(chosen >= 0, self.rows.depicting[rows[:, None], chosen], -1)
        each, first = np.arange(len(rows)), np.argmax(shown >= 0, axis=1)
        chosen[each, first], chosen[:, 0] = chosen[:, 0].copy(), chosen[each, first].copy()
        found: Ints = shown[each, first]
        return found


def load(
    batches: Batches, start: int, workers: int, chunks: int = 1, pooled: Pooling | None = None, *, pinned: bool = False
) -> Iterator[list[Batch]]:
    """The batches from number `start` on, each in `chunks` pieces, all that a step needs of them `located`.

    Args:
        batches: the batches.
        start: number of the first one.
        workers: processes that make them ahead of time; 0 = none.
        chunks: pieces of a batch.
        pooled: of the model's text tower (`clip.pooling`).
        pinned: whether they come in memory that a GPU copies from while the program goes on.
    """
    loader = DataLoader(
        _Carrying(batches, chunks, pooled), batch_size=None, sampler=range(start, len(batches)), num_workers=workers,
        worker_init_fn=_leave_at_once, pin_memory=pinned,
    )  # fmt: skip
    for parts in loader:
        if isinstance(parts, UserError):
            raise parts
        yield parts


def _leave_at_once(worker: int) -> None:
    """End without what the parent's libraries do at exit: Prefect's would wait for threads that only the parent has."""
    Finalize(None, os._exit, (0,), exitpriority=-1000)  # after those that hand over what is still in queues


class _Carrying(Dataset[list[Batch] | UserError]):
    """The batches in pieces; a user's error comes as a value, because the loader's processes lose what it says."""

    def __init__(self, batches: Batches, chunks: int, pooled: Pooling | None) -> None:
        self.batches, self.chunks, self.pooled = batches, chunks, pooled

    def __getitem__(self, step: int) -> list[Batch] | UserError:
        try:
            return [part.located(self.pooled) for part in self.batches[step].split(self.chunks)]
        except UserError as error:
            return error
