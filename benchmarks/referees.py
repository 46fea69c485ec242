"""Profiles models that no one here made, and times each network with a plain loop beside it.

    python benchmarks/referees.py [--only magika,ppocr-cls] [--time-limit 60s] [--json]

For each model: blocks, the sum of the blocks against the network, the share of the runtime's own per-node time that is
in the blocks (asked: sum within 10%, share at least 95%), and our median of the network against that of a plain loop of
`session.run` or `interpreter.invoke` in a process of its own (asked: at most 3% apart). The loop runs on the same core,
once before each of `--rounds` measurements and once after, so both meet the same machine. The models come from the
Python package index (`tests/support/referees.py`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.referees import REFEREES, Referee  # noqa: E402

from device_agents.ofa_agent.cores import allowed_cores, fastest_cores  # noqa: E402
from ofa_profiler import profile  # noqa: E402
from ofa_profiler.base.units import parse_duration_ms  # noqa: E402
from ofa_profiler.models.base import Array, UserModel  # noqa: E402
from ofa_profiler.models.sources import open_source  # noqa: E402

#: A user's own script: load, warm up, time single runs, print their median in milliseconds.
_LOOP = """
import os, statistics, sys, time
import numpy as np
os.sched_setaffinity(0, [int(sys.argv[3])])
path, feeds = sys.argv[1], dict(np.load(sys.argv[2]))
if path.endswith(".onnx"):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, feeds)
else:
    from ai_edge_litert.interpreter import Interpreter
    interpreter = Interpreter(model_path=path, num_threads=1)
    for each in interpreter.get_input_details():
        interpreter.resize_tensor_input(each["index"], feeds[each["name"]].shape)
    interpreter.allocate_tensors()
    for each in interpreter.get_input_details():
        interpreter.set_tensor(each["index"], feeds[each["name"]])
    run = interpreter.invoke
for end in (0.3, float(sys.argv[4])):
    times, deadline = [], time.perf_counter() + end
    while time.perf_counter() < deadline or len(times) < 5:
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1e6)
print(statistics.median(times))
"""


@dataclass(frozen=True)
class Result:
    """What became of one model; milliseconds."""

    name: str
    runtime: str
    blocks: int
    whole_ms: float
    sum_ms: float
    named_share: float | None
    loop_ms: float

    def __str__(self) -> str:
        named = "" if self.named_share is None else f"{self.named_share:.1%}"
        return (
            f"| {self.name} | {self.runtime} | {self.blocks} | {self.whole_ms:.4g} | "
            f"{self.sum_ms / self.whole_ms - 1:+.1%} | {named} | {self.whole_ms / self.loop_ms - 1:+.1%} |"
        )


def loop_ms(model: UserModel, feeds: dict[str, Array], folder: Path, seconds: float) -> float:
    """The median of a plain loop in a process of its own."""
    np.savez(folder / "feeds.npz", **feeds)
    (core,) = fastest_cores(allowed_cores(), 1)
    command = [sys.executable, "-c", _LOOP, str(model.path), str(folder / "feeds.npz"), str(core), str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(referee: Referee, rounds: int, limit_s: float) -> Result:
    """Profile a model `rounds` times, with the loop in between."""
    arrays = {name: np.asarray(value) for name, value in referee.arrays.items()}
    whole, sums, loops = [], [], []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        model, feeds = open_source(referee.path, folder, referee.shapes, arrays or None)
        loops.append(loop_ms(model, feeds, folder, 2.0))
        for number in range(rounds):
            np.savez(folder / "in.npz", **feeds)
            found = profile(model=referee.path, inputs=feeds, out=folder / str(number), time_limit_s=limit_s)
            loops.append(loop_ms(model, feeds, folder, 2.0))
            whole.append(found.table.metadata["whole_ms"])
            sums.append(found.table.metadata["sum_ms"])
        profiled = found.table.metadata["runtime_profile"]
        return Result(
            referee.name,
            model.runtime,
            len(found.table.rows),
            statistics.median(whole),
            statistics.median(sums),
            profiled["named_share"] if profiled else None,
            statistics.median(loops),
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names of models, separated by commas (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="times that each model is profiled (default: 1)")
    parser.add_argument("--time-limit", default="60s", help="of each profile (default: 60s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document in place of a table")
    arguments = parser.parse_args(argv)
    names = arguments.only.split(",") if arguments.only else list(REFEREES)
    results = []
    if not arguments.json:
        print("| model | runtime | blocks | network, ms | sum of blocks | in blocks | against a plain loop |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        results.append(measure(REFEREES[name], arguments.rounds, parse_duration_ms(arguments.time_limit) / 1e3))
        if not arguments.json:
            print(results[-1], flush=True)
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=2))


if __name__ == "__main__":
    main()
