"""The memory of a training step is known by shapes alone, and is what a step of the model itself takes."""

from typing import Any

import pytest

from pipeline import clip
from pipeline.artifact import Artifact
from stages.train import memory, sizing
from stages.train.config import Config
from stages.train.loop import let_learn
from stages.train.objective import Objective
from tests.stages.training import config, small_clip, small_siglip


def real(settings: Config, dataset: Artifact | None) -> memory.Needed:
    """What a step with the model itself takes, as a training says when it starts."""
    student = clip.load(settings.model).model
    let_learn(student, settings)
    objective, pooled = Objective(settings.objective, student, settings.precision), clip.pooling(student)
    samples = [piece.located(pooled) for piece in memory.halved(sizing.some_pairs(settings, dataset, student))]
    return memory.needed(objective, samples, sizing.pairs_at_once(settings))


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"lock_image": True}, {"objective": {"pgc": 1.0}, "paraphrases": ["rewrites"]},
     {"objective": {"units": 0.5}}, {"accumulate": 3, "batch": 12}, {"negatives_per_caption": 0, "types": []}],
    ids=lambda changes: ", ".join(changes) or "as usual",
)  # fmt: skip
@pytest.mark.parametrize("is_there", [True, False], ids=["dataset", "no dataset"])
def test_shapes_tell_what_a_real_model_takes(world: dict[str, Any], changes: dict[str, Any], is_there: bool) -> None:
    settings, dataset = config(world, **changes), world["inputs"]["dataset"] if is_there else None
    found = sizing.size(settings, dataset)
    assert found == pytest.approx(real(settings, dataset), rel=0.002) and found.kept > 10_000


def test_a_siglip_and_a_resnet_are_sized_as_well(world: dict[str, Any], tmp_path: Any) -> None:
    tower = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    for model in (small_siglip(tmp_path / "siglip"), small_clip(tmp_path / "resnet", vision_cfg=tower)):
        settings = config(world, model=model)
        found = sizing.size(settings, None)
        assert found and found.kept > 0 and found.fixed > 10**6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_few_pairs_keep_tells_what_many_do(
    world: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In reduced precision copies of the weights are kept as well, and are not counted again for each pair."""
    settings = config(world, precision=precision)
    student = clip.load(settings.model).model
    objective = Objective(settings.objective, student, settings.precision)
    few = sizing.some_pairs(settings, None, student)
    told = memory.needed(objective, memory.halved(few), 64)
    monkeypatch.setattr(sizing, "SAMPLE", 64)
    many = memory.needed(objective, memory.halved(sizing.some_pairs(settings, None, student)), 64)
    assert told.kept == pytest.approx(many.kept, rel=0.01) and told.fixed == many.fixed
