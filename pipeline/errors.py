"""One kind of error for everything a user can cause and mend, one for what may pass by itself."""

import errno
import re
from importlib.util import find_spec

TRANSIENT_ERRNOS = frozenset(
    {errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.ECONNRESET}
)
"""errno values worth a retry."""

_LOGIN = re.compile(r"(?<=://)[^\s'\"]+(?=@)")


def printable(text: str) -> str:
    """Foreign text for a terminal or a log: what steers one (escapes, direction marks) is spelled out."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


class UserError(Exception):
    """A mistake or circumstance the user can mend; shown as one line, never as a traceback.

    The line holds no control character, whatever the values do, and no user name and password of an address.

    Args:
        stage: name of the stage or command that noticed it.
        what: what is wrong, with the value and the row id.
        expected: what would have been right.
        fix: the command or the configuration field that mends it.
    """

    def __init__(self, stage: str, what: str, expected: str, fix: str) -> None:
        self.stage, self.what, self.expected, self.fix = stage, what, expected, fix
        line = " ".join(f"{stage}: {what}; expected {expected}; fix: {fix}".split())
        super().__init__(_LOGIN.sub("***", printable(line)))

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str, str, str]]:
        return type(self), (self.stage, self.what, self.expected, self.fix)


class BusyError(UserError):
    """Another live process is making the same artifact."""


def install(extra: str) -> str:
    """The command that brings one of degla's extras."""
    return f"in the checkout: pip install -c constraints.txt -e '.[{extra}]'"


def need_package(stage: str, package: str, extra: str) -> None:
    """Raise UserError when an optional package is not installed; `extra` is degla's extra that brings it."""
    if find_spec(package) is None:
        raise UserError(stage, f"{package} is not installed", "the package", install(extra))


class TransientError(Exception):
    """A fault that may pass by itself (I/O, HTTP 408/429/5xx, an engine start): the flow retries it."""
