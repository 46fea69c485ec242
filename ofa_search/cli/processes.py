"""Commands that torchrun may start in several processes, of which the first speaks for all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ofa_profiler.cli.terminal import run_command
from ofa_profiler.errors import OfaError

#: A process waits this long before it reports an error: the first process reports the same one, and torchrun
#: ends all processes.
_PATIENCE_S = 3.0


def run_in_processes(name: str, command: Callable[[], int], *, interrupted: Callable[[], str]) -> int:
    """`run_command` where other processes may run the same; `interrupted` gives the message of the first."""
    leads = os.environ.get("RANK", "0") == "0"  # torchrun sets it
    return run_command(
        name,
        command if leads else lambda: _following(command),
        interrupted=interrupted if leads else lambda: "",
    )


def _following(command: Callable[[], int]) -> int:
    """Run it in a process other than the first, which reports for all."""
    try:
        return command()
    except OfaError:
        time.sleep(_PATIENCE_S)
        raise
