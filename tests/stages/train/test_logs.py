"""Curves for TensorBoard."""

from pathlib import Path
from typing import Any

import pytest

from tests.stages.training import STEPS, made


def test_steps_are_logged_to_tensorboard(world: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = made(world, tmp_path / "out", tensorboard=tmp_path / "board")
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, STEPS + 1))
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(found["steps"]["loss"])
