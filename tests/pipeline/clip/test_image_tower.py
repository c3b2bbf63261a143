"""Images by what is asked for alone: open_clip's embeddings and gradients, and other towers left to open_clip."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline import clip
from pipeline.clip import image_tower

VISION: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_projection_norm": {"final_ln_after_pool": True},
    "scaled": {"ls_init_value": 0.1},
    "one_layer": {"layers": 1},
    "mean": {"pool_type": "avg"},
    "attentional": {"attentional_pool": True, "attn_pooler_heads": 2},
}
OTHERS = ("mean", "attentional")


def tower(folder: Path, name: str) -> nn.Module:
    vision = {"image_size": 24, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8, **VISION[name]}
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    arch = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / clip.CONFIG).write_text(json.dumps({"model_cfg": arch}))
    return clip.load(str(folder), seed=1).model.double()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", VISION)
def test_embeddings_and_gradients_are_open_clips(tmp_path: Path, name: str, again: bool) -> None:
    model: Any = tower(tmp_path, name)
    assert image_tower.fits(model.visual) == (name not in OTHERS)
    model.set_grad_checkpointing(again)
    image_BCHW = torch.randn(5, 3, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    towards = torch.randn(5, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for encode in (
        lambda: clip.encode_image(model, image_BCHW),
        lambda: model.encode_image(image_BCHW, normalize=True),
    ):
        model.zero_grad()
        embedded = encode()
        (embedded * towards).sum().backward()
        found.append((embedded, {key: p.grad for key, p in model.visual.named_parameters()}))
    (mine, gradients), (theirs, expected) = found
    torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-10)
    for key, gradient in expected.items():
        torch.testing.assert_close(gradients[key], gradient, atol=1e-12, rtol=1e-9)


def test_a_tower_that_is_compiled_runs_as_it_was_compiled(tmp_path: Path) -> None:
    model: Any = tower(tmp_path, "plain")
    model.visual.compile()
    assert not image_tower.fits(model.visual) and not image_tower.fits(None)
