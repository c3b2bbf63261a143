"""Images that make training harder, found by the starting model: similar ones, and ones a negative caption fits.

Shapes: P images, R rows, T types, D embedding width, k neighbours.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline import clip, tables
from pipeline.clip import Clip
from pipeline.stage import Progress
from stages.train import processes
from stages.train.pictures import Images
from stages.train.rows import Ints, Rows

PIECE = 1024


def neighbours(image_PD: Tensor, count: int) -> Ints:
    """[P, count]: the images nearest to each by cosine similarity, nearest first, never itself. Source: NegCLIP."""
    found = []
    for start in range(0, len(image_PD), PIECE):
        near = image_PD[start : start + PIECE] @ image_PD.T
        near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -torch.inf
        found.append(near.topk(min(count, len(image_PD) - 1), dim=1).indices)
    return torch.cat(found).numpy()


def fitting(image_PD: Tensor, rows: Rows, embed: Callable[[list[Tensor]], Tensor]) -> Ints:
    """[R, T]: the image that a negative fits best and its caption least; -1 where there is no negative.

    The largest sim(image, negative) - sim(image, caption). Source: CoN-CLIP's released search for distractors.
    """
    caption_RD = embed([rows.text(0, row) for row in range(len(rows))])
    found = np.full(rows.have.shape, -1, dtype=np.int64)
    for kind in range(rows.have.shape[1]):
        there = np.flatnonzero(rows.have[:, kind])
        for start in range(0, len(there), PIECE):
            piece = there[start : start + PIECE]
            change = embed([rows.text(1 + kind, row) for row in piece]) - caption_RD[piece]
            found[piece, kind] = (change @ image_PD.T).argmax(dim=1).numpy()
    return found


def embed_images(model: Clip, images: Images, device: str, work: Path, progress: Progress) -> Tensor:
    """`image_PD` of all training images by the starting model; kept in `work` for when the run is killed."""
    kept = work / "mined.pt"
    if kept.exists():
        return torch.as_tensor(torch.load(kept, weights_only=True))
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            piece, _ = images.stack(np.arange(start, min(start + 64, len(images))))
            found.append(clip.encode_image(model.model, clip.normalise(model, piece.to(device))).float().cpu())
            progress("images to mine", min(start + 64, len(images)), len(images))
    image_PD = torch.cat(found).clone()
    if not processes.rank():
        with tables.replacing(kept) as unfinished, unfinished.open("wb") as handle:
            torch.save(image_PD, handle)
    return image_PD


def embed_tokens(model: Clip, device: str) -> Callable[[list[Tensor]], Tensor]:
    """Token ids of texts -> `text_ND` on the CPU, fp32."""

    def embed(texts: list[Tensor]) -> Tensor:
        with torch.inference_mode():
            pieces = [
                clip.encode_text(model.model, clip.pad(texts[start : start + 256], device)).float().cpu()
                for start in range(0, len(texts), 256)
            ]
        return torch.cat(pieces)

    return embed
