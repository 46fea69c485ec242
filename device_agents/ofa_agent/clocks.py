"""Sets the governor of the CPU clock to `performance` during the measurement, and restores it afterwards."""

import contextlib
import json
import os

from . import reading
from .cores import core_file

STEADY = "performance"  # the governor that keeps the clock constant


def governor(core):
    """Return the governor of a core, or None."""
    return reading.text(core_file(core, "cpufreq/scaling_governor"))


def set_governor(core, name):
    """Set the governor of a core, and return whether it is active."""
    try:
        with open(core_file(core, "cpufreq/scaling_governor"), "w") as file:
            file.write(name)
    except OSError:
        return False
    return governor(core) == name


def restore(memory):
    """Restore the governors in the file `memory`. Return those that could not be restored, by core.

    If a core no longer has our governor, it keeps the current one, because a user or a reboot has set it.
    """
    try:
        with open(memory, encoding="utf-8") as file:
            found = {int(core): str(name) for core, name in json.load(file).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        found = {}
    left = {core: name for core, name in found.items() if governor(core) == STEADY and not set_governor(core, name)}
    if not left:
        with contextlib.suppress(OSError):
            os.unlink(memory)
    return left


def save(memory, found):
    """Write the governors `found` to the file `memory`, and return whether this worked."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(memory)  # create a new file and follow no link, because other users may write to this folder
        with open(memory, "x", encoding="utf-8") as file:
            json.dump(found, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


@contextlib.contextmanager
def steady_clocks(cores, memory):
    """Set the governor of `cores` to `performance` within the context, if permitted. Yield the previous ones by core.

    Until they are restored, the file `memory` stores them. After a `kill -9`, the next run restores them first.
    """
    left = restore(memory)
    found = {core: governor(core) for core in cores or []}
    found.update(left)
    changed = [core for core in found if core not in left and found[core] not in (None, STEADY)]
    changed = [core for core in changed if os.access(core_file(core, "cpufreq/scaling_governor"), os.W_OK)]
    try:
        if changed and save(memory, {core: found[core] for core in [*left, *changed]}):
            for core in changed:
                set_governor(core, STEADY)
        yield found
    finally:
        try:
            restore(memory)
        finally:
            restore(memory)  # if a signal has interrupted the first call; otherwise this does nothing
