"""One kind of error for everything a user can cause and mend, one for what may pass by itself."""

import errno

TRANSIENT_ERRNOS = frozenset(
    {errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.ECONNRESET}
)
"""What a disk or a network says that may say otherwise in a moment."""


class UserError(Exception):
    """A mistake or circumstance the user can mend; shown as one line, never as a traceback.

    Args:
        stage: name of the stage or command that noticed it.
        what: what is wrong, with the value and the row id.
        expected: what would have been right.
        fix: the command or the configuration field that mends it.
    """

    def __init__(self, stage: str, what: str, expected: str, fix: str) -> None:
        self.stage, self.what, self.expected, self.fix = stage, what, expected, fix
        super().__init__(" ".join(f"{stage}: {what}; expected {expected}; fix: {fix}".split()))

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str, str, str]]:
        return type(self), (self.stage, self.what, self.expected, self.fix)


class BusyError(UserError):
    """Another live process is making the same artifact."""


class TransientError(Exception):
    """A fault that may pass by itself (I/O, HTTP 408/429/5xx, an engine start): the flow retries it."""
