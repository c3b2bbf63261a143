"""Random crops: where open_clip cuts, and what comes of cutting an image that was resized once."""

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from stages.train import crops

SIZES = [(640, 480), (500, 500), (640, 427), (900, 400), (427, 640), (690, 500), (480, 640)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_cuts_lie_as_open_clips(width: int, height: int) -> None:
    theirs = image_transform(224, is_train=True).transforms[0]
    torch.manual_seed(0)
    image = Image.new("RGB", (width, height))
    found = np.array([theirs.get_params(image, theirs.scale, theirs.ratio) for _ in range(1500)], dtype=float)
    expected = found[:, [1, 0, 3, 2]] / [width, height, width, height]
    left, top, right, bottom = crops.reach(width, height)
    random_NT4 = np.random.default_rng(0).random((1500, crops.TRIES, 4))
    box_N4 = crops.draw(random_NT4, np.full(1500, width / height)).double().numpy()
    assert ((box_N4 >= 0) & (box_N4[:, [2, 3, 2, 3]] + box_N4[:, [0, 1, 0, 1]] * [1, 1, 0, 0] <= 1 + 1e-6)).all()
    assert (box_N4[:, 2:] >= 0.9 - 1e-6).all(), "no cut is enlarged by more than a little"
    whole = np.array([right - left, bottom - top, right - left, bottom - top])
    mine = (np.array([left, top, 0, 0]) + box_N4 * whole) / [width, height, width, height]
    np.testing.assert_allclose(mine.mean(axis=0), expected.mean(axis=0), atol=3e-3)
    np.testing.assert_allclose(mine.std(axis=0), expected.std(axis=0), atol=3e-3)


def smooth(width: int, height: int) -> Image.Image:
    patches = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def test_a_cut_of_all_of_it_is_pillows_resize() -> None:
    image = smooth(64, 73)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    found = crops.cut(pil_to_tensor(image)[None], whole, (56, 48))[0]
    expected = pil_to_tensor(image.resize((48, 56), Image.Resampling.BICUBIC)).float()
    assert (found - expected).abs().max() < 1.5, "Pillow rounds to bytes, twice"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_resized_twice_is_near_resized_once(width: int, height: int) -> None:
    image, side = smooth(width, height), 112
    reached = crops.reach(width, height)
    stored = image.resize((128, 128), Image.Resampling.BICUBIC, reached)
    (box,) = crops.draw(np.random.default_rng(1).random((1, crops.TRIES, 4)), np.array([width / height])).tolist()
    across, down = reached[2] - reached[0], reached[3] - reached[1]
    top, left = round(reached[1] + box[1] * down), round(reached[0] + box[0] * across)
    once = resized_crop(image, top, left, round(box[3] * down), round(box[2] * across), [side, side], 3)
    twice = crops.cut(pil_to_tensor(stored)[None], torch.tensor([box]), (side, side))[0]
    assert (twice - pil_to_tensor(once)).abs().mean() < 1.5
