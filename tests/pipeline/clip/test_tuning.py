"""LoRA beside the weights, and merged into them."""

from pathlib import Path

import pytest
import torch

from pipeline import clip
from pipeline.clip import tuning
from tests.stages.training import small_clip


def test_lora_merged_says_what_lora_said(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = clip.load(small_clip(tmp_path), seed=1).model
    tuning.add_lora(model, 2, 8.0, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    tokens, pictures = torch.tensor([[49406, 320, 2368, 49407]]), torch.randn(2, 3, 16, 16)
    before = (clip.encode_text(model, tokens), clip.encode_image(model, pictures))
    tuning.merge_lora(model)
    assert not any("lora" in name for name in model.state_dict())
    torch.testing.assert_close(clip.encode_text(model, tokens), before[0])
    torch.testing.assert_close(clip.encode_image(model, pictures), before[1])
