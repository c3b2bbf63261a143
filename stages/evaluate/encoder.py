"""Every distinct image and text of an evaluation through one model, once.

Shapes: N images or texts · D embedding width.
"""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clip import Clip, embed_images, embed_texts
from pipeline.clip import device as torch_device
from pipeline.stage import Progress, silent
from stages.benchmarks.rows import ImageRef
from stages.evaluate.pieces import pieces
from stages.evaluate.rows import Floats

Load = Callable[[], Clip]


class Encoder:
    """One model, loaded when first needed, and the embeddings it gives.

    Args:
        load: gives the model.
        work: folder that keeps embeddings between calls; None = memory only.
        progress: callback.
        device: torch device; auto = cuda when there is one.
        batch: images, or texts, per forward pass; None = 32 on a CPU (its caches), else 256.
        workers: threads that decode images; at least one.
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
    def clip(self) -> Clip:
        """The model, on its device."""
        if self._clip is None:
            self._clip = self._load()
            self._clip.model.to(self.device)
        return self._clip

    @property
    def device(self) -> str:
        """The torch device."""
        return torch_device(self._device)

    @property
    def batch(self) -> int:
        """Images, or texts, per forward pass."""
        return self._batch or (32 if self.device == "cpu" else 256)

    @property
    def description(self) -> dict[str, Any]:
        """What the report says of the model: activation, preprocessing, tokenizer, device."""
        keep = ("activation", "preprocess", "tokenizer", "context_length")
        return {key: self.clip.description.get(key) for key in keep} | {"device": self.device}

    def cut(self, texts: Sequence[str]) -> int:
        """How many of these texts are longer than the model reads: the rest of them changes nothing."""
        longest = self.clip.description.get("context_length") or 0
        ends = {text: text.rstrip(string.whitespace + string.punctuation) for text in dict.fromkeys(texts)}
        tokens = zip(ends.values(), self.clip.tokenize(list(ends.values())), strict=True)
        full = [(end, row) for end, row in tokens if end and len(row) >= longest]
        shorter = self.clip.tokenize([end[:-1] for end, _ in full])
        return sum(row == other for (_, row), other in zip(full, shorter, strict=True))

    def images(self, images: Sequence[ImageRef]) -> tuple[dict[ImageRef, int], Floats]:
        """Row of each image in image_ND; images that are not there have rows of NaN."""
        distinct = dict.fromkeys(images)
        there = [image for image in distinct if image.path.is_file()]

        def embed(piece: Sequence[ImageRef]) -> Any:
            return embed_images(self.clip, piece, batch=self.batch, workers=self.workers, device=self.device)

        image_ND = self._embedded("images", there, [_identity(image) for image in there], embed)
        at = {image: index for index, image in enumerate(there)}
        missing_1D = np.full((1, image_ND.shape[1]), np.nan, dtype=np.float32)
        return {image: at.get(image, len(there)) for image in distinct}, np.concatenate([image_ND, missing_1D])

    def texts(self, texts: Sequence[str]) -> tuple[dict[str, int], Floats]:
        """Row of each text in text_ND. Texts with the same tokens share a row, so their similarities are equal."""
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


def _identity(image: ImageRef) -> str:
    stat = image.path.stat()
    return f"{image} {stat.st_size} {stat.st_mtime_ns}"
