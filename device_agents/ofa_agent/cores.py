"""The cores of this machine: which are allowed, which are fast, and pinning."""

import os

from . import reading

CPUS = "/sys/devices/system/cpu"


def core_file(core, name):
    """Return the path of a kernel file about a core."""
    return "%s/cpu%d/%s" % (CPUS, core, name)


def allowed_cores():
    """Return the cores that this process may use; None if the system does not report them."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def max_mhz(core):
    """Return the maximum clock of a core in MHz, or None."""
    khz = reading.integer(core_file(core, "cpufreq/cpuinfo_max_freq"))
    return khz / 1000 if khz and khz > 0 else None


def fastest_cores(cores, count):
    """Return the `count` fastest of `cores`, by clock, then by capacity for the scheduler, then by number.

    Two threads of a physical core share its units, so the second thread comes after all other cores.
    """

    def speed(core):
        return (max_mhz(core) or 0, reading.integer(core_file(core, "cpu_capacity")) or 0, core)

    chosen, twins, seen = [], [], set()
    for core in sorted(cores, key=speed, reverse=True):
        siblings = reading.text(core_file(core, "topology/thread_siblings_list")) or str(core)
        (twins if siblings in seen else chosen).append(core)
        seen.add(siblings)
    return sorted((chosen + twins)[:count])


def pin(cores):
    """Pin this process and its future threads to `cores`. Return whether this worked."""
    try:
        os.sched_setaffinity(0, cores)
        return sorted(os.sched_getaffinity(0)) == sorted(cores)
    except (AttributeError, OSError, ValueError):
        return False


def raise_priority():
    """Raise the priority of this process, so that other programs rarely run between two samples.

    This needs root or the right to do so. Returns the active nice value; None if the system has none.
    """
    if not hasattr(os, "setpriority"):
        return None
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        if os.getsid(0) == os.getpid():  # our own session: autogroups have a priority per session
            with open("/proc/self/autogroup", "w") as file:
                file.write("-20")
    except OSError:
        pass  # not permitted, or this kernel has no such groups
    return os.getpriority(os.PRIO_PROCESS, 0)
