"""Towers that are locked and weights that decay; LoRA beside the weights, and merged into them."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from pipeline import clip
from pipeline.clip import tuning
from pipeline.errors import UserError
from tests.stages.training import small_clip

IMAGE_TOWERS: dict[str, dict[str, Any]] = {
    "open_clip's ViT": {"layers": 2, "width": 64, "patch_size": 8},
    "open_clip's ResNet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None},
    "timm, linear head": {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
    "timm, MLP head": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "mlp"},
    "timm, no head": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": None},
}


def clip_of(folder: Path, image: dict[str, Any], custom_text: bool = False) -> torch.nn.Module:
    small_clip(folder)
    settings = json.loads((folder / clip.CONFIG).read_text())
    settings["model_cfg"]["vision_cfg"] = {"image_size": 64, **image}
    if image.get("timm_proj", "") is None:
        settings["model_cfg"]["embed_dim"] = 64
    if custom_text:
        settings["model_cfg"]["custom_text"] = True
    (folder / clip.CONFIG).write_text(json.dumps(settings))
    return clip.load(str(folder), seed=1).model


def learning(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("tower", IMAGE_TOWERS)
def test_no_tensor_of_a_locked_tower_learns(tmp_path: Path, tower: str, custom_text: bool) -> None:
    model = clip_of(tmp_path, IMAGE_TOWERS[tower], custom_text)
    everything = learning(model)
    image = {name for name in everything if name.startswith("visual.")}
    assert len(image) == len(list(model.visual.parameters()))
    tuning.lock(model, image=True, text=False)
    assert learning(model) == everything - image
    model.requires_grad_(True)
    tuning.lock(model, image=False, text=True)
    assert learning(model) == image | {"logit_scale"}
    tuning.lock(model, image=True, text=True)
    assert learning(model) == {"logit_scale"}


def test_the_last_groups_of_a_locked_tower_learn(tmp_path: Path) -> None:
    model = clip_of(tmp_path / "vit", IMAGE_TOWERS["open_clip's ViT"])
    tuning.lock(model, image=True, text=True, unlocked=2)
    of_image = {name.split(".")[1] for name in learning(model) if name.startswith("visual.")}
    assert of_image == {"proj", "transformer", "ln_post"}
    assert "visual.transformer.resblocks.0.ln_1.weight" not in learning(model)
    assert {"text_projection", "ln_final.weight"} < learning(model)
    timms = clip_of(tmp_path / "timm", IMAGE_TOWERS["timm, MLP head"])
    tuning.lock(timms, image=True, text=False, unlocked=1)
    of_trunk = {name for name in learning(timms) if name.startswith("visual.trunk.")}
    assert 0 < len(of_trunk) < len(list(timms.visual.trunk.parameters()))
    with pytest.raises(UserError, match="partial locking"):
        resnet = clip_of(tmp_path / "resnet", IMAGE_TOWERS["open_clip's ResNet"])
        tuning.lock(resnet, image=True, text=False, unlocked=1)


@pytest.mark.parametrize("custom_text", [False, True])
def test_the_first_groups_of_a_locked_tower_learn(tmp_path: Path, custom_text: bool) -> None:
    model = clip_of(tmp_path / "vit", IMAGE_TOWERS["open_clip's ViT"], custom_text)
    everything = learning(model)
    tuning.lock(model, image=True, text=False, unlocked=-2)
    assert {name.split(".")[1] for name in learning(model) if name.startswith("visual.")} == {
        "class_embedding", "positional_embedding", "conv1", "ln_pre", "transformer"
    }  # fmt: skip
    assert not any("visual.transformer.resblocks.1." in name for name in learning(model))
    model.requires_grad_(True)
    tuning.lock(model, image=False, text=True, unlocked=-1)
    of_text = {name.removeprefix("text.") for name in learning(model) if not name.startswith("visual.")}
    assert of_text == {"token_embedding.weight", "positional_embedding", "logit_scale"}
    model.requires_grad_(True)
    tuning.lock(model, image=True, text=True, unlocked={"text": -1})
    assert {name.removeprefix("text.") for name in learning(model)} == of_text
    model.requires_grad_(True)
    tuning.lock(model, image=True, text=True, unlocked=-9)
    assert learning(model) == everything
    with pytest.raises(UserError, match="cannot be locked"):
        timms = clip_of(tmp_path / "timm", IMAGE_TOWERS["timm, MLP head"])
        tuning.lock(timms, image=True, text=False, unlocked=-1)


def test_bias_tables_do_not_decay_as_in_open_clips_trainer() -> None:
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=16, depths=(1, 2), num_heads=(2, 4), num_classes=3
    )
    matrices = {name: parameter for name, parameter in swin.named_parameters() if parameter.ndim >= 2}
    tables = {name for name in matrices if name.endswith("relative_position_bias_table")}
    assert len(tables) == 3
    assert set(map(id, tuning.decayed(swin))) == {id(matrices[name]) for name in matrices.keys() - tables}


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
