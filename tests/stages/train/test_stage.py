"""Training as a stage: resuming after kill -9 bit for bit, what the artifact holds, what it leaves behind."""

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import clip
from tests.paths import ROOT
from tests.stages.training import STEPS, made


def test_the_stage_imports_without_torch() -> None:
    code = "import sys; from stages import train; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.train import stage as train
from tests.stages.training import config, small_inputs
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
    assert meta["start"] == {"model": world["model"], "pretrained": None, "seed": 42, "activation": None}
    assert (meta["steps"], meta["pairs"], meta["not_finite"]) == (STEPS, 24, 0)


def test_the_student_kept_lies_between_the_start_and_the_trained(
    world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    kept = made(world, tmp_path, alpha=0.75)
    assert kept["steps"] == undisturbed["steps"], "training itself is as without it"
    folders = (world["folder"] / "undisturbed", tmp_path)
    whole, part = (clip.load(str(folder / "student")).model.state_dict() for folder in folders)
    for name, was in clip.load(world["model"], seed=42).model.state_dict().items():
        if was.is_floating_point():
            torch.testing.assert_close(part[name], 0.25 * was + 0.75 * whole[name])
    moved = (kept["meta"]["weight_delta"], undisturbed["meta"]["weight_delta"])
    assert moved[0]["text"] == pytest.approx(0.75 * moved[1]["text"], rel=1e-4)


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
