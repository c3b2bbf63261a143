"""What a step needs is known before the first one."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import clip
from pipeline.errors import UserError
from pipeline.negative_types import NEGATIVE_TYPES
from stages.train import memory
from stages.train.batches import Batches
from stages.train.config import Loss
from stages.train.objective import Objective
from stages.train.pictures import Images
from stages.train.rows import read_rows
from tests.stages.training import made


def test_the_estimate_grows_with_the_chunk_and_a_lack_is_told_before_the_first_step(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = clip.load(world["model"])
    rows = read_rows(world["inputs"]["dataset"], world["inputs"]["pairs"], NEGATIVE_TYPES)
    batch = Batches(rows, Images(rows, student), 12, 4, 1, 0)[0].on("cpu", student)
    objective = Objective(Loss(), student.model)
    whole, half = (memory.estimate(objective, batch, chunks) for chunks in (1, 2))
    weights = sum(parameter.nbytes for parameter in student.model.parameters())
    assert half - 5 * weights == pytest.approx((whole - 5 * weights) / 2, rel=1e-3)
    assert whole > 5 * weights
    monkeypatch.setattr(memory, "available", lambda device: 10)
    with pytest.raises(UserError, match=r"a step needs about .* GiB and 0\.0 GiB are free; expected"):
        made(world, tmp_path)
