"""The cores of this machine: which there are, which are fast, and who runs on them."""

import os

from . import reading

CPUS = "/sys/devices/system/cpu"


def core_file(core, name):
    """Where the kernel reports something about a core."""
    return "%s/cpu%d/%s" % (CPUS, core, name)


def allowed_cores():
    """The cores that this process may use, or None where the system does not report them."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def max_mhz(core):
    """The highest clock of a core, or None."""
    khz = reading.integer(core_file(core, "cpufreq/cpuinfo_max_freq"))
    return khz / 1000 if khz and khz > 0 else None


def fastest_cores(cores, count):
    """`count` of `cores`: highest clock first, then the scheduler's capacity, then the highest numbers.

    Two threads of one physical core share its units, so the second thread of a core comes after all other cores.
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
    """Keep this process, and all threads that it will start, on `cores`; False where that is impossible."""
    try:
        os.sched_setaffinity(0, cores)
        return sorted(os.sched_getaffinity(0)) == sorted(cores)
    except (AttributeError, OSError, ValueError):
        return False


def raise_priority():
    """Ask the scheduler to prefer this process, so that other programs rarely run between two samples.

    Only root, or a user with this right, may. Returns the nice value in force; None where there is none.
    """
    if not hasattr(os, "setpriority"):
        return None
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        if os.getsid(0) == os.getpid():  # a session of our own: some schedulers weigh sessions, not processes
            with open("/proc/self/autogroup", "w") as file:
                file.write("-20")
    except OSError:
        pass  # not permitted, or this kernel has no such groups
    return os.getpriority(os.PRIO_PROCESS, 0)
