"""Random crops as open_clip's trainer cuts them, of images that were resized once.

open_clip cuts 0.9 to 1.0 of an image's area at an aspect ratio of 3/4 to 4/3 and resizes the cut to the model's square
(torchvision's RandomResizedCrop, bicubic). Here the part of an image that such cuts can reach is resized once to a
somewhat larger square, `ROOM` times the model's side, and cuts are taken from that: places and shares of the image are
distributed as open_clip's, pixels are resampled twice.

Shapes: N images, C channels, H, W pixels, T tries; along one axis R stored pixels, S of the model's.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AREA = (0.9, 1.0)
"""Share of an image that is cut, open_clip's default."""

RATIO = (3 / 4, 4 / 3)
"""Width over height of a cut, RandomResizedCrop's default."""

TRIES = 10
"""Draws that may not fit an image before the cut is the largest one in its middle, as in RandomResizedCrop."""

ROOM = 8 / 7
"""Side of the stored square over the model's: a cut is at least 0.9 of each side, so it is never enlarged."""

SHARPNESS = -0.5
"""Parameter of the bicubic filter, Pillow's."""

Floats = NDArray[np.float64]


def reach(width: int, height: int) -> tuple[float, float, float, float]:
    """The part of an image, in pixels (left, top, right, bottom), outside of which no cut lies.

    All of it, unless it is so wide or so high that no draw fits and RandomResizedCrop takes the same middle each time.
    """
    across, down = _fallback(np.array([width / height]))[0]
    if across >= AREA[0] and down >= AREA[0]:
        return 0, 0, width, height
    left, top = width * (1 - across) / 2, height * (1 - down) / 2
    return left, top, width - left, height - top


def draw(random_NT4: Floats, aspect_N: Floats) -> Tensor:
    """[N, 4], float32: left, top, width and height of each cut, as shares of the part that `reach` gives.

    Args:
        random_NT4: uniform numbers in [0, 1).
        aspect_N: width over height of each image.
    """
    low, high = np.log(RATIO)
    area = AREA[0] + (AREA[1] - AREA[0]) * random_NT4[..., 0]
    ratio = np.exp(low + (high - low) * random_NT4[..., 1]) / aspect_N[:, None]
    size_NT2 = np.sqrt(np.stack([area * ratio, area / ratio], axis=-1))
    fits_NT = (size_NT2 <= 1).all(axis=-1)
    each, first = np.arange(len(aspect_N)), fits_NT.argmax(axis=1)
    drawn_N1 = fits_NT.any(axis=1, keepdims=True)
    middle_N2 = _fallback(aspect_N)
    reached_N2 = np.where(middle_N2.min(axis=1, keepdims=True) >= AREA[0], 1.0, middle_N2)
    size_N2 = np.where(drawn_N1, size_NT2[each, first], middle_N2 / reached_N2)
    start_N2 = (1 - size_N2) * np.where(drawn_N1, random_NT4[each, first, 2:], 0.5)
    return torch.from_numpy(np.concatenate([start_N2, size_N2], axis=1).astype(np.float32))


def cut(image_NCHW: Tensor, box_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 images and the cuts of `draw` -> float32 [N, C, *size] of 0 to 255, on the images' device; bicubic."""
    count, channels, height, width = image_NCHW.shape
    across_NSR = _filter(box_N4[:, 0], box_N4[:, 2], width, size[1])
    down_NSR = _filter(box_N4[:, 1], box_N4[:, 3], height, size[0])
    narrow_NXS = torch.bmm(image_NCHW.float().reshape(count, channels * height, width), across_NSR.mT)
    return (down_NSR[:, None] @ narrow_NXS.view(count, channels, height, size[1])).clamp(0, 255)


def joined(one_NCHW: Tensor, other_NCHW: Tensor, upright_N: Tensor, size: tuple[int, int]) -> Tensor:
    """Two uint8 images in one, each squeezed to its half -> float32 [N, C, *size] of 0 to 255.

    Upright ones stand side by side, others above each other.
    """
    (height, width), both = size, (one_NCHW, other_NCHW)
    whole_N4 = torch.cat([torch.zeros(2), torch.ones(2)]).expand(len(upright_N), 4).to(one_NCHW.device)
    beside = [cut(image, whole_N4, (height, part)) for image, part in zip(both, _halves(width), strict=True)]
    above = [cut(image, whole_N4, (part, width)) for image, part in zip(both, _halves(height), strict=True)]
    return torch.where(upright_N[:, None, None, None], torch.cat(beside, dim=3), torch.cat(above, dim=2))


def _halves(side: int) -> tuple[int, int]:
    return side // 2, side - side // 2


def _fallback(aspect_N: Floats) -> Floats:
    """[N, 2]: shares of width and height that RandomResizedCrop takes where no draw fits."""
    return np.stack([np.minimum(RATIO[1] / aspect_N, 1), np.minimum(aspect_N / RATIO[0], 1)], axis=1)


def _filter(start_N: Tensor, share_N: Tensor, size: int, side: int) -> Tensor:
    """[N, S, R]: how much each stored pixel counts for each pixel of the cut, along one axis; Pillow's bicubic."""
    scale_N11 = (share_N * size / side)[:, None, None]
    at_S1 = torch.arange(side, device=share_N.device)[:, None] + 0.5
    from_R = torch.arange(size, device=share_N.device) + 0.5
    x = ((from_R - start_N[:, None, None] * size - at_S1 * scale_N11) / scale_N11.clamp(min=1)).abs()
    near = ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1
    far = SHARPNESS * (((x - 5) * x + 8) * x - 4)
    weight = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    return weight / weight.sum(dim=-1, keepdim=True)
