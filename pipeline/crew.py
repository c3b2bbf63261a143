"""Work spread over processes of this machine, which end when this one does, however that ends."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from types import ModuleType, TracebackType
from typing import Self, TypeVar

from pipeline.errors import TransientError
from pipeline.lifeline import die_with

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Up to `size` processes, started when there is work for two. A context manager: leaving it ends them.

    `stage` is whose work it is, for the error.
    """

    def __init__(self, stage: str, size: int) -> None:
        self._stage, self.size = stage, size
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            for process in list(self._pool._processes.values()) if error else []:
                process.kill()  # what they write is whole or absent
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """`work(item)` of every item, in their order; in this process where one would do.

        Args:
            work: a function of a module, or a `partial` of one.
            items: what it is given, one at a time.

        Raises what `work` raises, and TransientError when a process is killed.
        """
        if min(self.size, len(items)) < 2:
            yield from map(work, items)
            return
        try:
            with _without_main():
                self._pool = self._pool or ProcessPoolExecutor(
                    self.size, get_context("spawn"), initializer=_start, initargs=(os.getpid(),)
                )
                results = self._pool.map(work, items)
            yield from results
        except BrokenProcessPool:
            self._pool = None
            raise TransientError(
                f"{self._stage}: one of {self.size} processes was killed; expected memory for all of them; "
                "fix: the same command continues from here"
            ) from None


@contextmanager
def _without_main() -> Iterator[None]:
    """While the processes start: a script without `if __name__ == "__main__"` would run once more in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that shows something
    die_with(parent)
    gc.set_threshold(100_000, 20, 20)  # rows by the hundred thousand, and hardly a cycle among them
