"""Measures the error of the sum of isolated ops, and its causes: `python benchmarks/additivity.py SPACE [NETWORKS]`.

Draws random networks of SPACE (default: 24), spread over its range of MACs. onnxruntime runs them and all their ops
on one thread, interleaved over rounds, as in `ofa-profile` and `ofa-verify`. Times are CPU times of that thread, so
other programs on the machine do not count.

Prints three tables: the error of the sum for several ways to measure an op; the time per kernel, in a network and in
its ops; the error of fits on top of the sum, each network predicted by a fit to the others. `docs/accuracy.md`
explains the results.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from device_agents.ofa_agent import cores, inputs, runtimes
from ofa_profiler import get_space
from ofa_profiler.export import get_exporter
from ofa_profiler.networks.blocks import Layout, as_graph
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.verification import agreement

ROUNDS = 10
RUNS_PER_VISIT = 5
#: Larger than the private caches of a core, smaller than the shared cache.
EVICTED_BYTES = 8 << 20
PROFILED_NETWORKS = 6
#: Operator of onnxruntime -> group for its time. All others are "elementwise and pooling".
GROUPS = {
    "Conv": "convolutions",
    "Gemm": "fully connected",
    "ReorderInput": "layout reorders",
    "ReorderOutput": "layout reorders",
}

_target = Target()
_exporter = get_exporter(_target)
_runtime = runtimes.find("onnxruntime")({"provider": None, "threads": 1}, True)
_evictor = np.zeros(EVICTED_BYTES // 8)


def build(layout: Layout) -> bytes:
    """The ONNX model of a network or an op, as it is profiled."""
    return _exporter.build(as_graph(layout), repeating_weights(layout), _target, outputs=["output"], metadata={})


class Model:
    """A model and its CPU times in ms: repeated runs (`warm`), and runs after the caches were cleared (`cold`)."""

    def __init__(self, data: bytes, input_shape: Sequence[int]) -> None:
        self.run = _runtime.load(data, inputs.descriptions({"input_shape": list(input_shape)}))
        self.warm: list[list[float]] = []
        self.cold: list[list[float]] = []

    @staticmethod
    def of(network: Op | Layout) -> Model:
        """An op or a network."""
        return Model(build(network), _exporter.inputs(as_graph(network), _target)[0].shape)

    @staticmethod
    def empty() -> Model:
        """A model without computation. Its time is the overhead of a run."""
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, 1, 1)) for name in ("input", "output")]
        graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "e", value[:1], value[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return Model(model.SerializeToString(), (1, 1, 1, 1))

    def visit(self) -> None:
        """Measure one round of warm and cold runs."""
        for _ in range(3):
            self.run()
        self.warm.append([self._one_ms() for _ in range(RUNS_PER_VISIT)])
        self.cold.append([self._cold_one_ms() for _ in range(RUNS_PER_VISIT)])

    def _one_ms(self) -> float:
        begin = time.thread_time_ns()
        self.run()
        return (time.thread_time_ns() - begin) / 1e6

    def _cold_one_ms(self) -> float:
        np.add(_evictor, 1, out=_evictor)
        self.run.bound[0].numpy().sum()  # in a network, the op before has just written its input
        return self._one_ms()


def median_ms(rounds: Sequence[Sequence[float]]) -> float:
    """The median of all samples."""
    return float(np.median(np.concatenate(rounds)))


def profiled_us(layout: Layout) -> Counter[str]:
    """Group -> microseconds per run, from the profiler of onnxruntime: wall times of the faster half of the runs."""
    options = _runtime.ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _runtime.ort.InferenceSession(build(layout), options, providers=["CPUExecutionProvider"])
        values = inputs.values(np, "float32", _exporter.inputs(as_graph(layout), _target)[0].shape, {}, seed=0)
        for _ in range(40):
            session.run(None, {"input": values})
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels: dict[tuple[str, str], list[int]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            kernels.setdefault((event["name"], event["args"]["op_name"]), []).append(event["dur"])
    groups: Counter[str] = Counter()
    for (_, operator), durations in kernels.items():
        fast = sorted(durations[5:])[: (len(durations) - 5) // 2]
        groups[GROUPS.get(operator, "elementwise and pooling")] += float(np.mean(fast))
        groups["nodes"] += 1
    return groups


def errors(name: str, predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> str:
    """Format a line of the first table."""
    ratios = predicted / measured
    scaled = predicted / agreement.ratio(predicted, measured)
    return (
        f"{name:32} {ratios.mean():6.2f} {ratios.min():6.2f} {ratios.max():6.2f}"
        f" {agreement.mape(predicted, measured):8.1%} {agreement.within(predicted, measured, 0.1):10.0%}"
        f" {agreement.spearman(predicted, measured):9.3f} {agreement.mape(scaled, measured):12.1%}"
    )


def left_out_error(features: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """MAPE of least squares on relative errors. Each network is predicted by a fit to the others."""
    relative = features / measured[:, None]
    predictions = []
    for i in range(len(measured)):
        others = np.arange(len(measured)) != i
        weights = np.linalg.lstsq(relative[others], np.ones(len(measured) - 1), rcond=None)[0]
        predictions.append(float(relative[i] @ weights))
    return agreement.mape(predictions, np.ones(len(measured)))


def main() -> None:
    """Measure and print the tables."""
    space = get_space(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    cores.pin(cores.fastest_cores(cores.allowed_cores(), 1))
    cost = AdditiveCost.from_ops(space, lambda op: op.macs)
    layouts = [space.layout(a) for a in draw_spread(space, cost, count, np.random.default_rng(0))[0]]
    ops = {op.key: Model.of(op) for op in dict.fromkeys(op for layout in layouts for _, op in layout)}
    networks, empty = [Model.of(layout) for layout in layouts], Model.empty()
    everything = [*ops.values(), *networks, empty]
    for number in range(ROUNDS):
        for i in np.random.default_rng(number).permutation(len(everything)):
            everything[i].visit()
    measured = np.array([median_ms(network.warm) for network in networks])
    report_ways(space.name, layouts, ops, networks, empty, measured)
    report_groups(layouts)
    report_fits(layouts, ops, measured)


def summed(layouts: Sequence[Layout], ops: dict[str, Model], kind: str) -> NDArray[np.float64]:
    """The sum of the ops of each network."""
    known = {key: median_ms(getattr(model, kind)) for key, model in ops.items()}
    return np.array([sum(known[op.key] for _, op in layout) for layout in layouts])


def report_ways(
    name: str,
    layouts: Sequence[Layout],
    ops: dict[str, Model],
    networks: Sequence[Model],
    empty: Model,
    measured: NDArray[np.float64],
) -> None:
    """Print the error of the sum for each way to measure ops."""
    noise = agreement.mape([median_ms(n.warm[::2]) for n in networks], [median_ms(n.warm[1::2]) for n in networks])
    cold_networks = np.array([median_ms(network.cold) for network in networks])
    print(f"{name}: {len(networks)} networks of {measured.min():.3g} to {measured.max():.3g} ms, {len(ops)} ops")
    print(f"noise {noise:.1%}; networks cold / warm {agreement.ratio(cold_networks, measured):.3f}")
    print(f"\n{'sum of ops / network':32} {'mean':>6} {'min':>6} {'max':>6} {'MAPE':>8} {'within 10%':>10}", end="")
    print(f" {'Spearman':>9} {'MAPE scaled':>12}")
    surplus = np.array([len(layout) - 1 for layout in layouts])
    for kind, words in (("warm", "warm caches"), ("cold", "cold caches")):
        constant = median_ms(getattr(empty, kind))
        plain = summed(layouts, ops, kind)
        print(errors(words, plain, measured))
        print(errors(f"  less {constant * 1e3:.1f} us per session", plain - surplus * constant, measured))


def report_groups(layouts: Sequence[Layout]) -> None:
    """Print the time per group of kernels."""
    chosen = [layouts[i] for i in np.linspace(0, len(layouts) - 1, PROFILED_NETWORKS).astype(int)]
    alone = {op.key: profiled_us(op) for op in dict.fromkeys(op for layout in chosen for _, op in layout)}
    within: Counter[str] = Counter()
    isolated: Counter[str] = Counter()
    for layout in chosen:
        within.update(profiled_us(layout))
        for _, op in layout:
            isolated.update(alone[op.key])
    nodes = within.pop("nodes"), isolated.pop("nodes")
    print(
        f"\nkernels of {len(chosen)} networks, ms: {'in the networks':>16} {'in their ops':>14} {'ops / networks':>15}"
    )
    for group in sorted(within, key=lambda group: -within[group]):
        ratio = isolated[group] / within[group]
        print(f"{group:29} {within[group] / 1e3:17.3f} {isolated[group] / 1e3:14.3f} {ratio:15.2f}")
    print(f"{'all kernels':29} {within.total() / 1e3:17.3f} {isolated.total() / 1e3:14.3f}", end="")
    print(f" {isolated.total() / within.total():15.2f}\n{'nodes':29} {nodes[0]:17.0f} {nodes[1]:14.0f}")


def report_fits(layouts: Sequence[Layout], ops: dict[str, Model], measured: NDArray[np.float64]) -> None:
    """Print the error of fits on top of the sum."""
    features = {
        "sum": summed(layouts, ops, "warm"),
        "constant": np.ones(len(layouts)),
        "ops": np.array([len(layout) for layout in layouts]),
        "parameters": np.array([sum(op.params for _, op in layout) / 1e6 for layout in layouts]),
        "boundaries": np.array([sum(np.prod(op.output_shape) for _, op in layout) / 1e6 for layout in layouts]),
    }
    print("\nMAPE of a fit to (each network is predicted by a fit to the others)")
    for names in (
        ("sum",),
        ("sum", "constant"),
        ("sum", "ops"),
        ("sum", "ops", "parameters"),
        ("sum", "ops", "parameters", "boundaries"),
    ):
        error = left_out_error(np.stack([features[name] for name in names], axis=1), measured)
        print(f"  {' + '.join(names):36} {error:6.1%}")


if __name__ == "__main__":
    main()
