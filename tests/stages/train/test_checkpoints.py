"""Checkpoints on disk: damaged ones give way, old ones go, a full disk is told as one."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import clip
from stages.train import checkpoints
from tests.stages.training import StoppedError, made, stop_at


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(world: dict[str, Any], tmp_path: Path, damage: str) -> None:
    whole = made(world, tmp_path / "whole")
    with pytest.raises(StoppedError):
        made(world, tmp_path / "cut", stop_at(8))
    newest, before = checkpoints.listed(tmp_path / "cut" / ".work", "checkpoint")
    assert (newest.name[:19], before.name[:19]) == ("checkpoint-00000006", "checkpoint-00000003")
    content = newest.read_bytes()
    middle = len(content) // 2
    newest.write_bytes(
        {
            "truncated": content[:middle],
            "altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
        }[damage]
    )
    seen: list[int] = []
    resumed = made(world, tmp_path / "cut", lambda what, done, _: seen.append(done) if "loss" in what else None)
    assert seen[0] == 4, "from the checkpoint before"
    assert (resumed["student"], resumed["steps"]) == (whole["student"], whole["steps"])


@pytest.mark.skipif(sys.platform != "linux", reason="writes to /dev/full")
def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path, world: dict[str, Any]) -> None:
    for name in ("checkpoint.tmp", "weights"):
        (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints.save({"weights": torch.zeros(1000)}, tmp_path, "checkpoint", 1, keep=2)
    with pytest.raises(OSError, match="No space left on device"):
        clip.save_weights(clip.load(str(world["model"])).model, tmp_path / "weights")


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoints.save({"step": step}, tmp_path, "checkpoint", step, keep=2)
        checkpoints.save({"step": -step}, tmp_path, "best", step, keep=1)
    assert len(list(tmp_path.glob("*.pt"))) == 3
    assert checkpoints.newest(tmp_path, "checkpoint", "cpu") == {"step": 5}
    assert checkpoints.best(tmp_path, 5) == {"step": -5}
    assert checkpoints.newest(tmp_path, "other", "cpu") is None
