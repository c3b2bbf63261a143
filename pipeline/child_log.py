"""What a child process prints: every line in a bounded file, and in the run's log until there are too many.

The log is Python's own, below the logger "degla": who runs the stage decides who reads it (flows/: Prefect's UI).
"""

import logging
import os
import re
from contextlib import suppress
from contextvars import copy_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

ORDINARY, GRAVE = 200, 1000
"""Lines of one child that are logged at most: below WARNING, and from WARNING on."""
FILE_BYTES = 8 << 20
"""The newest lines are in the file, those before them in `<file>.1`, each up to this size."""

_LEVELS = {
    "DEBUG": logging.DEBUG, "INFO": logging.INFO,
    "WARNING": logging.WARNING, "Warning": logging.WARNING, "[W": logging.WARNING,
    "ERROR": logging.ERROR, "Error": logging.ERROR, "Exception": logging.ERROR, "Traceback": logging.ERROR,
    "[E": logging.ERROR, "CRITICAL": logging.CRITICAL, "FATAL": logging.CRITICAL, "[F": logging.CRITICAL,
}  # fmt: skip
# By Python's names of levels and exceptions, and by glog's prefix, as in "[W1123 17:58:10.12 socket.cpp:1]".
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL|Traceback)\b|(Warning|Error|Exception)\b|(\[[WEF])\d")

logging.getLogger("degla").addHandler(logging.NullHandler())  # else Python prints warnings that nobody else takes


class ChildLog:
    """Reads what a child prints, in a thread, until no process holds `end` any more.

    Attributes:
        end: for the child's stdout and stderr (by its `fileno()`); to be closed here once the child has it.
        file: where every line is kept.
    """

    def __init__(self, name: str, file: Path) -> None:
        """Begin a new file.

        Args:
            name: of the logger, below "degla".
            file: its folder is made.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        mine, its = os.pipe()
        self.end, self.file = Connection(its, readable=False), file
        # With the caller's context, by which Prefect knows whose lines they are.
        self._thread = Thread(
            target=copy_context().run, args=(_pass_on, mine, logging.getLogger(f"degla.{name}"), file), daemon=True
        )
        self._thread.start()

    def join(self) -> None:
        """Wait until every line is where it belongs; the child has ended."""
        self._thread.join(timeout=10)  # a grandchild that is just ending may still hold the pipe


def _pass_on(pipe: int, logger: logging.Logger, file: Path) -> None:
    left = {False: ORDINARY, True: GRAVE}
    omitted = 0
    with open(pipe, encoding="utf-8", errors="replace") as lines:
        while line := lines.readline(1 << 16):
            if not (text := line.rstrip()):
                continue
            _keep(text, file)
            found = _LEVEL.search(text)
            level = _LEVELS[found[found.lastindex or 0]] if found else logging.INFO
            is_grave = level >= logging.WARNING
            if not logger.isEnabledFor(level):
                continue
            if left[is_grave]:
                left[is_grave] -= 1
                logger.log(level, text[:2000])
            else:
                omitted += 1
    if omitted:
        logger.info("%s more lines are only in %s, as long as the stage is at work", f"{omitted:,}", file)


def _keep(text: str, file: Path) -> None:
    with suppress(OSError):  # a full disk is the stage's to tell, and here costs lines
        if file.exists() and file.stat().st_size >= FILE_BYTES:
            file.replace(file.with_name(f"{file.name}.1"))
        with file.open("ab", buffering=0) as handle:
            handle.write(f"{text}\n".encode())
