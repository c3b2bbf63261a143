"""Training: resuming after kill -9 bit for bit, what the artifact holds, refusals, schedule."""

import gc
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pipeline import clip, tables
from pipeline.errors import UserError
from pipeline.stage import silent
from stages.train import stage as train
from stages.train.loop import GIVE_UP, Training, _data, learning_rate
from stages.train.objective import Objective
from stages.train.stage import Config, Loss
from tests.paths import ROOT
from tests.stages.training import small_clip, small_inputs

STEPS = 12  # 12 pictures with 2 captions in batches of 6, 3 epochs
TIMINGS = ("samples_per_s", "data_wait")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("train")
    return {"folder": folder, "model": small_clip(folder / "model"), "inputs": small_inputs(folder, pictures=12)}


def config(world: dict[str, Any], **changes: Any) -> Config:
    settings = {"model": world["model"], "pretrained": None, "epochs": 3, "batch": 6, "lr": 1e-3, "warmup": 2}
    return Config(**{**settings, "workers": 0, "checkpoint_steps": 3, "device": "cpu", **changes})


def made(world: dict[str, Any], out: Path, progress: Any = silent, **changes: Any) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    meta = train.run(config(world, **changes), world["inputs"], out, progress)
    steps = tables.read(out / "steps").drop_columns(TIMINGS).to_pydict()
    return {
        "meta": meta,
        "student": (out / "student" / clip.WEIGHTS).read_bytes(),
        "teacher": (out / "teacher.safetensors").read_bytes(),
        "steps": {name: values for name, values in steps.items() if not all(map(math.isnan, values))},
    }


@pytest.fixture(scope="module")
def undisturbed(world: dict[str, Any]) -> dict[str, Any]:
    return made(world, world["folder"] / "undisturbed")


def test_a_finished_training_leaves_no_weights_behind(world: dict[str, Any], tmp_path: Path) -> None:
    def weights() -> int:
        gc.collect()
        return sum(type(kept) is torch.nn.Parameter for kept in gc.get_objects())

    others = weights()
    made(world, tmp_path / "once", epochs=1)
    assert weights() <= others


def test_every_step_on_a_cpu_uses_kernels_that_repeat_themselves(world: dict[str, Any], tmp_path: Path) -> None:
    seen: list[bool] = []
    made(world, tmp_path, lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()), epochs=1)
    assert all(seen) and not torch.are_deterministic_algorithms_enabled()


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.train import stage as train
from tests.stages.train.test_stage import config
from tests.stages.training import small_inputs
folder, out, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
world = {"model": str(folder / "model")}
def die(what, done, total):
    if what.startswith("steps") and done == last:
        os.kill(os.getpid(), signal.SIGKILL)
train.run(config(world, cache_mb=0), small_inputs(out.parent / "again", pictures=12), out, die)
"""


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_last_bit(
    world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", KILLED, str(world["folder"]), str(out), "7"]
    dead = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert dead.returncode == -9, dead.stderr
    assert not (out / "student").exists() and not (out / "steps").exists()
    (out / ".work" / "checkpoint.tmp").write_bytes(b"half a checkpoint")

    seen: list[int] = []
    resumed = made(world, out, lambda what, done, total: seen.append(done) if what.startswith("steps") else None)
    assert seen == list(range(7, STEPS + 1)), "steps 1 to 6 are in the checkpoint"
    assert resumed["student"] == undisturbed["student"]
    assert resumed["teacher"] == undisturbed["teacher"]
    assert resumed["steps"] == undisturbed["steps"]


def test_killed_after_the_last_step_trains_nothing_again(world: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    def never(what: str, done: int, total: int) -> None:
        assert not what.startswith("steps")

    again = made(world, world["folder"] / "undisturbed", never)
    assert again["student"] == undisturbed["student"] and again["steps"] == undisturbed["steps"]


def test_the_seed_decides(world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert made(world, tmp_path, seed=43)["student"] != undisturbed["student"]


def test_the_artifact_loads_and_its_table_tells_the_run(world: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    folder = world["folder"] / "undisturbed"
    student = clip.load(str(folder / "student"))
    teacher = clip.load(world["model"], str(folder / "teacher.safetensors"))
    start = clip.load(world["model"], seed=42)
    gaps = [
        (student.model.text_projection - other.model.text_projection).abs().max().item() for other in (start, teacher)
    ]
    assert all(gap > 1e-4 for gap in gaps)
    steps = undisturbed["steps"]
    assert steps["step"] == list(range(1, STEPS + 1))
    assert steps["epoch"][3] == 1.0 and steps["epoch"][-1] == 3.0
    terms = {"base": 1.0, "distill": 0.005, "igc": 0.1, "tgc": 0.1}
    for index in range(STEPS):
        expected = sum(weight * steps[f"{name}_loss"][index] for name, weight in terms.items())
        assert steps["loss"][index] == pytest.approx(expected, rel=1e-5)
    assert steps["distill_loss"][0] == pytest.approx(0, abs=1e-9) and steps["distill_loss"][-1] > 0
    assert steps["loss"][-1] < steps["loss"][0]
    meta = undisturbed["meta"]
    assert meta["start"] == {"model": world["model"], "pretrained": None, "seed": 42}
    assert (meta["steps"], meta["pairs"], meta["not_finite"]) == (STEPS, 24, 0)


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


def test_a_step_that_is_not_finite_changes_neither_student_nor_teacher(world: dict[str, Any]) -> None:
    student = clip.load(world["model"])
    training = Training(config(world), Objective(Loss(), student.model), STEPS, "cpu")
    batches, _ = _data(config(world), world["inputs"], student, world["folder"], "cpu", silent)
    good = batches[0].on("cpu", student)
    bad = replace(good, image_BCHW=torch.full_like(good.image_BCHW, torch.nan))
    training.step(good)
    models = (training.objective.student, training.objective.teacher)
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    for _ in range(GIVE_UP):
        training.refuse_to_go_nowhere()
        training.step(bad)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert math.isnan(training.steps[-1]["loss"])
    with pytest.raises(UserError, match="not finite in 10 steps in a row, up to step 11"):
        training.refuse_to_go_nowhere()
    training.step(good)
    training.refuse_to_go_nowhere()


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


def test_the_rate_warms_up_and_then_follows_a_cosine_to_zero(world: dict[str, Any]) -> None:
    settings = config(world, lr=2.0, warmup=4)
    rates = [learning_rate(step, 104, settings) for step in range(105)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[54] == pytest.approx(1.0) and rates[104] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_another_tokenizers_dataset_is_refused(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not ViT-B-16-SigLIP's.*--set assemble\.tokenizer=ViT-B-16-SigLIP"):
        other = config(world, model="ViT-B-16-SigLIP")
        _data(other, world["inputs"], clip.load(world["model"]), world["folder"], "cpu", silent)


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


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ValidationError, match="types must be different ones of"):
        Config(types=("swap_verbs",))
    with pytest.raises(ValidationError, match="types must be different ones of"):
        Config(types=("swap_nouns", "swap_nouns"))


def test_the_stage_imports_without_torch() -> None:
    code = "import sys; from stages import train; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
