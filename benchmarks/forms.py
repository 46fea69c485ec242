"""Times networks in fast forms against the plain form: `python benchmarks/forms.py [SPACE ...] [--networks N]`.

Draws random networks of each space, spread over its range of MACs, and exports each twice: plain, and with every form
that the runtime has. Both files and a copy of the plain one run interleaved in this process; the copy shows the noise.
With one thread, times are CPU times, so other programs count little.

Prints a line per network and the geometric mean. GMAC/s are those of the fast file, beside those of a large matrix
product (the peak of this machine with that many threads).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper

from device_agents.ofa_agent import cores, inputs, runtimes
from ofa_profiler import get_space
from ofa_profiler.devices import open_device
from ofa_profiler.export import for_device, get_exporter
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.networks.blocks import Layout, as_graph
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import space_names
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.sampling import draw_spread

RUNTIMES = ("litert", "onnxruntime")
#: Rows, columns and depth of the matrix product for the peak.
_PEAK_SIZE = 768


@dataclass
class Timed:
    """A loaded model and its times in ms."""

    run: Callable[[], object]
    clock: Callable[[], int]
    times_ms: list[float] = field(default_factory=list)

    def visit(self, runs: int) -> None:
        """Run it, the first time without counting."""
        self.run()
        for _ in range(runs):
            begin = self.clock()
            self.run()
            self.times_ms.append((self.clock() - begin) / 1e6)

    @property
    def median_ms(self) -> float:
        """The median of all runs."""
        return float(np.median(self.times_ms))


class Bench:
    """One runtime and precision with a number of threads."""

    def __init__(self, runtime: str, threads: int, precision: str = "fp32") -> None:
        with open_device("local") as machine:
            self.target = for_device(Target(runtime, precision), machine.describe())
        self.clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
        self.exporter = get_exporter(self.target)
        # As in a measurement: without a spare core, threads of one model must not spin while another runs.
        spare_core = threads < len(cores.allowed_cores())
        self.runtime = runtimes.find(runtime)({"provider": None, "threads": threads}, spare_core)

    def load(self, layout: Layout, forms: Forms) -> Timed:
        """The network of `layout` in these forms."""
        graph = as_graph(layout)
        data = self.exporter.build(
            graph, repeating_weights(layout), self.target, outputs=["output"], metadata={}, forms=forms
        )
        described = [tensor.to_json() for tensor in self.exporter.inputs(graph, self.target)]
        return Timed(self.runtime.load(data, inputs.descriptions({"inputs": described})), self.clock)

    def fast_forms(self, layout: Layout) -> Forms:
        """All forms of the runtime that the network can have."""
        found = candidates(self.target, as_graph(layout))
        return Forms({group: names[0] for group, names in found.items()})


def race(models: Sequence[Timed], rounds: int, runs: int) -> list[float]:
    """Visit the models in a new random order in each round, and return their medians."""
    for number in range(rounds):
        for i in np.random.default_rng(number).permutation(len(models)):
            models[i].visit(runs)
    return [model.median_ms for model in models]


def peak_gmacs(threads: int) -> float:
    """GMAC/s of a large matrix product in onnxruntime."""
    shape = (_PEAK_SIZE, _PEAK_SIZE)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    weight = helper.make_tensor("w", TensorProto.FLOAT, shape, np.ones(shape, np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["output"])], "peak", values[:1], values[1:], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    bench = Bench("onnxruntime", threads)
    run = bench.runtime.load(model.SerializeToString(), inputs.descriptions({"input_shape": list(shape)}))
    timed = Timed(run, bench.clock)
    race([timed], 5, 5)
    return _PEAK_SIZE**3 / 1e6 / float(np.min(timed.times_ms))


def compare(space_name: str, bench: Bench, count: int, rounds: int, runs: int, peak: float) -> None:
    """Print the networks of one space."""
    space = get_space(space_name)
    cost = AdditiveCost.from_ops(space, lambda op: op.macs)
    gains, noises = [], []
    for architecture in draw_spread(space, cost, count, np.random.default_rng(0))[0]:
        layout = space.layout(architecture)
        forms, gmacs = bench.fast_forms(layout), as_graph(layout).macs / 1e6
        models = [bench.load(layout, chosen) for chosen in (PLAIN, forms, PLAIN)]
        plain_ms, fast_ms, again_ms = race(models, rounds, runs)
        gains.append(plain_ms / fast_ms if forms else 1.0)
        noises.append(abs(np.log(plain_ms / again_ms)))
        print(
            f"{space_name:20} {bench.target.runtime:12} {plain_ms:9.3f} ms -> {fast_ms:9.3f} ms {gains[-1]:6.3f}x"
            f"  noise {noises[-1]:6.3f}  {gmacs / fast_ms:5.1f} of {peak:.0f} GMAC/s  {forms.name}",
            flush=True,
        )
    mean = float(np.exp(np.mean(np.log(gains))))
    print(f"{space_name:20} {bench.target.runtime:12} geometric mean {mean:.3f}x, least {min(gains):.3f}x", end="")
    print(f", noise {float(np.median(noises)):.3f} (median), {max(noises):.3f} (most)\n", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spaces", nargs="*", metavar="SPACE")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--runtime", choices=RUNTIMES, action="append")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5, help="runs per round")
    arguments = parser.parse_args()
    cores.pin(cores.fastest_cores(cores.allowed_cores(), arguments.threads))
    peak = peak_gmacs(arguments.threads)
    for runtime in arguments.runtime or RUNTIMES:
        bench = Bench(runtime, arguments.threads)
        for space in arguments.spaces or space_names():
            compare(space, bench, arguments.networks, arguments.rounds, arguments.runs, peak)


if __name__ == "__main__":
    main()
