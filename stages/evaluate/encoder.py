"""Every distinct picture and text of an evaluation through one model, once.

Embeddings are kept in pieces below a folder, each named by what is in it, so a killed run repeats at most one piece and
no piece is ever taken for another.

Shapes: N pictures or texts · D embedding width.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import tables
from pipeline.stage import Progress, silent
from stages.benchmarks.loaders import Picture

if TYPE_CHECKING:
    from pipeline.clip import Clip

Floats = NDArray[np.float32]
Load = Callable[[], "Clip"]

PIECE = 1024
"""Pictures or texts per file of embeddings."""


class Encoder:
    """One model, loaded when first needed, and the embeddings of what it is asked about.

    Args:
        load: gives the model.
        work: folder that keeps embeddings between calls; None = memory only.
        progress: callback.
        device: torch device; auto = cuda when there is one.
        batch: pictures, or texts, per forward pass; None = 32 on a CPU (its caches), else 256.
        workers: threads that decode pictures; at least one.
    """

    def __init__(
        self,
        load: Load,
        work: Path | None = None,
        progress: Progress = silent,
        *,
        device: str = "auto",
        batch: int | None = None,
        workers: int = 0,
    ) -> None:
        self._load, self.work, self.progress, self.workers = load, work, progress, workers
        self._device, self._batch = device, batch
        self._clip: Clip | None = None

    @property
    def clip(self) -> "Clip":
        """The model, on its device."""
        if self._clip is None:
            self._clip = self._load()
            self._clip.model.to(self.device)
        return self._clip

    @property
    def device(self) -> str:
        """The torch device."""
        if self._device != "auto":
            return self._device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def batch(self) -> int:
        """Pictures, or texts, per forward pass."""
        return self._batch or (32 if self.device == "cpu" else 256)

    @property
    def description(self) -> dict[str, Any]:
        """What the report says of the model: activation, preprocessing, tokenizer, device."""
        keep = ("activation", "preprocess", "tokenizer", "context_length")
        return {key: self.clip.description.get(key) for key in keep} | {"device": self.device}

    def pictures(self, pictures: Sequence[Picture]) -> tuple[dict[Picture, int], Floats]:
        """Row of each picture in image_ND; pictures that are not there have rows of NaN."""
        from pipeline.clip import embed_images

        distinct = dict.fromkeys(pictures)
        there = [picture for picture in distinct if picture.path.is_file()]

        def embed(piece: Sequence[Picture]) -> Any:
            return embed_images(self.clip, piece, batch=self.batch, workers=self.workers, device=self.device)

        image_ND = self._embedded("pictures", there, [_identity(picture) for picture in there], embed)
        at = {picture: index for index, picture in enumerate(there)}
        missing_1D = np.full((1, image_ND.shape[1]), np.nan, dtype=np.float32)
        return {picture: at.get(picture, len(there)) for picture in distinct}, np.concatenate([image_ND, missing_1D])

    def texts(self, texts: Sequence[str]) -> tuple[dict[str, int], Floats]:
        """Row of each text in text_ND. Texts with the same tokens share a row, so they tie exactly, as they must."""
        from pipeline.clip import embed_texts

        distinct = list(dict.fromkeys(texts))
        tokens = [tuple(row) for row in self.clip.tokenize(distinct)]
        first: dict[tuple[int, ...], str] = {}
        for text, row in zip(distinct, tokens, strict=True):
            first.setdefault(row, text)
        ordered = [first[row] for row in sorted(first)]  # so that texts of a piece begin alike, see embed_texts

        def embed(piece: Sequence[str]) -> Any:
            return embed_texts(self.clip, piece, batch=self.batch, device=self.device)

        at = {text: index for index, text in enumerate(ordered)}
        text_ND = self._embedded("texts", ordered, ordered, embed)
        return {text: at[first[row]] for text, row in zip(distinct, tokens, strict=True)}, text_ND

    def _embedded(
        self, what: str, items: Sequence[Any], names: Sequence[str], embed: Callable[[Sequence[Any]], Any]
    ) -> Floats:
        found: list[Floats] = list(pieces(self.work, what, items, names, embed, self.progress))
        return np.concatenate(found) if found else np.empty((0, 1), dtype=np.float32)


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


def _identity(picture: Picture) -> str:
    stat = picture.path.stat()
    return f"{picture} {stat.st_size} {stat.st_mtime_ns}"


def _write(path: Path, array: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("wb") as handle:
        np.save(handle, array)
    tables.commit_file(unfinished, path)
