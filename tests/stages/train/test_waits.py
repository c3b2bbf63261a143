"""A training step asks the device for nothing: what is decided there is decided by it, and metrics come in one copy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline import clip
from stages.train import loop
from stages.train.config import Loss
from stages.train.loop import Training, _data
from stages.train.objective import Objective
from tests.stages.train.test_loop import BASELINES
from tests.stages.training import STEPS, StoppedError, config

EVERY = 4

ASKING = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__", "nonzero"}
"""Methods of a tensor that wait for its device; `aten` names of the same beneath them follow."""

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}


class Reads(TorchDispatchMode):
    """What asks a device for a value, or for how much there is, as the dispatcher sees it."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            torch.is_tensor(index) and index.dtype == torch.bool
            for given in args[1:] if isinstance(given, list | tuple) for index in given
        )  # fmt: skip
        if name in WAITING or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class Asks(TorchFunctionMode):
    """The same where Python asks; a tensor of the CPU answers some of it without the dispatcher."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ASKING:
            self.found.append(name)
            with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(device: str) -> Iterator[list[str]]:
    """What was asked for so far; on a GPU anything else that waits for it is an error."""
    found: list[str] = []
    with Asks(found), Reads(found):
        yield found


def steps(world: dict[str, Any], work: Path, device: str, saw: Callable[[int], None], **changes: Any) -> None:
    """Two thirds of a training as it is, images read by a process of the loader."""
    settings = config(world, workers=1, cache_mb=0, checkpoint_steps=10**6, device=device, **changes)
    student = clip.load(world["model"], device=device)
    batches, _ = _data(settings, world["inputs"], student, work, device, lambda *_: None)
    training = Training(settings, Objective(settings.objective, student.model, settings.precision), STEPS, device)
    training.fetch_steps = EVERY

    def progress(what: str, done: int, total: int) -> None:
        saw(done)
        if done == 2 * EVERY:
            raise StoppedError

    with pytest.raises(StoppedError):
        training.train_loop(batches, None, student, work, progress)
    assert [step["step"] for step in training.steps] == list(range(1, 2 * EVERY + 1))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
METHODS: dict[str, dict[str, Any]] = {
    "degla": {},
    "chunks": {"accumulate": 2},
    "fp16": {"precision": "fp16"},
    "clipped": {"grad_clip": 1.0},
    "random_crops": {"crop": "random"},
    **BASELINES,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_waits_for_nothing_and_metrics_come_in_one_copy(
    world: dict[str, Any], tmp_path: Path, name: str, device: str
) -> None:
    reads: dict[int, list[str]] = {}

    def saw(done: int) -> None:
        reads[done] = list(found)
        if device == "cuda":
            waits = (done + 1) % EVERY == 0  # the step that fetches
            torch.cuda.set_sync_debug_mode("default" if waits or done == 2 * EVERY else "error")

    with watched(device) as found:
        found.clear()
        steps(world, tmp_path, device, saw, **METHODS[name])
    first = reads[1]
    per_step = [len(reads[done]) - len(reads[done - 1]) for done in range(2, 2 * EVERY + 1)]
    assert per_step == [1 if done % EVERY == 0 else 0 for done in range(2, 2 * EVERY + 1)], found[len(first) :]


def test_the_count_sees_what_waits() -> None:
    values = torch.arange(4.0)
    many, none = values > 1, values > 9
    for asks in (
        lambda: values.sum().item(), lambda: values.tolist(), lambda: bool(many.any()), lambda: float(values[0]),
        lambda: values[many], lambda: values.nonzero(), lambda: values.index_put((none,), values[:0]),
        lambda: torch.masked_select(values, many), lambda: values.unique(),
    ):  # fmt: skip
        with watched("cpu") as found:
            asks()
        assert found
    with watched("cpu") as found:
        torch.where(values > 1, values, 0).index_copy(0, torch.tensor([1]), values[:1])
    assert not found


@pytest.mark.parametrize("bad", [(3, 13), (1, 11)])
def test_ten_in_a_row_are_found_between_two_looks(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: tuple[int, int]
) -> None:
    settings = config(world, epochs=8)
    training = Training(settings, Objective(Loss(), clip.load(world["model"]).model), 100, "cpu")
    training.fetch_steps = 7
    for step in range(1, 22):
        loss = float("nan") if bad[0] <= step < bad[1] else 1.0
        training._measured.append(({"step": step, "lr": 0.0}, ["loss", "grad_norm"], torch.tensor([loss, 1.0])))
        if step % training.fetch_steps == 0:
            training.fetch()
            if step < bad[1] - 1:
                training.raise_if_diverged()
                continue
            with pytest.raises(loop.UserError, match=f"in 10 steps in a row, up to step {bad[1] - 1};"):
                training.raise_if_diverged()
            return
