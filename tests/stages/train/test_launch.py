"""Out of memory: advice, or the same batch in more chunks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import clip
from pipeline.errors import UserError
from stages.train import memory
from tests.stages.training import made


def test_out_of_memory_gives_advice_or_goes_on_with_more_chunks(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made(world, tmp_path / "free")
    encode = clip.encode_image

    def tight(model: Any, image_BCHW: torch.Tensor) -> torch.Tensor:
        if len(image_BCHW) > 2 and torch.is_grad_enabled():
            torch.empty(2**60)  # the allocator's own error
        return encode(model, image_BCHW)

    # The estimate asks for 4 pairs at most; a chunk of 3 does not fit, one of 2 (3 chunks of 6) would.
    monkeypatch.setattr(memory, "SAMPLE", 1)
    monkeypatch.setattr(clip, "encode_image", tight)
    with pytest.raises(UserError, match=r"no memory left on cpu for 6 pairs in 1 chunks: .*accumulate=2"):
        made(world, tmp_path / "advice")
    said: list[str] = []
    found = made(world, tmp_path / "auto", lambda what, *_: said.append(what), auto_accumulate=True, batch=6)
    assert "out of memory: continuing with 4 chunks" in said
    assert found["steps"]["loss"] == pytest.approx(expected["steps"]["loss"], rel=1e-4)
