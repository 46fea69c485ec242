"""Times our int8 files against those of other quantizers: `python benchmarks/quantizers.py [SPACE ...] [--networks N]`.

Both files come from the same float model, with the same weights and ranges: ai-edge-quantizer for LiteRT, onnxruntime's
own quantizer for onnxruntime. They run interleaved in this process. With one thread, times are CPU times.

Prints a line per network, and the geometric mean of their time over ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
from forms import RUNTIMES, Bench, Timed, race

from device_agents.ofa_agent import cores, inputs
from ofa_profiler.networks.graph import Graph
from ofa_profiler.spaces import space_names

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))


@lru_cache
def compared(name: str) -> ModuleType:
    """The tests that compare results with another quantizer: they call it."""
    spec = importlib.util.spec_from_file_location(name, TESTS / "export" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files(bench: Bench, space_name: str, seed: int) -> tuple[Graph, bytes, bytes]:
    """A random network of the space at its smallest resolution: its graph, our file, and theirs."""
    from support.int8 import calibrated, fast_forms, network

    graph, weights = network(space_name, seed)
    ranges = calibrated(graph, weights)
    if bench.target.runtime == "litert":
        forms = fast_forms(bench.target, graph)
        of_tflite = compared("test_int8_tflite")
        ours = of_tflite.build(graph, weights, ranges, forms)
        return graph, ours, of_tflite.theirs(graph, weights, ours, forms)
    of_onnx = compared("test_int8_onnx")
    ours = of_onnx.build(graph, weights, ranges)
    return graph, ours, of_onnx.theirs(graph, weights, ours, ranges)


def timed(bench: Bench, graph: Graph, data: bytes) -> Timed:
    """A loaded file."""
    described = [tensor.to_json() for tensor in bench.exporter.inputs(graph, bench.target)]
    for tensor in described:
        tensor |= {"name": None, "dtype": None}  # those of the file: theirs may take int8
    return Timed(bench.runtime.load(data, inputs.descriptions({"inputs": described})), bench.clock)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spaces", nargs="*", metavar="SPACE")
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--runtime", choices=RUNTIMES, action="append")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5, help="runs per round")
    arguments = parser.parse_args()
    cores.pin(cores.fastest_cores(cores.allowed_cores(), 1))
    for runtime in arguments.runtime or RUNTIMES:
        bench, gains = Bench(runtime, 1, "int8"), []
        for space in arguments.spaces or space_names():
            for seed in range(arguments.networks):
                graph, ours, theirs = files(bench, space, seed)
                models = [timed(bench, graph, data) for data in (ours, theirs)]
                ours_ms, theirs_ms = race(models, arguments.rounds, arguments.runs)
                gains.append(theirs_ms / ours_ms)
                print(f"{space:20} {runtime:12} ours {ours_ms:8.3f} ms, theirs {theirs_ms:8.3f} ms", flush=True)
        mean = float(np.exp(np.mean(np.log(gains))))
        print(f"{runtime}: theirs / ours {mean:.3f} (geometric mean of {len(gains)}), least {min(gains):.3f}")


if __name__ == "__main__":
    main()
