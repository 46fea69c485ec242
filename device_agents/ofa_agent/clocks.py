"""The governor of the clock: `performance` during the measurement, then the previous one again."""

import contextlib
import json
import os

from . import reading
from .cores import core_file

STEADY = "performance"  # the governor that does not change the clock


def governor(core):
    """What sets the clock of a core, or None."""
    return reading.text(core_file(core, "cpufreq/scaling_governor"))


def set_governor(core, name):
    """Ask the kernel for another governor -> whether it is in force."""
    try:
        with open(core_file(core, "cpufreq/scaling_governor"), "w") as file:
            file.write(name)
    except OSError:
        return False
    return governor(core) == name


def set_back(memory):
    """Restore the governors that the file `memory` lists -> those that could not be restored.

    A core that has another governor than ours by now keeps it: a user, or a reboot, has set it since.
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


def remember(memory, found):
    """Write to the disk what must be restored -> whether that worked."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(memory)  # make a new file, follow no link: other users may write in this folder
        with open(memory, "x", encoding="utf-8") as file:
            json.dump(found, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


@contextlib.contextmanager
def steady_clocks(cores, memory):
    """Within, the governor of `cores` is `performance`, if we may set it -> the previous governors by core.

    The file `memory` lists what must be restored until that is done. After a kill that cannot be caught,
    the next run restores it first.
    """
    left = set_back(memory)
    found = {core: governor(core) for core in cores or []}
    found.update(left)
    ours = [core for core in found if core not in left and found[core] not in (None, STEADY)]
    ours = [core for core in ours if os.access(core_file(core, "cpufreq/scaling_governor"), os.W_OK)]
    try:
        if ours and remember(memory, {core: found[core] for core in [*left, *ours]}):
            for core in ours:
                set_governor(core, STEADY)
        yield found
    finally:
        try:
            set_back(memory)
        finally:
            set_back(memory)  # in case a signal interrupted the first call; otherwise nothing is left to do
