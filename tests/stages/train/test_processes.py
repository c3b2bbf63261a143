"""Two processes: the same loss and gradients as one, the same bits in both, none left behind by kill -9, resume."""

import copy
import logging
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import clip
from pipeline.errors import TransientError, UserError
from pipeline.stage import silent
from stages.train import processes
from stages.train.batches import Batch
from stages.train.config import Loss
from stages.train.objective import Objective
from tests.listening import LOOPBACK, listening
from tests.paths import ROOT
from tests.stages.train.test_objective import LOSSES, batch, gradients, learned
from tests.stages.training import config, made, small_clip

B = 6


def small_student(pristine: Any) -> Any:
    model = copy.deepcopy(pristine)
    draw = torch.Generator().manual_seed(5)
    start = Objective(Loss(), model).teacher
    with torch.no_grad():  # the teacher must differ, or distillation has no gradient
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))
    return model, start


def share(whole: Batch, rank: int, world: int) -> Batch:
    return whole.split(world)[rank]


def learn(folder: Path, names: list[str], chunks: tuple[int, ...], progress: Any = silent) -> Any:
    """Loss and gradients of each recipe, on this process's share of one batch."""
    found = {}
    pristine = clip.load(str(folder), seed=1).model.double()
    for name, pieces in product(names, chunks):
        model, start = small_student(pristine)
        learning = Objective(LOSSES[name], model)
        learning.teacher.load_state_dict(start.state_dict())
        learning.threshold_T += 0.5
        losses = learned(learning, share(batch(B), processes.rank(), processes.world()).split(pieces))
        # As lists, because a tensor would come home as a handle on a process that is gone.
        grads = {key: grad.tolist() for key, grad in gradients(model).items()}
        found[name, pieces] = (losses, grads, learning.next_threshold_T.tolist())
    progress("learned", len(names), len(names))
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small_clip(folder)
    return folder


@pytest.fixture(scope="module")
def alone(model: Path) -> Any:
    return learn(model, list(LOSSES), chunks=(1,))


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradients_of_one(model: Path, alone: Any, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = lambda *what: seen.append(what)  # noqa: E731
    together = processes.run(learn, 2, "gloo", (model, list(LOSSES), (1, 3)), tmp_path, report)
    assert seen == [("learned", len(LOSSES), len(LOSSES))], "only the first process reports"
    assert_same(together, alone)


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradients_of_one_of_a_model_with_a_bias(tmp_path: Path) -> None:
    folder = small_clip(tmp_path / "model", init_logit_bias=-2.0)
    alone = learn(Path(folder), ["degla", "gift"], chunks=(1,))
    together = processes.run(learn, 2, "gloo", (Path(folder), ["degla", "gift"], (1, 3)), tmp_path, silent)
    assert "logit_bias" in alone["degla", 1][1]
    assert_same(together, alone)


def assert_same(together: Any, alone: Any) -> None:
    for name, chunks in together:
        (losses, grads, thresholds), (expected, expected_grads, expected_thresholds) = (
            together[name, chunks],
            alone[name, 1],
        )
        assert losses == pytest.approx(expected, rel=1e-10, nan_ok=True), name
        assert thresholds == pytest.approx(expected_thresholds)
        assert grads.keys() == expected_grads.keys(), name
        for parameter, gradient in expected_grads.items():
            torch.testing.assert_close(
                torch.tensor(grads[parameter]), torch.tensor(gradient), atol=1e-12, rtol=1e-8, msg=f"{name} {parameter}"
            )


def bad(number: int, *, progress: Any) -> None:
    if processes.rank() == number:
        raise UserError("train", f"process {number} found a broken image", "a whole one", "mend it")
    torch.distributed.barrier()


@pytest.mark.parametrize("number", [1])
def test_a_users_error_in_any_process_is_the_callers(number: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"process {number} found a broken image"):
        processes.run(bad, 2, "gloo", (number,), tmp_path, silent)


def vanish(number: int, *, progress: Any) -> None:
    if processes.rank() == number:
        print("WARNING: about to vanish", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()


@pytest.mark.parametrize("number", [0])
def test_a_dead_process_ends_the_others_and_is_named_with_what_it_said(
    number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TransientError, match=f"process {number} of 2 ended in the middle") as raised:
        processes.run(vanish, 2, "gloo", (number,), tmp_path, silent)
    said = f"degla.train.{number}", logging.WARNING, "WARNING: about to vanish"
    assert said in caplog.record_tuples
    assert said[2] in Path(str(raised.value).rpartition(" ")[2]).read_text()


# -- the whole stage ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(world: dict[str, Any]) -> dict[str, Any]:
    return made(world, world["folder"] / "undisturbed", processes=2)


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(
    world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    one = made(world, tmp_path)
    assert undisturbed["steps"]["loss"] == pytest.approx(one["steps"]["loss"], rel=1e-4)
    assert undisturbed["meta"]["processes"] == 2


STARTED = """
import sys
from pathlib import Path
from stages.train import stage as train
from tests.stages.training import config, small_inputs
if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    world = {"model": str(folder / "model")}
    out.mkdir(parents=True, exist_ok=True)
    say = lambda what, done, total: print(what, done, flush=True)
    # Slow enough to be killed between two checkpoints.
    train.run(config(world, processes=2, epochs=400, lr=1e-9), small_inputs(folder / "again", 12), out, say)
"""


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def alive(pids: list[int]) -> list[int]:
    return [
        pid
        for pid in pids
        if Path(f"/proc/{pid}/stat").exists()
        and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    ]


def all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "last"])
def test_kill_9_of_any_process_leaves_none_behind(world: dict[str, Any], tmp_path: Path, victim: str) -> None:
    script = tmp_path / "start.py"
    script.write_text(STARTED)
    command = [sys.executable, str(script), str(world["folder"]), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        for line in run.stdout:
            if line.startswith("steps") and int(line.split()[-1]) >= 8:
                break
        family = children(run.pid)
        ranks = [pid for pid in family if b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(ranks) == 2
        os.kill({"parent": run.pid, "last": max(ranks)}[victim], signal.SIGKILL)
        assert all_gone(family), "no process outlives the others"
        run.wait(timeout=30)
        if victim != "parent":
            assert "process 1 of 2 ended in the middle" in run.stderr.read()
    assert list((tmp_path / "out" / ".work").glob("checkpoint-*.pt")), "what the next call goes on from"


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits(
    world: dict[str, Any], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    class EnoughError(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("steps") and done == 8:
            raise EnoughError

    with pytest.raises(EnoughError):
        made(world, tmp_path, stop, processes=2)
    seen: list[int] = []
    resumed = made(
        world, tmp_path, lambda what, done, total: seen.append(done) if what.startswith("steps") else None, processes=2
    )
    assert min(seen) >= 7, "steps 1 to 6 are in a checkpoint"
    for name in ("student", "teacher", "steps"):
        assert resumed[name] == undisturbed[name]


def test_a_batch_that_does_not_divide_is_rejected(world: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="batch 6 must divide by processes 4"):
        config(world, processes=4)


def addresses(progress: Any = silent) -> set[str]:
    return listening()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_the_processes_listen_on_loopback_alone(tmp_path: Path) -> None:
    found = processes.run(addresses, 2, "gloo", (), tmp_path, silent)
    assert found and found <= LOOPBACK
