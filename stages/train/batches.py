"""From the dataset's rows to training batches: which pair stands in which batch, its negatives, its image.

A batch is a pure function of (dataset, settings, step), so a resumed run needs to remember nothing but its step.

Shapes: B pairs of this process, K negatives per caption, X = K + 1 further texts (the negatives and a paraphrase), N
texts = B captions + the R further ones there are, L tokens of the longest of them, M pairs with a second image, C, H, W
pixels.
"""
# ruff: noqa: N815 - shapes are suffixes of names here, also of fields

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import chain
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import clip, tables
from pipeline.artifact import Artifact
from pipeline.clip import Clip, Pooling
from pipeline.clip.prefix_tree import Tree
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from stages.train import crops
from stages.train.config import Source
from stages.train.paraphrases import Paraphrases
from stages.train.pictures import Images, size_of

Ints = NDArray[np.int64]


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
    places: Places | None = None

    @property
    def have_BK(self) -> Tensor:  # noqa: N802 - shapes are suffixes of names here
        """bool, which negatives there are."""
        return self.type_BK >= 0

    @property
    def more_BX(self) -> Tensor:  # noqa: N802 - shapes are suffixes of names here
        """bool, which texts there are beside the caption: its negatives, then its paraphrase."""
        return torch.cat([self.have_BK, self.rephrased_B[:, None]], dim=1)

    def on(self, device: str, model: Clip) -> "Batch":
        """The batch on a device, its images cut and normalised for the model."""
        move = partial(torch.Tensor.to, device=device, non_blocking=True)
        moved = self._each(move)

        def ready(image_BCHW: Tensor, box_B4: Tensor | None) -> Tensor:
            cut_BCHW = image_BCHW if box_B4 is None else crops.cut(image_BCHW, box_B4, size_of(model))
            return clip.normalise(model, cut_BCHW)

        return replace(
            moved,
            image_BCHW=ready(moved.image_BCHW, moved.box_B4),
            other_MCHW=ready(moved.other_MCHW, moved.other_box_M4),
            box_B4=None,
            other_box_M4=None,
        )

    def pin_memory(self) -> "Batch":
        """In memory that a GPU copies from while the program goes on; torch's loader calls it."""
        return self._each(torch.Tensor.pin_memory)

    def located(self, pooled: Pooling | None) -> "Batch":
        """With its places; the tree is grown for a text tower that pools so."""
        more_R, depicted_M = (there.flatten().nonzero()[:, 0] for there in (self.more_BX, self.depicted_B))
        return replace(self, places=Places(more_R, depicted_M, pooled and clip.tree(self.tokens_NL, pooled)))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
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
            other_MCHW = self.other_MCHW[shown[first] : shown[last]]
            piece = (self.image_BCHW[first:last], texts, self.type_BK[first:last], other_MCHW)
            box_B4 = None if self.box_B4 is None else self.box_B4[first:last]
            box_M4 = None if self.other_box_M4 is None else self.other_box_M4[shown[first] : shown[last]]
            pieces.append(Batch(*piece, self.depicted_B[first:last], self.rephrased_B[first:last], box_B4, box_M4))
        return pieces


@dataclass(frozen=True)
class Rows:
    """The training rows, columnar: small enough to be shared by the loader's processes.

    Attributes:
        uris: image files, distinct, below `root`.
        sha256: of each of these files as ingest saw it; None = it did not.
        image_file: row -> index into `uris`.
        image_group: row -> number of its group; rows that share one are captions of one image, or of copies of it.
        tokens: per text column (the caption, then the types) all token ids, and the row offsets into them.
        have: [rows, types], whether a row has that negative; a text that is there under two types is of the first.
        chances: [rows, types], sampling probability of each negative in its turn, (0, 1].
        depicting: [rows, types], index into `uris` of an image that the negative is about; -1 = none.
        paraphrases: what else says what the captions say; None = not asked for.
    """

    root: Path
    uris: list[str]
    sha256: list[str | None]
    image_file: Ints
    image_group: Ints
    tokens: list[tuple[NDArray[np.int32], Ints]]
    have: NDArray[np.bool_]
    chances: NDArray[np.float32]
    depicting: Ints
    paraphrases: Paraphrases | None = None

    def __len__(self) -> int:
        return len(self.image_file)

    def text(self, column: int, row: int) -> Tensor:
        """Token ids of one text; column 0 is the caption, 1 + t the negative of type t."""
        values, offsets = self.tokens[column]
        return torch.from_numpy(values[offsets[row] : offsets[row + 1]].astype(np.int64))

    def paraphrase(self, number: int) -> Tensor:
        """Token ids of a paraphrase, by the number that `Paraphrases.draw` gives."""
        if number < len(self) or self.paraphrases is None:
            return self.text(0, number)
        return torch.from_numpy(self.paraphrases.tokens(number - len(self)))


