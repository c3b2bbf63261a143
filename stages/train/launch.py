"""In how many processes and chunks a training runs: started, and started again when memory does not suffice."""

import pickle
from pathlib import Path
from typing import Any

import torch

from pipeline import clip
from pipeline.artifact import SCRATCH
from pipeline.errors import UserError
from pipeline.stage import Inputs, Progress
from stages.train import processes
from stages.train.config import Config
from stages.train.loop import train
from stages.train.memory import NotEnoughMemoryError
from stages.train.terms import TERMS, Term


def launch(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Train in this process or in several that are started here; with `auto_accumulate`, in chunks that fit.

    Raises UserError and TransientError, see `stages.train.stage.run`.
    """
    device = clip.device(config.device)
    if device == "cuda" and config.processes > torch.cuda.device_count():
        raise UserError(
            "train",
            f"{config.processes} processes need as many GPUs, and there are {torch.cuda.device_count()}",
            "one GPU per process",
            f"--set train.processes={torch.cuda.device_count()}",
        )
    if config.batch % processes.world():
        raise UserError(
            "train",
            f"batch {config.batch} cannot be shared by {processes.world()} processes",
            "a batch that divides by them",
            "set train.batch or start another number",
        )
    while True:
        try:
            return _attempt(config, inputs, out, device, progress)
        except NotEnoughMemoryError as error:
            alone = processes.world() == 1  # else the other machines would have to do the same at the same step
            if not (config.auto_accumulate and alone) or 2 * config.accumulate > config.batch // config.processes:
                raise UserError(
                    "train",
                    f"no memory left on {device} for {config.batch} pairs in {config.accumulate} chunks: {error}",
                    "a chunk that fits",
                    f"--set train.accumulate={2 * config.accumulate} (same gradients), train.auto_accumulate=true, "
                    "train.checkpoint_gradients=true or train.precision=bf16",
                ) from None
        # Outside of the handler, so that nothing of the failed attempt is held any more.
        config = config.model_copy(update={"accumulate": 2 * config.accumulate})
        progress(f"out of memory: continuing with {config.accumulate} chunks", 0, 1)


def _attempt(config: Config, inputs: Inputs, out: Path, device: str, progress: Progress) -> dict[str, Any]:
    if config.processes == 1 or processes.world() > 1:  # alone, or torchrun has started the processes
        return train(config, inputs, out, device, progress=progress)
    backend = "nccl" if device == "cuda" else "gloo"
    own = {name: TERMS[name] for name in config.objective.model_extra or {}}
    try:
        pickle.dumps(own)
    except (pickle.PicklingError, AttributeError) as error:
        raise UserError(
            "train",
            f"another process cannot find the function of a term: {error}",
            f"a function at the top of a module for each of {', '.join(own)}",
            "move it there, or --set train.processes=1",
        ) from None
    arguments = (own, config, inputs, out, device)
    made: dict[str, Any] = processes.run(_with_terms, config.processes, backend, arguments, out / SCRATCH, progress)
    return made


def _with_terms(own: dict[str, Term], *arguments: Any, progress: Progress) -> dict[str, Any]:
    """Train in a process that was started for it, where a script's terms are not in the table yet."""
    TERMS.update(own)
    return train(*arguments, progress=progress)
