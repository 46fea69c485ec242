"""The record of a runtime's own profile: how long each of its kernels took in one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ofa_profiler.protocol.records.values import JsonObject, Kept, is_whole

_LONGEST_NS = 10**15


@dataclass(frozen=True)
class KernelTime:
    """A kernel: its name and operator in the runtime, the median of its calls, and its calls in one run."""

    name: str
    kind: str
    ns: int
    calls: int


@dataclass(frozen=True)
class NodeProfile(Kept):
    """The kernels of a model in order of execution; None if the runtime has no profile of them, and `why`.

    `whole_ns` is the median of the `runs` of the whole model under the profiler, which makes it slower.
    """

    key: str
    kernels: tuple[KernelTime, ...] | None
    why: str
    runs: int
    whole_ns: int

    @staticmethod
    def from_json(data: JsonObject) -> NodeProfile:
        """Read and check an object. Raises `ValueError`."""
        if not isinstance(data.get("key"), str):
            raise ValueError("'key' must be the key of a model")
        if data.get("kernels") is None:
            why = data.get("why")
            return NodeProfile(data["key"], None, why if isinstance(why, str) else "", 0, 0, json=data)
        if not isinstance(data["kernels"], list):
            raise ValueError("'kernels' must be a list or null")
        for name in ("runs", "whole_ns"):
            if not is_whole(data.get(name)) or not 0 < data[name] < _LONGEST_NS:
                raise ValueError(f"{name!r} must be a whole number above 0")
        kernels = tuple(map(_kernel, data["kernels"]))
        return NodeProfile(data["key"], kernels, "", data["runs"], data["whole_ns"], json=data)


def _kernel(data: Any) -> KernelTime:
    if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in ("name", "kind")):
        raise ValueError("a kernel must be an object with 'name' and 'kind'")
    if not all(is_whole(data.get(name)) and 0 <= data[name] < _LONGEST_NS for name in ("ns", "calls")):
        raise ValueError(f"kernel {data['name']!r:.80}: 'ns' and 'calls' must be whole numbers, 0 or more")
    return KernelTime(data["name"], data["kind"], data["ns"], data["calls"])
