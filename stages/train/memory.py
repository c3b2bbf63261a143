"""How much memory a training step takes, known before the first one."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline import clip
from pipeline.clip import tuning
from stages.train.batches import Batch
from stages.train.objective import Objective

SAMPLE = 8
"""Pairs that are encoded to see what the backward pass keeps of them."""


class NotEnoughMemoryError(Exception):
    """A step in this many chunks does not fit into memory."""


class Needed(NamedTuple):
    """Bytes that a step takes: of weights, gradients, optimizer and teacher, and kept for the backward pass."""

    fixed: int
    kept: int


def estimate(objective: Objective, batch: Batch, chunks: int) -> int:
    """Bytes that a step takes, by a few pairs of a real batch that is encoded in so many chunks."""
    count, pooled = len(batch.type_BK), clip.pooling(objective.student)
    sample = batch.split(-(-count // SAMPLE))[0]
    return sum(needed(objective, [piece.located(pooled) for piece in halved(sample)], -(-count // chunks)))


def halved(sample: Batch) -> list[Batch]:
    """A few pairs, and half of them."""
    return [sample, sample.split(2)[0]]


def needed(objective: Objective, samples: Sequence[Batch], pairs: int) -> Needed:
    """What a step takes that encodes `pairs` at once, as measured on a few of them and on half of these.

    What is kept grows with the pairs; of reduced precision the weights in that precision are kept as well, once.
    """
    student = list(objective.student.parameters())
    learning = sum(parameter.nbytes for parameter in student if parameter.requires_grad)
    kept, once = _kept(objective, samples[0]), 0
    count, half = (len(sample.type_BK) for sample in samples)
    if objective.dtype is not None and count > half:
        per_pair = (kept - _kept(objective, samples[1])) / (count - half)
        once = min(kept, max(0, round(kept - per_pair * count)))
    return Needed(2 * sum(one.nbytes for one in student) + 3 * learning, once + (kept - once) * pairs // count)


def _kept(objective: Objective, batch: Batch) -> int:
    """Bytes that the encoders keep of a batch for the backward pass, beside the weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in objective.student.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # told apart by its object: one without memory has no address
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor.detach()  # an output that kept itself would keep its graph for ever

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with tuning.evaluating(objective.student), hooks:
        held = objective.embed(batch)
    total = sum(kept.values())
    del held
    return total


def available(device: str) -> int:
    """Bytes that are free for this process."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:  # noqa: PTH123
            found = dict(line.split(":", 1) for line in handle)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak(device: str) -> int | None:
    """Most bytes of GPU memory in use at once so far; None on a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.startswith("cuda") else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, of a GPU or of the CPU, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def text(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 2**30:.1f} GiB"
