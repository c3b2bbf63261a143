"""Training in several processes: starting them, ending them together, and what they tell each other.

On one machine `run` starts them; on several, torchrun does, and each calls `joined`.

Every process holds the whole model and encodes its share of each batch. Embeddings are gathered, so each computes the
loss of the global batch, and with it the gradient of its own share; summed over the processes, gradients are those of
the whole batch. Reductions give every process the same bits, so the copies of the model never drift apart.
"""

import multiprocessing
import os
import pickle
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pipeline.child_log import ChildLog
from pipeline.crew import cores
from pipeline.errors import TransientError, UserError
from pipeline.lifeline import die_with
from pipeline.stage import Progress

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, for instance while the first one writes a checkpoint."""


def rank() -> int:
    """Which of the processes this is, 0 where there is but one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def on_this_machine() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world()))


def gathered(mine: Tensor) -> Tensor:
    """The rows of all processes, in order of rank, without gradient; all bring equally many."""
    if world() == 1:
        return mine
    mine = mine.detach().contiguous()
    parts = [torch.empty_like(mine) for _ in range(world())]
    dist.all_gather(parts, mine)
    return torch.cat(parts)


def summed(tensors: list[Tensor]) -> None:
    """Add up each tensor over the processes, in place, in one exchange per type of number."""
    if world() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in chosen])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in chosen])
        torch._foreach_copy_(chosen, [part.view_as(tensor) for part, tensor in zip(parts, chosen, strict=True)])


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, with the place it gives in the environment."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        torch.set_num_threads(max(1, cores() // on_this_machine()))
    store, rank, world = next(iter(rendezvous("env://")))
    if os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True":
        # torchrun keeps one store through its restarts, and with it the addresses of processes that are gone.
        store = PrefixStore(f"restart {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def run(
    work: Callable[..., Any], count: int, backend: str, arguments: tuple[Any, ...], logs: Path, progress: Progress
) -> Any:
    """`work(*arguments, progress=...)` in `count` processes at once; what the first of them returns.

    Args:
        work: a function of a module; in each process it finds `rank()` and `world()` set.
        count: processes.
        backend: of torch.distributed: nccl or gloo.
        arguments: anything that pickles.
        logs: folder for what each process prints, `train-0.log` and so on (`pipeline.child_log`).
        progress: called here with what the first process reports.

    Raises:
        UserError: the first one that a process raised.
        TransientError: a process died; the others are ended, and none outlives this one.
    """
    context = multiprocessing.get_context("spawn")
    meeting = tempfile.TemporaryDirectory(prefix="degla-")
    processes, pipes, said = [], [], []
    for index in range(count):
        here, there = context.Pipe(duplex=False)
        place = (index, count, backend, meeting.name, os.getpid())
        said.append(ChildLog(f"train.{index}", logs / f"train-{index}.log"))
        with there, said[index].end as output:
            process = context.Process(
                target=_child, args=(work, arguments, place, there, output), name=f"train-{index}"
            )
            process.start()
        processes.append(process)
        pipes.append(here)
    try:
        return _listen(pipes, said, progress)
    finally:
        for process in processes:
            process.kill()
        for process, log in zip(processes, said, strict=True):
            process.join()
            log.join()
        meeting.cleanup()


def _listen(pipes: list[Connection], said: list[ChildLog], progress: Progress) -> Any:
    """Pass on what the processes send until all have ended well."""
    waiting, result = dict.fromkeys(pipes), None
    while waiting:
        for pipe in wait(list(waiting)):
            index = pipes.index(pipe)  # type: ignore[arg-type]
            try:
                kind, content = pipes[index].recv()
            except EOFError:
                # A process that dies takes the others' connections with it: theirs is the symptom, this the cause.
                raise TransientError(
                    f"train: process {index} of {len(pipes)} ended in the middle; expected processes that stay; fix: "
                    f"the same command resumes from the last checkpoint; its log is {said[index].file}"
                ) from None
            if kind == "progress":
                progress(*content)
            elif kind == "raised":
                raise content
            else:
                result = content if index == 0 else result
                del waiting[pipes[index]]
    return result


def _child(
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    place: tuple[int, int, str, str, int],
    pipe: Connection,
    output: Connection,
) -> None:
    index, count, backend, meeting, parent = place
    die_with(parent)
    with output:
        for standard in (1, 2):
            os.dup2(output.fileno(), standard)

    def tell(what: str, done: int, total: int) -> None:
        if index == 0:
            pipe.send(("progress", (what, done, total)))

    try:
        # Else every process would run as many threads as the machine has cores.
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
        if backend == "nccl":
            torch.cuda.set_device(index)
        # They meet in a file and talk over loopback: torch's own TCP store listens on every interface of the machine.
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
        place_to_meet = f"file://{meeting}/processes"
        dist.init_process_group(backend, init_method=place_to_meet, rank=index, world_size=count, timeout=PATIENCE)
        found = work(*arguments, progress=tell)
        dist.barrier()
        pipe.send(("returned", found))
        dist.destroy_process_group()
    except BaseException as error:
        if _lost_a_peer(error):
            time.sleep(10)  # to be ended meanwhile: the process that died is the one to be named
        pipe.send(("raised", _portable(error)))


def _lost_a_peer(error: BaseException) -> bool:
    """Whether an exchange failed because another process is gone."""
    return isinstance(error, dist.DistBackendError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("Connection", "gloo", "NCCL"))
    )


def _portable(error: BaseException) -> BaseException:
    """The error itself if it pickles, else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, Exception) else UserError("train", "stopped", "a whole run", "run it again")
