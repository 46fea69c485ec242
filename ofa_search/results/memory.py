"""The memory that exported models take on this machine, measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import device_agents
from ofa_profiler.export import export_ops, get_exporter
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import runtimes
from ofa_search.results.found import Found

#: Seconds for one model. A phone network takes less than one.
_PATIENCE_S = 60


def with_memory(found: Sequence[Found]) -> list[Found]:
    """`found` with the memory in bytes that each of their model files takes when it runs, by kind of file.

    It is the peak of a process that loads and runs the file with one thread, minus that of the runtime alone
    (`ofa_agent/memory.py`). Files whose runtime is not installed here, or does not run them, are left out, and all
    files on systems other than Linux.
    """
    found = list(found)
    measured: list[dict[str, int]] = [{} for _ in found]
    for runtime in runtimes().values() if sys.platform == "linux" else ():
        kind = runtime.suffix.removeprefix(".")
        having = [(number, network) for number, network in enumerate(found) if kind in network.files]
        if not having or runtime.installed_release is None:
            continue
        for (number, _), taken in zip(having, _measure(runtime.name, kind, [n for _, n in having]), strict=True):
            if taken is not None:
                measured[number][kind] = taken
    return [replace(network, memory_bytes=each) for network, each in zip(found, measured, strict=True)]


def _measure(runtime: str, kind: str, found: Sequence[Found]) -> list[int | None]:
    target = Target(runtime)
    space = found[0].source.space
    tiny = export_ops(space.slot_ops(space.slots[0])[:1], target)[0]

    def described(path: Path, inputs: Sequence[TensorSpec]) -> dict[str, Any]:
        return {"path": str(path.resolve()), "inputs": [tensor.to_json() for tensor in inputs]}

    graphs = [as_graph(network.source.space.layout(network.result.architecture)) for network in found]
    inputs = [get_exporter(target).inputs(graph, target) for graph in graphs]
    request = {
        "settings": {"runtime": runtime, "provider": None, "threads": 1},
        "first": described(tiny.path, tiny.inputs),
        "models": [described(network.files[kind], each) for network, each in zip(found, inputs, strict=True)],
    }
    nothing: list[int | None] = [None] * len(found)
    folders = [str(Path(device_agents.__path__[0]).resolve()), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ofa_agent.memory"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S * len(found),
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        answers: list[int | None] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return nothing
    return answers if len(answers) == len(found) else nothing
