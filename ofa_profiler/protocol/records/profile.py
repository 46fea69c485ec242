"""The record of a profile: what the runtime itself says about the time of each kernel of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ofa_profiler.protocol.values import JsonObject, Kept, is_nonnegative, is_whole

_LONGEST_NS = 10**15


@dataclass(frozen=True)
class KernelTime:
    """One kernel. Several kernels of a model can have the same name.

    `calls` are those in one run, and `ns` is the median over all runs of the mean time of a call. It includes the
    kernels that a loop or a branch runs.
    """

    name: str
    kind: str
    ns: int
    calls: int

    @staticmethod
    def from_json(data: Any) -> KernelTime:
        """Read and check an object. Raises `ValueError`."""
        if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in ("name", "kind")):
            raise ValueError("a kernel must be an object with 'name', 'kind', 'ns' and 'calls'")
        ns, calls = _whole(data, "ns", 0), _whole(data, "calls", 1)
        return KernelTime(data["name"], data["kind"], ns, calls)


@dataclass(frozen=True)
class NodeProfile(Kept):
    """The profile of a model by its runtime, in order of execution. Profiling itself takes time, so times are longer.

    `kernels` is None if there is no profile, and `why` then says why.
    """

    key: str
    seconds: float
    kernels: tuple[KernelTime, ...] | None
    #: The number of profiled runs, and the median of their wall time; 0 without a profile.
    runs: int
    whole_ns: int
    why: str

    @staticmethod
    def from_json(data: JsonObject) -> NodeProfile:
        """Read and check an object. Raises `ValueError`."""
        if not isinstance(data.get("key"), str):
            raise ValueError("'key' must be the key of a model")
        if not is_nonnegative(data.get("seconds")):
            raise ValueError("'seconds' must be a number, 0 or more")
        kernels, why = data.get("kernels"), data.get("why", "")
        if not isinstance(why, str) or (kernels is None and not why):
            raise ValueError("'why' must be text, and a profile without kernels must have it")
        if kernels is None:
            return NodeProfile(data["key"], data["seconds"], None, 0, 0, why, json=data)
        if not isinstance(kernels, list) or not kernels:
            raise ValueError("'kernels' must be a list of kernels, or null")
        found = tuple(map(KernelTime.from_json, kernels))
        runs, whole_ns = _whole(data, "runs", 1), _whole(data, "whole_ns", 1)
        return NodeProfile(data["key"], data["seconds"], found, runs, whole_ns, why, json=data)


def _whole(data: JsonObject, name: str, least: int) -> int:
    value = data.get(name)
    if not isinstance(value, int) or not is_whole(value) or not least <= value < _LONGEST_NS:
        raise ValueError(f"{name!r} must be a whole number, {least} or more, not {value!r:.40}")
    return value
