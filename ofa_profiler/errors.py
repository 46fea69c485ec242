"""The one tree of errors, and the exit code that each branch stands for.

    OfaError                    1  (never raised itself)
    ├── UsageError              2  what was asked for makes no sense: an option, an architecture, a name
    │   └── InputFileError      2  a file that was given is missing or wrong; says which file and row
    ├── InfeasibleError         3  no architecture meets the budget; carries the attainable range
    ├── DeviceError             4  the device, its transport or the agent failed
    │   └── TransientDeviceError 4 ... in a way that a second try may cure (a cut cable, a reboot)
    └── OverBudgetError         5  measured again, and over the budget

Whether a failure is worth a second try is decided by its class and nowhere else.
A message is one line: what was wrong, where, what to do.
"""

from __future__ import annotations

from pathlib import Path


class OfaError(Exception):
    """Base of every error that a user can cause or a device can produce."""

    exit_code = 1


class UsageError(OfaError):
    """The request itself is wrong."""

    exit_code = 2


class InputFileError(UsageError):
    """A file given by the user is missing, unreadable or holds something it may not hold."""

    def __init__(self, path: str | Path, problem: str, *, row: int | None = None) -> None:
        self.path = Path(path)
        self.row = row
        where = f"{path}, row {row}" if row is not None else f"{path}"
        super().__init__(f"{where}: {problem}")


class InfeasibleError(OfaError):
    """No architecture of the space meets the limits.

    `attainable` is `(lowest, highest)` of the limited quantity over the whole space, exact.
    """

    exit_code = 3

    def __init__(self, message: str, attainable: tuple[float, float] | None = None) -> None:
        self.attainable = attainable
        super().__init__(message)


class DeviceError(OfaError):
    """The device, the way to it, or the agent on it failed for good."""

    exit_code = 4


class TransientDeviceError(DeviceError):
    """The device or the way to it failed, and trying again may work."""


class SendingCutOff(TransientDeviceError):
    """The connection was lost while `lacking` bytes were sent that the device did not have; it keeps what arrived."""

    def __init__(self, words: str, lacking: int) -> None:
        super().__init__(words)
        self.lacking = lacking


class OverBudgetError(OfaError):
    """The chosen network was measured again and is slower than its budget."""

    exit_code = 5