def read_rows(
    dataset: Artifact,
    pairs: Artifact,
    types: Sequence[str],
    split: str = "train",
    shown: Path | None = None,
    paraphrases: Sequence[Source] = (),
) -> Rows:
    """The rows of one split, only the columns training needs.

    Args:
        dataset: the artifact with the texts.
        pairs: the artifact with the images.
        types: negative types to read.
        split: train, val or test.
        shown: a table that names images of negatives, see `_shown`.
        paraphrases: where paraphrases come from; none are read without.

    Raises:
        UserError: there is no such row, `shown` cannot be read, or there is no paraphrase.
    """
    columns = ["caption_tokens", *(f"{kind}_tokens" for kind in types)]
    names = [*columns, *types, *(["paraphrases_tokens"] if paraphrases else [])]
    table = tables.read(
        dataset.table_folder("dataset"), ["pair_id", "image_group", "image_uri", "split", "chances", *names]
    )
    table = table.filter(np.asarray(table["split"].to_numpy() == split)).combine_chunks()
    if not len(table):
        raise UserError("train", f"the dataset has no row in split {split}", "at least one", "see degla sql, or ingest")
    tokens = []
    for name in columns:
        column = table[name].chunk(0) if table[name].num_chunks else table[name].combine_chunks()
        lengths = np.asarray(column.value_lengths().fill_null(0))
        tokens.append((np.asarray(column.flatten()), np.concatenate([[0], np.cumsum(lengths)])))
    uris, image_file = np.unique(table["image_uri"].to_numpy().astype(str), return_inverse=True)
    _, image_group = np.unique(table["image_group"].to_numpy().astype(str), return_inverse=True)
    have = np.zeros((len(table), len(types)), dtype=bool)
    for place, kind in enumerate(types):
        have[:, place] = table[f"{kind}_tokens"].is_valid()
        for earlier in types[:place]:
            have[:, place] &= ~np.asarray(pc.equal(table[kind], table[earlier]).fill_null(False))
    depicting: Ints = np.full(have.shape, -1, dtype=np.int64)
    more: list[str] = []
    if shown is not None:
        depicting, more = _shown(shown, table["pair_id"].to_pylist(), types, len(uris))
    with tables.connect({"pairs": pairs.table_folder("pairs")}) as sql:
        known = dict(sql.execute("select distinct image_uri, image_sha256 from pairs").fetchall())
    return Rows(
        root=pairs.path / pairs.meta["image_root"],
        uris=[*uris.tolist(), *more],
        sha256=[*map(known.get, uris.tolist()), *[None] * len(more)],
        image_file=image_file,
        image_group=image_group,
        tokens=tokens,
        have=have,
        chances=_chances(table["chances"], types),
        depicting=np.where(have, depicting, -1),
        paraphrases=Paraphrases(table["paraphrases_tokens"].combine_chunks(), image_group, paraphrases)
        if paraphrases
        else None,
    )


def _shown(path: Path, pair_ids: list[str], types: Sequence[str], known: int) -> tuple[Ints, list[str]]:
    """Images of negatives from a user's CSV or Parquet file: (image number of each row and type, their files).

    The file has the columns pair_id, type and image, a path beside it; rows of other pairs and types do not count.
    """
    import duckdb

    try:
        # replace(): a quote in a path must not end the string
        named = duckdb.sql(f"select pair_id::varchar, type, image from '{str(path).replace(chr(39), chr(39) * 2)}'")  # noqa: S608
        listed = named.fetchall()
    except duckdb.Error as error:
        line = str(error).splitlines()[0]
        raise UserError(
            "train", f"cannot read {path}: {line}", "a CSV or Parquet file with pair_id, type, image", "mend it"
        ) from None
    row_of = {pair_id: row for row, pair_id in enumerate(pair_ids)}
    depicting: Ints = np.full((len(pair_ids), len(types)), -1, dtype=np.int64)
    files: list[str] = []
    for pair_id, kind, image in listed:
        if pair_id in row_of and kind in types:
            depicting[row_of[pair_id], types.index(kind)] = known + len(files)
            files.append(str(path.absolute().parent / image))
    if not files:
        raise UserError(
            "train", f"{path} names no pair and type of this dataset", "pair_id as in the dataset", "see degla show"
        )
    return depicting, files


def _chances(column: pa.ChunkedArray, types: Sequence[str]) -> NDArray[np.float32]:
    """[rows, types]; 1 where the table says nothing."""
    chances = np.ones((len(column), len(NEGATIVE_TYPES)), dtype=np.float32)
    said = np.asarray(column.is_valid())
    if said.any():
        told = column.filter(pa.array(said)).combine_chunks().flatten()
        chances[said] = np.asarray(told.fill_null(1.0)).reshape(-1, len(NEGATIVE_TYPES))
    return chances[:, [NEGATIVE_TYPES.index(kind) for kind in types]]


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
    ) -> None:
        self.rows, self.images, self.seed, self.batch = rows, images, seed, batch
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
        shown_B = self._first_shown(rows, chosen)
        none_B = np.full(len(rows), -1, dtype=np.int64)
        rephrasing_B = none_B if self.rephrasing is None else self.rephrasing[self.epoch[step]][rows]
        texts = [self.rows.text(0, row) for row in rows]
        for row, kinds, rephrasing in zip(rows, chosen, rephrasing_B, strict=True):
            texts += [self.rows.text(1 + kind, row) for kind in kinds if kind >= 0]
            texts += [self.rows.paraphrase(rephrasing)] if rephrasing >= 0 else []
        depicted_B = shown_B >= 0
        image_BCHW, aspect_B = self.images.stack(self.rows.image_file[rows])
        other_MCHW, aspect_M = self.images.stack(shown_B[depicted_B])
        box_B4 = box_M4 = None
        if self.images.crop == "random":  # by seed, step and place in the global batch, whichever process this is
            random_2BT4 = np.random.default_rng((self.seed, step)).random((2, self.batch, crops.TRIES, 4))
            own_BT4, other_BT4 = random_2BT4[:, self.share]
            box_B4, box_M4 = crops.draw(own_BT4, aspect_B), crops.draw(other_BT4[depicted_B], aspect_M)
        type_BK, depicted, rephrased = map(torch.from_numpy, (chosen, depicted_B, rephrasing_B >= 0))
        return Batch(image_BCHW, clip.pad(texts), type_BK, other_MCHW, depicted, rephrased, box_B4, box_M4)

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
