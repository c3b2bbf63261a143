"""Similar images, and images that a negative fits."""

from typing import Any

import numpy as np
import torch

from pipeline.negative_types import NEGATIVE_TYPES
from stages.train import mining
from stages.train.rows import read_rows


def test_mined_images_are_the_nearest_and_those_a_negative_fits(world: dict[str, Any]) -> None:
    inputs = world["inputs"]
    rows = read_rows(inputs["dataset"], inputs["pairs"], NEGATIVE_TYPES[:2])
    draw = torch.Generator().manual_seed(0)
    image_PD = torch.nn.functional.normalize(torch.randn(12, 8, generator=draw), dim=1)
    near = mining.neighbours(image_PD, 3)
    for p in range(12):
        by_hand = sorted((q for q in range(12) if q != p), key=lambda q: -float(image_PD[p] @ image_PD[q]))
        assert near[p].tolist() == by_hand[:3]
    vector: dict[bytes, torch.Tensor] = {}

    def embed(texts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([vector.setdefault(t.numpy().tobytes(), torch.randn(8, generator=draw)) for t in texts])

    found = mining.fitting(image_PD, rows, embed)
    assert np.array_equal(found >= 0, rows.have)
    for row, kind in zip(*np.nonzero(rows.have), strict=True):
        caption, negative = embed([rows.text(0, row)])[0], embed([rows.text(1 + kind, row)])[0]
        scores = [float(picture @ negative - picture @ caption) for picture in image_PD]
        assert found[row, kind] == int(np.argmax(scores))
