"""Do networks keep their budgets? `python benchmarks/budgets.py --lut TABLE.csv --out DIR [--budgets 20] [--core N]`.

Runs `ofa-search` with and without `--verify local` at budgets over the latency range of a table of this machine, one
command each. Then times all exported files, interleaved in random order, by a loop of its own that knows only the
files. A network overshoots if it is slower than its budget by more than the noise: the mean difference between the even
and the odd rounds. The accuracy that `--verify` costs is that of the predictions.

Run again with the same arguments, it resumes after the searches that are done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ofa_profiler import LatencyTable, get_space

ROUNDS, VISIT_S = 30, 0.04


@dataclass
class Timed:
    """An exported file, what its search said, and its times."""

    budget_ms: float
    is_verified: bool
    result: dict[str, Any]
    run: Callable[[], object]
    rounds_ms: list[float] = field(default_factory=list)

    def visit(self) -> None:
        """One round: the median of runs for 40 ms, at least 7."""
        self.run()
        times, end = [], time.perf_counter() + VISIT_S
        while len(times) < 7 or time.perf_counter() < end:
            begin = time.perf_counter()
            self.run()
            times.append(1e3 * (time.perf_counter() - begin))
        self.rounds_ms.append(float(np.median(times)))

    def ms(self, start: int = 0, step: int = 1) -> float:
        """The lower quartile of the rounds."""
        return float(np.quantile(self.rounds_ms[start::step], 0.25))


def _run_bound(session: Any, binding: Any, _value: Any) -> None:
    """Run a session. A binding does not keep its values, so they are an argument."""
    session.run_with_iobinding(binding)


def runner(path: Path, threads: int) -> Callable[[], object]:
    """A function that runs a model file once."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        taken = session.get_inputs()[0]
        image = np.random.default_rng(0).random(taken.shape, dtype=np.float32)
        # `session.run` copies the image and makes arrays: 3 us that are not the network's.
        value, binding = onnxruntime.OrtValue.ortvalue_from_numpy(image), session.io_binding()
        binding.bind_ortvalue_input(taken.name, value)
        binding.bind_output(session.get_outputs()[0].name)
        return partial(_run_bound, session, binding, value)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    taken = interpreter.get_input_details()[0]
    interpreter.set_tensor(taken["index"], np.random.default_rng(0).random(taken["shape"], dtype=np.float32))
    return interpreter.invoke


def searched(arguments: argparse.Namespace, budget_ms: float, *, verified: bool) -> tuple[dict[str, Any], Path] | None:
    """The result of one command and its folder; None if it found no network."""
    out = arguments.out / f"{budget_ms:.4g}ms{'-verified' * verified}"
    if not (out / "search.json").exists():
        command = [sys.executable, "-m", "ofa_search.cli.search", "--lut", str(arguments.lut), "--out", str(out)]
        command += ["--budget", f"{budget_ms:.6g}ms", *(["--verify", "local"] if verified else [])]
        command += [] if arguments.core is None or not verified else ["--cores", ",".join(map(str, arguments.core))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{out.name}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}", flush=True)
            return None
    return json.loads((out / "search.json").read_text())["results"][0], out


def report(files: list[Timed]) -> None:
    """Print overshoots and accuracies."""
    noise = float(np.mean([abs(file.ms(0, 2) / file.ms(1, 2) - 1) for file in files]))
    print(
        "| budget (ms) | timed: predicted | timed: verified | accuracy: predicted | accuracy: verified |\n"
        + "| --- " * 5
        + "|"
    )
    pairs = {file.budget_ms: [other for other in files if other.budget_ms == file.budget_ms] for file in files}
    for budget_ms, both in pairs.items():
        off = [f"{file.ms() / budget_ms - 1:+.1%}" for file in both]
        accuracies = [f"{file.result['predicted_accuracy'] or 0:.2%}" for file in both]
        print(f"| {budget_ms:.4g} | {' | '.join([*off, *accuracies])} |")
    for is_verified, words in ((False, "predicted"), (True, "verified")):
        chosen = [file for file in files if file.is_verified == is_verified]
        over = [file for file in chosen if file.ms() > file.budget_ms * (1 + noise)]
        worst = max(file.ms() / file.budget_ms - 1 for file in chosen)
        print(
            f"{words}: {len(over)} of {len(chosen)} over the budget by more than the noise ({noise:.1%}); "
            f"the worst is {worst:+.1%} off"
        )
    accuracy = [[f.result["predicted_accuracy"] or 0.0 for f in files if f.is_verified is v] for v in (False, True)]
    print(f"accuracy that --verify costs: {100 * (np.mean(accuracy[0]) - np.mean(accuracy[1])):.2f} points")


def main() -> int:
    """Search, time, and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--lut", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--core", type=int, nargs="+", help="cores to measure on")
    arguments = parser.parse_args()
    table = LatencyTable.load(arguments.lut)
    space = get_space(table.spaces[0])
    cost = table.cost(space.with_resolutions(table.resolutions(space)))
    lowest, highest = cost.minimum()[0], cost.maximum()[0]
    suffix = {"onnxruntime": ".onnx", "litert": ".tflite"}[table.metadata["runtime"]]
    files: list[Timed] = []
    for budget_ms in np.geomspace(1.1 * lowest, 0.9 * highest, arguments.budgets):
        both = [searched(arguments, float(budget_ms), verified=verified) for verified in (False, True)]
        if all(both):
            for verified, (result, out) in zip((False, True), filter(None, both), strict=True):
                (path,) = out.glob(f"*{suffix}")
                files.append(Timed(float(budget_ms), verified, result, runner(path, table.metadata["threads"])))
    if arguments.core:
        os.sched_setaffinity(0, arguments.core)
    rng = random.Random(0)
    for _ in range(ROUNDS):
        for file in rng.sample(files, len(files)):
            file.visit()
    report(files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
