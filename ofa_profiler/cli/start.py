"""The start of a command: until it handles signals itself, Ctrl-C and SIGTERM end it quietly.

This module imports the standard library only, and little of it. The imports of a command take a while, and an
interruption meanwhile would be a traceback.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than everything else here
if TYPE_CHECKING:
    from types import FrameType, ModuleType


def end_quietly() -> None:
    """Let SIGINT and SIGTERM end this process at once, with exit code 130 or 143. Nothing is kept open yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not under nohup
        signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def leave(code: int) -> int:
    """Return the exit code of a command; after an interruption, end the process at once.

    An interrupted import of a native library can crash the interpreter while it shuts down.
    """
    if code > 128:
        import contextlib
        import sys

        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or none
                stream.flush()
        os._exit(code)
    return code


def run(module: str) -> int:
    """Import the module of a command and run its `main`."""
    end_quietly()
    return leave(int(imported(module).main()))


def imported(module: str) -> ModuleType:
    """Import a module. What is imported stays, so garbage is not looked for among it: that takes a while."""
    import gc
    import importlib

    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def profile() -> int:
    """`ofa-profile`."""
    return run("ofa_profiler.cli.profile")


def verify() -> int:
    """`ofa-verify`."""
    return run("ofa_profiler.cli.verify")


def compare() -> int:
    """`ofa-compare`."""
    return run("ofa_profiler.cli.compare")
