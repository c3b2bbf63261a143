"""Training step by step: every objective learns, what a step changes, schedule, settings that change the training."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline import clip
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.train.config import Loss
from stages.train.loop import GIVE_UP, Training, _data, learning_rate
from stages.train.objective import Objective
from tests.stages.training import STEPS, StoppedError, config, made, small_clip, small_inputs, small_siglip, stop_at

BASELINES: dict[str, dict[str, Any]] = {
    "negclip": {"objective": Loss(distill=0, igc=0, tgc=0), "negatives_per_caption": 1, "similar_images": 3},
    "ce_clip": {"objective": Loss(distill=0, igc=0, tgc=0, rank=0.2, intra=0.3)},
    "fsc_clip": {"objective": Loss(base=0, distill=0, igc=0, tgc=0, clip=1, focal=0.5, local=0.2)},
    "clic": {"objective": Loss(base=0, distill=0, igc=0, tgc=0, clic=1), "lock_image": True, "crop": "random"},
    "con_clip": {"objective": Loss(base=0, distill=0, igc=0, tgc=0, distractor=1), "negative_images": "mined"},
    "triplet_clip": {"objective": Loss(distill=0, igc=0, tgc=0, triplet=1), "negative_images": "mined"},
    "read_align": {"objective": Loss(distill=0, igc=0, tgc=0, align=0.5), "negatives_per_caption": 3},
    "negation": {"objective": Loss(distill=0, igc=0, tgc=0, para_clip=1), "lock_image": True, "decay_all": True},
    "cs_clip": {"objective": Loss(distill=0, igc=0, tgc=0, units=0.5), "negatives_per_caption": 1},
    "degla_plus": {"objective": Loss(pgc=0.5), "paraphrases": ("rewrites",)},
    "labclip": {"objective": Loss(distill=0, igc=0, tgc=0), "text_map": True, "lr": 0.02, "weight_decay": 0.0},
    "gift": {"objective": Loss(distill=0, clip=0.5, contrast_distill=1, fisher=1, ema=1)},
}


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_learns_and_resumes_to_the_same_bits(world: dict[str, Any], tmp_path: Path, name: str) -> None:
    # The second checkpoint lies inside an epoch, so that what changes within one (thresholds) must be in it.
    settings = BASELINES[name] | {"checkpoint_steps": 3, "seed": 5}
    whole = made(world, tmp_path / "whole", **settings)
    task = next(term for term in ("base_loss", "clip_loss", "distractor_loss", "clic_loss") if term in whole["steps"])
    last = -2 if name == "clic" else -1  # of joined images, as the first
    assert whole["steps"][task][last] < whole["steps"][task][0]
    with pytest.raises(StoppedError):
        made(world, tmp_path / "cut", stop_at(8), **settings)
    resumed = made(world, tmp_path / "cut", **settings)
    for part in ("student", "teacher", "steps"):
        assert resumed[part] == whole[part], part


def test_paraphrases_come_near_their_captions_by_the_terms_that_look_at_them(
    world: dict[str, Any], tmp_path: Path
) -> None:
    only = {"base": 0, "distill": 0, "igc": 0, "tgc": 0, "ema": 1}
    for term in ("align", "pgc"):
        found = made(world, tmp_path / term, objective={**only, term: 1}, epochs=6)
        losses = found["steps"][f"{term}_loss"]
        assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), term
        assert found["meta"]["weight_delta"]["text"] > 1e-3 and found["meta"]["weight_delta"]["image"] == 0


@pytest.fixture(scope="module")
def siglip_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("siglip")
    model = small_siglip(folder / "model")
    return {"folder": folder, "model": model, "inputs": small_inputs(folder, pictures=12, tokenizer=model)}


def test_a_siglip_learns_by_its_sigmoid_and_resumes_to_the_same_bits(
    siglip_world: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"seed": 5, "checkpoint_steps": 3}
    whole = made(siglip_world, tmp_path / "whole", **settings)
    assert whole["steps"]["base_loss"][-1] < whole["steps"]["base_loss"][0]
    delta = whole["meta"]["weight_delta"]
    assert delta.keys() == {"image", "text", "logit_scale", "logit_bias"} and all(delta.values())
    with pytest.raises(StoppedError):
        made(siglip_world, tmp_path / "cut", stop_at(8), **settings)
    assert made(siglip_world, tmp_path / "cut", **settings)["student"] == whole["student"]
    kept = clip.load(str(tmp_path / "whole" / "student")).model
    assert kept.logit_bias.item() != -10, "what was learned is in the model's folder"
    locked = made(siglip_world, tmp_path / "locked", epochs=1, lock_scale=True)["meta"]["weight_delta"]
    assert locked["logit_scale"] == locked["logit_bias"] == 0 and locked["text"] > 0


@pytest.mark.slow
def test_two_processes_and_chunks_train_the_siglip_of_one(siglip_world: dict[str, Any], tmp_path: Path) -> None:
    one = made(siglip_world, tmp_path / "one", epochs=2)
    two = made(siglip_world, tmp_path / "two", epochs=2, processes=2, accumulate=2)
    assert two["steps"]["loss"] == pytest.approx(one["steps"]["loss"], rel=1e-4)
    assert two["steps"]["logit_scale"] == pytest.approx(one["steps"]["logit_scale"], rel=1e-5)


def test_a_map_of_the_texts_is_all_that_learns_and_is_folded_into_the_projection(
    world: dict[str, Any], tmp_path: Path
) -> None:
    found = made(world, tmp_path, text_map=True, lock_scale=True, epochs=1)
    assert found["meta"]["trained_parameters"] == 16 * 16
    start = clip.load(world["model"], seed=42).model
    student, teacher = load_file(tmp_path / "student" / clip.WEIGHTS), load_file(tmp_path / "teacher.safetensors")
    assert student.keys() == teacher.keys() == start.state_dict().keys(), "any open_clip reads it"
    changed = [name for name, tensor in start.state_dict().items() if not torch.equal(student[name], tensor)]
    assert changed == ["text_projection"]
    tokens = clip.pad(clip.tokenizer("ViT-B-32")(["a red thing", "two green things"]))
    mapped = torch.linalg.lstsq(start.text_projection, student["text_projection"]).solution  # of the D x D map
    expected = torch.nn.functional.normalize(clip.encode_text(start, tokens) @ mapped, dim=-1)
    trained = clip.load(str(tmp_path / "student")).model
    torch.testing.assert_close(clip.encode_text(trained, tokens), expected, atol=1e-5, rtol=1e-4)


def test_a_map_of_the_texts_needs_a_projection_it_can_be_folded_into(
    siglip_world: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no plain projection.*--set train\.text_map=false"):
        made(siglip_world, tmp_path, text_map=True)


def test_patches_need_towers_that_give_them(siglip_world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"does not give the patches and tokens that local.*--set train\.objective\.local=0"
    ):
        made(siglip_world, tmp_path, objective=Loss(local=0.2))


def test_locked_towers_stay_as_they_are(world: dict[str, Any], tmp_path: Path) -> None:
    start = clip.load(world["model"], seed=42).model.state_dict()
    for name, other in (("image", "text"), ("text", "image")):
        found = made(world, tmp_path / name, accumulate=2, **{f"lock_{name}": True})
        delta = found["meta"]["weight_delta"]
        assert delta[name] == 0 and delta[other] > 1e-4
        assert found["meta"]["trained_parameters"] < found["meta"]["parameters"]
        if name == "image":
            student = load_file(tmp_path / name / "student" / clip.WEIGHTS)
            assert torch.equal(student["visual.proj"], start["visual.proj"])


def test_a_locked_tower_of_timm_keeps_every_tensor(world: dict[str, Any], tmp_path: Path) -> None:
    # Its BatchNorm has no statistics yet; those stay as they are too.
    folder = tmp_path / "model"
    small_clip(folder)
    settings = json.loads((folder / clip.CONFIG).read_text())
    settings["model_cfg"]["vision_cfg"] = {
        "image_size": 64, "timm_model_name": "test_resnet", "timm_pool": "max", "timm_proj": "linear"
    }  # fmt: skip
    (folder / clip.CONFIG).write_text(json.dumps(settings))
    found = made(world, tmp_path / "out", model=str(folder), lock_image=True, epochs=1)
    start = clip.load(str(folder), seed=42).model
    student = load_file(tmp_path / "out" / "student" / clip.WEIGHTS)
    tower = [name for name in start.state_dict() if name.startswith("visual.")]
    assert [name for name in tower if not torch.equal(student[name], start.state_dict()[name])] == []
    texts = [parameter.numel() for name, parameter in start.named_parameters() if not name.startswith("visual.")]
    assert found["meta"]["trained_parameters"] == sum(texts)
    assert found["meta"]["weight_delta"]["text"] > 1e-4


def test_the_logit_scale_learns_unless_it_is_locked_and_is_clamped_unless_told_not_to(
    world: dict[str, Any], tmp_path: Path
) -> None:
    start = clip.load(world["model"], seed=42).model.logit_scale.exp().item()
    free = {"lr": 0.5, "warmup": 0, "epochs": 1, "grad_clip": 1.0}
    locked = made(world, tmp_path / "locked", lock_scale=True, objective=Loss(max_logit_scale=2.0), **free)
    assert locked["steps"]["logit_scale"] == pytest.approx([start] * 4)
    clamped = made(world, tmp_path / "clamped", objective=Loss(max_logit_scale=2.0), **free)
    assert max(clamped["steps"]["logit_scale"]) == pytest.approx(2.0)
    unclamped = made(world, tmp_path / "unclamped", objective=Loss(max_logit_scale=None), **free)
    assert min(unclamped["steps"]["logit_scale"]) > 2.0


def test_lora_learns_beside_frozen_weights_and_is_merged_into_a_plain_model(
    world: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    found = made(world, tmp_path / "whole", lora_rank=2, lr=0.02)
    start, tuned = clip.load(world["model"], seed=42), clip.load(str(tmp_path / "whole" / "student"))
    assert found["steps"]["loss"][-1] < found["steps"]["loss"][0]
    assert found["meta"]["trained_parameters"] < 0.2 * found["meta"]["parameters"]
    assert torch.equal(start.model.token_embedding.weight, tuned.model.token_embedding.weight)
    name = "transformer.resblocks.0.mlp.c_fc.weight"
    change = tuned.model.state_dict()[name] - start.model.state_dict()[name]
    assert 1 <= torch.linalg.matrix_rank(change, atol=1e-6) <= 2
    with pytest.raises(StoppedError):
        made(world, tmp_path / "cut", stop_at(8), lora_rank=2, lr=0.02)
    assert made(world, tmp_path / "cut", lora_rank=2, lr=0.02)["student"] == found["student"]


def test_random_crops_change_the_training_and_resume_to_the_same_bits(
    world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    settings = {"crop": "random", "negative_images": "mined"}
    whole = made(world, tmp_path / "whole", **settings)
    assert whole["student"] != undisturbed["student"]
    with pytest.raises(StoppedError):
        made(world, tmp_path / "cut", stop_at(8), **settings)
    assert made(world, tmp_path / "cut", **settings)["student"] == whole["student"]


def test_gradient_checkpointing_changes_no_bit(world: dict[str, Any], tmp_path: Path) -> None:
    plain, again = made(world, tmp_path / "plain"), made(world, tmp_path / "again", checkpoint_gradients=True)
    assert plain["student"] == again["student"]


@pytest.mark.slow
def test_a_compiled_tower_trains_the_same_model(world: dict[str, Any], tmp_path: Path) -> None:
    plain, compiled = made(world, tmp_path / "p", epochs=1), made(world, tmp_path / "c", epochs=1, compile=True)
    assert compiled["steps"]["loss"] == pytest.approx(plain["steps"]["loss"], rel=1e-4)
    assert compiled["meta"]["determinism"]["compiled"] and plain["meta"]["determinism"]["level"] == "bits"


def test_chunks_lead_to_the_same_model(world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path) -> None:
    cut = made(world, tmp_path, accumulate=3)
    assert cut["steps"]["loss"] == pytest.approx(undisturbed["steps"]["loss"], rel=1e-4)


def test_plain_clip_has_no_other_term(world: dict[str, Any], tmp_path: Path) -> None:
    steps = made(world, tmp_path, negatives_per_caption=0, types=(), objective=Loss(distill=0, igc=0, tgc=0))["steps"]
    assert steps["loss"] == steps["base_loss"]
    assert {name for name in steps if name.endswith("_loss")} == {"base_loss"}, "the others are NaN throughout"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_near_fp32(
    world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path, precision: str
) -> None:
    mixed, expected = made(world, tmp_path, precision=precision), undisturbed["steps"]["loss"]
    # The loss scaler of fp16 finds its scale by overflowing first, so the two runs are some steps apart.
    assert mixed["meta"]["not_finite"] <= (3 if precision == "fp16" else 0)
    assert mixed["steps"]["loss"][0] == pytest.approx(expected[0], rel=0.01)
    assert mixed["steps"]["loss"][-1] == pytest.approx(expected[-1], rel=0.3)
    weights = load_file(tmp_path / "student" / clip.WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def look(training: Training) -> None:
    training.fetch()
    training.raise_if_diverged()


def test_a_step_that_is_not_finite_changes_neither_student_nor_teacher(world: dict[str, Any]) -> None:
    student = clip.load(world["model"])
    training = Training(config(world), Objective(Loss(), student.model), STEPS, "cpu")
    batches, _ = _data(config(world), world["inputs"], student, world["folder"], "cpu", silent)
    good = batches[0].on("cpu", student)
    bad = replace(good, image_BCHW=torch.full_like(good.image_BCHW, torch.nan))
    training.step([good])
    models = (training.objective.student, training.objective.teacher)
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    for _ in range(GIVE_UP):
        look(training)
        training.step([bad])
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    training.fetch()
    assert math.isnan(training.steps[-1]["loss"])
    with pytest.raises(UserError, match="not finite in 10 steps in a row, up to step 11"):
        look(training)
    training.step([good])
    look(training)
    assert not all(torch.equal(tensor, before[0][name]) for name, tensor in models[0].state_dict().items())


def test_weights_that_are_not_finite_end_the_training(world: dict[str, Any]) -> None:
    student = clip.load(world["model"])
    training = Training(config(world), Objective(Loss(), student.model), 1, "cpu")
    batches, _ = _data(config(world), world["inputs"], student, world["folder"], "cpu", silent)
    training.step([batches[0].on("cpu", student)])
    look(training)
    with torch.no_grad():
        training.parameters[0].view(-1)[0] = math.inf
    with pytest.raises(UserError, match="train: weights not finite after the last of 1 steps; .* lower train.lr"):
        look(training)


def test_a_training_shorter_than_the_patience_has_less_of_it(world: dict[str, Any]) -> None:
    student = clip.load(world["model"])
    training = Training(config(world), Objective(Loss(), student.model), 2, "cpu")
    batches, _ = _data(config(world), world["inputs"], student, world["folder"], "cpu", silent)
    good = batches[0].on("cpu", student)
    bad = replace(good, image_BCHW=torch.full_like(good.image_BCHW, torch.nan))
    training.step([bad])
    look(training)
    training.step([bad])
    with pytest.raises(UserError, match="not finite in 2 steps in a row, up to step 2"):
        look(training)


def test_a_learning_rate_that_explodes_stops_the_training(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lower train\.lr"):
        made(world, tmp_path, lr=1e30, warmup=0, epochs=6)


def test_gradients_are_clipped_after_their_norm_is_recorded(world: dict[str, Any], tmp_path: Path) -> None:
    steps = made(world, tmp_path, grad_clip=1e-9, eps=1.0, weight_decay=0.0, epochs=1)["steps"]
    assert max(steps["grad_norm"]) > 1e-3
    start, end = clip.load(world["model"], seed=42), clip.load(str(tmp_path / "student"))
    for name, tensor in start.model.state_dict().items():
        torch.testing.assert_close(end.model.state_dict()[name], tensor, atol=1e-9, rtol=1e-6)


def test_gains_biases_and_logit_scale_do_not_decay(world: dict[str, Any]) -> None:
    student = clip.load(world["model"]).model
    training = Training(config(world), Objective(Loss(), student), STEPS, "cpu")
    decay = {id(p): group["weight_decay"] for group in training.optimizer.param_groups for p in group["params"]}
    for name, parameter in student.named_parameters():
        spared = name.endswith("bias") or ".ln_" in f".{name}" or name in ("logit_scale", "visual.class_embedding")
        assert decay[id(parameter)] == (0 if spared else 0.1), name
    everything = Training(config(world, decay_all=True), Objective(Loss(), student), STEPS, "cpu").optimizer
    decays = [group["weight_decay"] for group in everything.param_groups for _ in group["params"]]
    assert decays == [0.1] * len(list(student.parameters()))


def test_the_rate_warms_up_and_then_follows_a_cosine_to_zero(world: dict[str, Any]) -> None:
    settings = config(world, lr=2.0, warmup=4)
    rates = [learning_rate(step, 104, settings) for step in range(105)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[54] == pytest.approx(1.0) and rates[104] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_another_tokenizers_dataset_is_rejected(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not ViT-B-16-SigLIP's.*--set assemble\.tokenizer=ViT-B-16-SigLIP"):
        other = config(world, model="ViT-B-16-SigLIP")
        _data(other, world["inputs"], clip.load(world["model"]), world["folder"], "cpu", silent)
