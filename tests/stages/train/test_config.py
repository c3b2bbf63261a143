"""The settings of training: the paper's defaults, what is rejected, what is no identity."""

from typing import Any

import pytest
from pydantic import ValidationError

from stages.train.config import Config, Loss
from tests.stages.training import config


def test_settings_that_only_place_the_work_are_not_its_identity(world: dict[str, Any]) -> None:
    placed = config(world, accumulate=8, device="cuda:1", workers=7, cache_mb=1, checkpoint_steps=9)
    assert placed.identity() == config(world).identity()
    for change in (
        {"lr": 2e-3},
        {"objective": Loss(igc=0.2)},
        {"negatives_per_caption": 3},
        {"types": ("swap_nouns",)},
    ):
        assert config(world, **change).identity() != config(world).identity()


def test_the_defaults_are_the_papers() -> None:
    paper = Config()
    assert (paper.model, paper.pretrained, paper.epochs, paper.batch, paper.seed) == ("ViT-B-32", "openai", 5, 256, 42)
    assert (paper.lr, paper.betas, paper.eps, paper.weight_decay, paper.warmup) == (1e-6, (0.9, 0.98), 1e-6, 0.1, 50)
    assert paper.negatives_per_caption == 4
    assert Loss() == Loss(base=1, distill=0.005, igc=0.1, tgc=0.1, tgc_scale=10, ema=0.9996, tgc_layout="paper")


def test_unknown_types_are_rejected() -> None:
    with pytest.raises(ValidationError, match="types must be different ones of"):
        Config(types=("swap_verbs",))
    with pytest.raises(ValidationError, match="types must be different ones of"):
        Config(types=("swap_nouns", "swap_nouns"))


def test_settings_that_do_not_fit_together_are_rejected() -> None:
    for wrong, says in (
        ({"objective": {"fisher": 1}}, "ema must be 1"),
        ({"objective": {"base": 0, "distill": 0, "igc": 0, "tgc": 0}}, "at least one term"),
        ({"objective": {"triplet": 1}}, "need negative_images"),
        ({"batch": 255, "similar_images": 3}, "batch must be even"),
        ({"lora_rank": 4, "lock_image": True}, "leave lock_image"),
        ({"text_map": True, "lora_rank": 4}, "leave lora_rank"),
    ):
        with pytest.raises(ValidationError, match=says):
            Config.model_validate(wrong)
