"""How much memory a training step takes, known before the first one."""

import os

import torch
from torch import Tensor

from pipeline.clip import tuning
from stages.train.batches import Batch
from stages.train.objective import Objective

SAMPLE = 4
"""Pairs that are encoded to see what the backward pass keeps of them."""


class NotEnoughMemoryError(Exception):
    """A step in this many chunks does not fit into memory."""


def estimate(objective: Objective, batch: Batch, chunks: int) -> int:
    """Bytes of weights, gradients, optimizer and teacher, and of what the encoders keep for the backward pass.

    The latter is measured on a few pairs of a real batch and grows with the pairs of a chunk.
    """
    student = list(objective.student.parameters())
    learning = sum(parameter.nbytes for parameter in student if parameter.requires_grad)
    fixed = 2 * sum(parameter.nbytes for parameter in student) + 3 * learning
    count = len(batch.type_BK)
    sample = batch.split(-(-count // SAMPLE))[0]
    weights = {parameter.untyped_storage().data_ptr() for parameter in student}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that kept itself would keep its graph for ever

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with tuning.evaluating(objective.student), hooks:
        held = objective.embed(sample)
    per_pair = sum(kept.values()) / len(sample.type_BK)
    del held
    return int(fixed + per_pair * -(-count // chunks))


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
