"""The measured machine: this one, or one that the worker reaches."""

import contextlib
import os

from . import clocks, cores, facts, heat, zones
from .errors import Fatal


class Machine:
    """The interface of a machine for the supervisor."""

    def describe(self):
        """Return the constant facts: the first fields of a `device` record."""
        raise NotImplementedError

    def state(self, cores_used):
        """Return the values that change: clocks of the cores in use, temperature, ..."""
        raise NotImplementedError

    def throttled(self):
        """Return why heat throttles the machine, as a message; None if it does not."""
        raise NotImplementedError

    def governor(self, core):
        """Return the governor of a core, or None."""
        raise NotImplementedError

    def steady_clocks(self, cores_used):
        """A context manager that keeps the clocks constant, if possible, and yields the previous governors by core."""
        raise NotImplementedError

    def core_count(self, device):
        """Return the number of usable cores, or None."""
        raise NotImplementedError

    def fastest_cores(self, device, count):
        """Return the `count` fastest cores; None if they are unknown."""
        raise NotImplementedError

    def raise_priority(self):
        """Raise the priority of the measurement. Return the nice value; None if it is unknown."""

    def keep_off(self, device, cores_used):
        """Pin the supervisor to other cores than those in use."""

    def allow_all(self, device):
        """Undo `keep_off`."""

    def choose_cores(self, device, threads, wanted):
        """Return the `wanted` cores, or else the fastest, one per thread; None if unknown. Raises `Fatal`."""
        allowed = device["cores_allowed"]
        if wanted and not set(wanted) <= set(allowed or wanted):
            raise Fatal("cores %s were requested, but this device allows %s" % (wanted, allowed), usage=True)
        count = len(wanted) if wanted else self.core_count(device)
        if count is not None and threads > count:
            have = "--cores names %d cores" if wanted else "this device allows %d cores"
            raise Fatal("%d threads were requested, but %s" % (threads, have % count), usage=True)
        return wanted or self.fastest_cores(device, threads)


class LocalMachine(Machine):
    """The machine on which this agent runs. `memory` is the file of `steady_clocks`."""

    def __init__(self, memory):
        self.memory = memory

    def describe(self):
        return facts.describe()

    def state(self, cores_used):
        return facts.state(cores_used)

    def throttled(self):
        return heat.throttled()

    def governor(self, core):
        return clocks.governor(core)

    def steady_clocks(self, cores_used):
        return clocks.steady_clocks(cores_used, self.memory)

    def core_count(self, device):
        allowed = device["cores_allowed"]
        return len(allowed) if allowed else os.cpu_count()

    def fastest_cores(self, device, count):
        allowed = device["cores_allowed"]
        return cores.fastest_cores(allowed, count) if allowed else None

    def raise_priority(self):
        return cores.raise_priority()  # workers inherit it

    def keep_off(self, device, cores_used):
        cores.pin(set(device["cores_allowed"]) - set(cores_used))

    def allow_all(self, device):
        if device["cores_allowed"]:
            cores.pin(device["cores_allowed"])


class WorkerMachine(Machine):
    """A machine that the worker reaches, like a phone without Python. The worker answers requests about it:

    {"ask": "describe"}               a `device` record; it can have `governors` by core, which are removed
    {"ask": "state", "cores": [...]}  `mhz`, `temperature_c`, and other known values
    {"ask": "heat"}                   the argument of `heat.why_slow`

    Instead of `temperature_c`, the last two can have `zones`: a name, the type and the number of each thermal zone.
    """

    def __init__(self, visitor):
        self.visitor = visitor
        self.governors = {}
        self.thermometer = zones.Thermometer()

    def describe(self):
        device = self.visitor.ask("describe")
        self.governors = {int(core): name for core, name in device.pop("governors", {}).items()}
        return device

    def state(self, cores_used):
        state = self._with_temperature(self.visitor.ask("state", cores=cores_used), self.thermometer.processor_c)
        return dict(state, throttled=self.throttled())

    def throttled(self):
        return heat.why_slow(self._with_temperature(self.visitor.ask("heat"), self.thermometer.hottest_c))

    @staticmethod
    def _with_temperature(answer, read):
        found = answer.pop("zones", None)
        return answer if found is None else dict(answer, temperature_c=read(found))

    def governor(self, core):
        return self.governors.get(core)

    @contextlib.contextmanager
    def steady_clocks(self, cores_used):  # noqa: ARG002
        yield self.governors  # the worker controls the clocks

    def core_count(self, device):  # noqa: ARG002
        return None

    def fastest_cores(self, device, count):
        clock = {int(core): mhz for core, mhz in (device["max_mhz"] or {}).items() if mhz}
        clock = {core: clock[core] for core in clock if core in (device.get("cores_allowed") or clock)}
        fastest = sorted(clock, key=lambda core: (clock[core], core), reverse=True)[:count]
        return sorted(fastest) if len(fastest) == count else None
