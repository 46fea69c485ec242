"""All errors of the project, and the exit code of each.

    OfaError                     1  (never raised itself)
    ├── UsageError               2  the request is wrong: an option, an architecture, a name
    │   └── InputFileError       2  a given file is missing or wrong; the message names file and row
    ├── InfeasibleError          3  no architecture meets the budget; carries the attainable range
    ├── DeviceError              4  the device, its transport or the agent failed
    │   └── TransientDeviceError 4  the same, but another attempt may succeed (a cut cable, a reboot)
    └── OverBudgetError          5  no network keeps the budget when measured or written

The class of an error alone decides whether `base/retry.py` tries again: every transient error is a `TransientError`.
A message is one line: what is wrong, where, and what to do.
"""

from __future__ import annotations

from pathlib import Path


class OfaError(Exception):
    """Base class of all errors that a user or a device can cause."""

    exit_code = 1


class UsageError(OfaError):
    """The request itself is wrong."""

    exit_code = 2


class TransientError(OfaError):
    """A failure after which another attempt may succeed. Always raised as a subclass."""


class InputFileError(UsageError):
    """A file given by the user is missing, unreadable or has wrong content."""

    def __init__(self, path: str | Path, problem: str, *, row: int | None = None) -> None:
        self.path = Path(path)
        self.row = row
        where = f"{path}, row {row}" if row is not None else f"{path}"
        super().__init__(f"{where}: {problem}")


class InfeasibleError(OfaError):
    """No architecture of the space meets the limits.

    `attainable` is `(lowest, highest)` of the limited quantity over the whole space, exact; None where it is not known.
    """

    exit_code = 3

    def __init__(self, message: str, attainable: tuple[float, float] | None = None) -> None:
        self.attainable = attainable
        super().__init__(message)


class DeviceError(OfaError):
    """The device, the connection to it or the agent on it failed."""

    exit_code = 4


class TransientDeviceError(DeviceError, TransientError):
    """The device or the connection to it failed, and another attempt may succeed."""


class UploadInterrupted(TransientDeviceError):
    """The connection was lost during an upload of which `remaining` bytes were missing on the device.

    The device keeps what has arrived, so the next attempt may have less to send.
    """

    def __init__(self, message: str, remaining: int) -> None:
        super().__init__(message)
        self.remaining = remaining


class OverBudgetError(OfaError):
    """Networks were measured or written, and none keeps the budget."""

    exit_code = 5
