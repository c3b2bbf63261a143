"""The training rows: texts as token ids, which negatives there are, which image belongs to which, read once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.negative_types import ABSENCE, UNITS, types_in
from stages.train.config import Source
from stages.train.paraphrases import Paraphrases
from stages.train.units import Units

Ints = NDArray[np.int64]


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
        units: what the captions name; None = not asked for.
        captions: in words; None = not asked for.
        upright: which of `uris` are higher than wide.
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
    units: Units | None = None
    captions: pa.StringArray | None = None
    upright: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))

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

    def unit_texts(self, numbers: Ints) -> list[Tensor]:
        """Token ids of some units, by the numbers that `Units.draw` gives, and then of their foils."""
        if self.units is None:
            return []
        both = [self.units.tokens(number) for number in numbers]
        return [torch.from_numpy(text) for texts in zip(*both, strict=True) for text in texts]


def read_rows(
    dataset: Artifact,
    pairs: Artifact,
    types: Sequence[str],
    split: str = "train",
    shown: Path | None = None,
    paraphrases: Sequence[Source] = (),
    *,
    units: bool = False,
    captions: bool = False,
) -> Rows:
    """The rows of one split, only the columns training needs.

    Args:
        dataset: the artifact with the texts.
        pairs: the artifact with the images.
        types: negative types to read.
        split: train, val or test.
        shown: a table that names images of negatives, see `_shown`.
        paraphrases: where paraphrases come from; none are read without.
        units: whether units and their foils are read too.
        captions: whether captions are read as words too.

    Raises:
        UserError: there is no such row or type, `shown` cannot be read, or there is no paraphrase or unit.
    """
    there = tables.columns(dataset.table_folder("dataset"))
    written, absences = types_in(there), [f"{ABSENCE}_tokens"] * ("absences" in paraphrases and ABSENCE in there)
    if missing := [kind for kind in types if kind not in written]:
        raise UserError(
            "train",
            f"the dataset has no negatives of type {', '.join(missing)}",
            f"of {', '.join(written)}",
            f"--set generate.types=[{', '.join(types)}], or leave it out of train.types",
        )
    if units and UNITS not in there:
        raise UserError("train", "the dataset has no units", "units of captions", "--set generate.types=[..., units]")
    columns = ["caption_tokens", *(f"{kind}_tokens" for kind in types)]
    of_units = [f"{UNITS}_tokens", "unit_foils_tokens"] * units
    names = [
        *columns,
        *types,
        *["paraphrases_tokens"] * bool(paraphrases),
        *absences,
        *of_units,
        *["caption"] * captions,
    ]
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
        seen = sql.execute("select distinct image_uri, image_sha256, height > width from pairs").fetchall()
    known = {uri: sha256 for uri, sha256, _ in seen}
    upright = {uri for uri, _, is_upright in seen if is_upright}
    return Rows(
        root=pairs.path / pairs.meta["image_root"],
        uris=[*uris.tolist(), *more],
        sha256=[*map(known.get, uris.tolist()), *[None] * len(more)],
        image_file=image_file,
        image_group=image_group,
        tokens=tokens,
        have=have,
        chances=_chances(table["chances"], types, written),
        depicting=np.where(have, depicting, -1),
        paraphrases=Paraphrases(
            table["paraphrases_tokens"].combine_chunks(),
            image_group,
            paraphrases,
            *(_each_alone(table[name].combine_chunks()) for name in absences),
        )
        if paraphrases
        else None,
        units=Units(*(table[name].combine_chunks() for name in of_units)) if units else None,
        captions=table["caption"].combine_chunks() if captions else None,
        upright=np.array([uri in upright for uri in uris] + [False] * len(more)),
    )


def _each_alone(texts: pa.ListArray) -> pa.ListArray:
    """Every text as a list of it; null stays null."""
    ends = np.cumsum(np.asarray(texts.is_valid()), dtype=np.int32)
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], ends]), pa.int32()), texts.drop_null(), mask=texts.is_null()
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


def _chances(column: pa.ChunkedArray, types: Sequence[str], written: Sequence[str]) -> NDArray[np.float32]:
    """[rows, types]; 1 where the table, whose lists are in the order of `written`, says nothing."""
    chances = np.ones((len(column), len(written)), dtype=np.float32)
    said = np.asarray(column.is_valid())
    if said.any():
        told = column.filter(pa.array(said)).combine_chunks().flatten()
        chances[said] = np.asarray(told.fill_null(1.0)).reshape(-1, len(written))
    return chances[:, [written.index(kind) for kind in types]]
