"""How much of its cores the worker had: what the kernel counts while samples are taken."""

import glob
import time

from .cores import allowed_cores

try:
    import resource
except ImportError:  # Windows
    resource = None

WAITED_SHARE = 0.05  # the threads of a disturbed visit waited for cores for more than this share of the time, ...
INTERRUPTED_SHARE = 0.1  # ... and more than this share of its samples can have been interrupted
REPEATED_SHARE = 0.2  # maximum share of the time for disturbed visits that are repeated


def waiting_ns():
    """Return, by thread of this process, how long it was ready and had no core; empty if the kernel does not count."""
    found = {}
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            with open(path) as file:
                found[path] = int(file.read().split()[1])
        except (OSError, ValueError, IndexError):  # noqa: PERF203 (the thread has ended, or it is another format)
            continue
    return found if any(found.values()) else {}


class CoreUse:
    """Counts from its creation until `fields`. `threads`: of the runtime."""

    def __init__(self, threads):
        self.threads = threads
        self.cores = min(threads, len(allowed_cores() or range(threads)))
        self.waiting = waiting_ns()
        self.usage = resource.getrusage(resource.RUSAGE_SELF) if resource else None
        self.cpu_ns = time.process_time_ns()
        self.begin = time.perf_counter_ns()

    def fields(self):
        """Return the fields of a visit; one that the system does not count is missing.

        `waited_ns` is for an average thread. Threads that wait for each other's results sleep or spin, which the kernel
        does not count. It does count a thread that waits for a core on which another thread of this process runs: no
        other program can have had more than the time that this process lacks on its cores. If the kernel counts
        nothing, `waited_ns` is the wall time without the CPU time, for a single thread that never slept by itself.
        """
        found = {"wall_ns": time.perf_counter_ns() - self.begin, "cpu_ns": time.process_time_ns() - self.cpu_ns}
        if self.usage is None:
            return found
        usage, waiting = resource.getrusage(resource.RUSAGE_SELF), waiting_ns()
        found["involuntary"] = usage.ru_nivcsw - self.usage.ru_nivcsw
        if waiting:
            waited_ns = sum(ns - self.waiting.get(thread, 0) for thread, ns in waiting.items())
            lacking_ns = found["wall_ns"] - found["cpu_ns"] // self.cores
            found["waited_ns"] = max(0, min(waited_ns // self.threads, lacking_ns))
        elif self.threads == 1 and usage.ru_nvcsw == self.usage.ru_nvcsw:
            found["waited_ns"] = max(0, found["wall_ns"] - found["cpu_ns"])
        return found


def is_disturbed(record, threads):
    """Return whether other programs changed the median of a visit of a model with so many threads.

    Waiting alone does not: if an op is much shorter than the time that another program gets at once, few samples are
    slower, and the median ignores them. The waiting of all threads counts, because an op waits for its slowest thread.
    """
    if not {"waited_ns", "wall_ns", "involuntary"} <= record.keys():
        return False
    waited = threads * record["waited_ns"] > WAITED_SHARE * record["wall_ns"]
    return waited and record["involuntary"] > INTERRUPTED_SHARE * len(record["samples_ns"])
