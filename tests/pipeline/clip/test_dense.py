"""Patches and tokens lie in the space of the embeddings; what is not asked for, and padding, changes none of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline import clip
from pipeline.clip import dense, tuning
from tests.stages.training import small_clip, small_siglip

RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64, "patch_size": None}
TEXTS = ("a red thing", "two green things beside a blue one", "a red thing, and!!")


def loaded(folder: Path, **more: Any) -> nn.Module:
    return clip.load(small_clip(folder, **more), seed=1).model.double()


def tokens() -> torch.Tensor:
    return clip.pad(clip.tokenizer("ViT-B-32")(list(TEXTS)))


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_text_is_its_end_token_and_its_tokens_are_those_behind_the_start(tmp_path: Path, lora_rank: int) -> None:
    model = loaded(tmp_path)
    if lora_rank:  # a tower that cannot share what texts have in common
        pytest.importorskip("peft")
        tuning.add_lora(model, lora_rank, alpha=8, seed=0)
        model.double()
    given = tokens()
    text_ND, token_NLD, said_NL = dense.encode_text(model, given)
    torch.testing.assert_close(text_ND, clip.encode_text(model, given), atol=1e-12, rtol=1e-9)
    lengths = [len(text) for text in clip.tokenizer("ViT-B-32")(list(TEXTS))]
    assert said_NL.tolist() == [[0 < at < length for at in range(given.shape[1])] for length in lengths]
    for n, length in enumerate(lengths):
        cut = given[n : n + 1, :length]
        for at in range(1, length):  # the state of a token is what a text that ends there would be
            shorter = cut[:, : at + 1].clone()
            state = model.ln_final(states(model, shorter))[0, at] @ model.text_projection
            torch.testing.assert_close(token_NLD[n, at], state, atol=1e-12, rtol=1e-9)


def states(model: Any, tokens_NL: torch.Tensor) -> torch.Tensor:
    length = tokens_NL.shape[1]
    x_NLW = model.token_embedding(tokens_NL) + model.positional_embedding[:length]
    found: torch.Tensor = model.transformer(x_NLW, attn_mask=model.attn_mask[:length, :length])
    return found


def test_gradients_of_tokens_are_those_of_the_plain_tower(tmp_path: Path) -> None:
    model, given = loaded(tmp_path), tokens()
    _, token_NLD, said_NL = dense.encode_text(model, given)
    plain_NLD = model.ln_final(states(model, given)) @ model.text_projection
    learning = [
        parameter for name, parameter in model.named_parameters() if parameter.ndim > 1 and "visual" not in name
    ]
    found, expected = (torch.autograd.grad((one[said_NL] ** 3).sum(), learning) for one in (token_NLD, plain_NLD))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-8)


def test_a_patch_is_projected_as_the_class_token_is(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    image_BCHW = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image_BD, patch_BPD = dense.encode_image(model, image_BCHW)
    torch.testing.assert_close(image_BD, clip.encode_image(model, image_BCHW), atol=1e-12, rtol=1e-9)
    model.visual.output_tokens = True
    _, states_BPW = model.visual(image_BCHW)
    torch.testing.assert_close(patch_BPD, states_BPW @ model.visual.proj)
    assert patch_BPD.shape == (2, 4, 16), "16 pixels in patches of 8"


def test_a_place_of_a_resnet_is_what_the_pool_makes_of_it(tmp_path: Path) -> None:
    model = loaded(tmp_path, vision_cfg=RESNET).eval()
    image_BCHW = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image_BD, patch_BPD = dense.encode_image(model, image_BCHW)
    torch.testing.assert_close(image_BD, clip.encode_image(model, image_BCHW), atol=1e-12, rtol=1e-9)
    assert patch_BPD.shape == (2, 4, 16), "64 pixels in places of 32"
    pool = model.visual.attnpool
    with torch.no_grad():  # a pool that looks at all places alike, and at their mean
        pool.q_proj.weight.zero_()
        pool.q_proj.bias.zero_()
        pool.positional_embedding[0] = pool.positional_embedding[1:].mean(dim=0)
    image_BD, patch_BPD = dense.encode_image(model, image_BCHW)
    torch.testing.assert_close(image_BD, nn.functional.normalize(patch_BPD.mean(dim=1), dim=-1), atol=1e-12, rtol=1e-9)


def test_models_without_patches_or_tokens_are_known_by_their_architecture(tmp_path: Path) -> None:
    assert all(map(clip.has_patches, ("ViT-B-32", "ViT-L-14-quickgelu", "RN50", small_clip(tmp_path / "vit"))))
    for name in ("ViT-B-16-SigLIP", "convnext_base", "coca_ViT-B-32", "xlm-roberta-base-ViT-B-32"):
        assert not clip.has_patches(name), name
    assert not clip.has_patches(small_siglip(tmp_path / "siglip"))
