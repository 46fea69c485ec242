"""Profile this machine, search under a budget, export the network and measure it.

    python examples/quickstart.py [--out out/quickstart]

It prints each command, runs it, and prints a summary at the end. After an interruption, run it again to resume.

Exit code: 0 if all steps ran, even if the network is slower than its budget (the summary reports it: the error
of a table can be larger than the margin to the budget); the exit code of a command that failed; 130 after Ctrl-C,
143 after SIGTERM.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # before the other imports, which take a while: Ctrl-C and SIGTERM end it quietly
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda number, _: os._exit(128 + number))

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.base.units import format_count
from ofa_search.artifacts.shipped import shipped_predictor

SPACE = "cifar-mbv3"
NAME = "this-machine"
#: Position of the budget between the fastest and the slowest architecture of the space.
BUDGET_AT = 0.6
OVER_BUDGET, INTERRUPTED, TERMINATED = 5, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM. Unlike Ctrl-C of a terminal, the command does not receive it."""


def terminate(_number: int, _frame: FrameType | None) -> None:
    """Raise `Terminated`, as a handler of SIGTERM."""
    raise Terminated


class StepError(Exception):
    """A command failed, and the quickstart ends."""

    def __init__(self, code: int) -> None:
        self.code = code


def run(command: str, *arguments: object, allowed: Sequence[int] = (0,)) -> None:
    """Print a command and run it. It must be installed beside this interpreter. Raises `StepError`."""
    found = shutil.which(command, path=str(Path(sys.executable).parent))
    if found is None:
        print(f"{command} is not installed beside {sys.executable}; run `make quickstart`", file=sys.stderr)
        raise StepError(2)
    words = [found, *map(str, arguments)]
    print(f"\n$ {shlex.join([_short(found), *words[1:]])}", flush=True)
    process = subprocess.Popen(words)
    try:
        code = process.wait()
    except Terminated:
        process.terminate()
        code = process.wait() or TERMINATED
    except KeyboardInterrupt:
        code = process.wait() or INTERRUPTED  # the command receives Ctrl-C too, and reports what it keeps
    if code not in allowed:
        raise StepError(code)


def _short(path: str) -> str:
    """The path relative to the current folder."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def go(out: Path, resolution: str | None, time_limit: str) -> None:
    """Run all steps; files go to `out`."""
    csv = out / f"{NAME}.csv"
    at = ["--resolution", resolution] if resolution else []
    run(
        "ofa-profile", "--device", "local", "--space", SPACE, *at, "--time-limit", time_limit,
        "--name", NAME, "--out", out,
    )  # fmt: skip
    table = LatencyTable.load(csv)
    space = get_space(SPACE).with_resolutions(table.resolutions(get_space(SPACE)))
    fastest_ms, slowest_ms = table.cost(space).minimum()[0], table.cost(space).maximum()[0]
    budget_ms = fastest_ms + BUDGET_AT * (slowest_ms - fastest_ms)
    maximised = [] if shipped_predictor(SPACE) else ["--predictor", "macs"]
    run(
        "ofa-search", "--lut", csv, "--budget", f"{budget_ms:.4g}ms", *maximised, "--verify", "local", "--out", out,
        allowed=(0, OVER_BUDGET),
    )  # fmt: skip
    result = json.loads((out / "search.json").read_text(encoding="utf-8"))["results"][0]
    sum_up(out, table, (fastest_ms, slowest_ms), result)


def sum_up(out: Path, table: LatencyTable, range_ms: tuple[float, float], result: dict[str, Any]) -> None:
    """Print the summary, including bad results."""
    about, checked = table.metadata, table.metadata["validation"]
    predicted_ms, budget_ms = result["latency_ms"][NAME], result["budget_ms"][NAME]
    measured_ms = result["measured_latency_ms"][NAME]
    depths = " ".join(str(stage["depth"]) for stage in result["architecture"]["stages"])
    over = measured_ms / budget_ms - 1
    rows = {
        "device": f"{about['device']['model']}, {about['runtime']} {about['runtime_version']}, "
        f"{about['precision']}, threads: {about['threads']}",
        "table": f"{len(table.rows)} ops of {SPACE}; its networks take {range_ms[0]:.3g} to {range_ms[1]:.3g} ms",
        "error of the table": f"{checked['mape']:.1%} on average over {checked['subnets']} whole networks "
        f"({checked['within_3pct']:.0%} within 3%, rank correlation {checked['spearman']:.3f})",
        "budget": f"{budget_ms:.4g} ms, {BUDGET_AT:.0%} of the way from the fastest to the slowest network",
        "network found": f"resolution {result['architecture']['resolution']}, depths {depths}, "
        f"{format_count(result['macs'])} MACs, {format_count(result['params'])} parameters",
        "predicted latency": f"{predicted_ms:.4g} ms",
        "measured latency": f"{measured_ms:.4g} ms, "
        + (f"over the budget by {over:.1%}" if over > 0 else f"within the budget ({-over:.1%} below)"),
        "predicted accuracy": _accuracy(result),
        "weights": "trained, with their own BatchNorm statistics"
        if result["weights"] == "trained"
        else "untrained: for timing only",
    }
    summary = Table(title="Summary", title_justify="left", show_header=False)
    for name, words in rows.items():
        summary.add_row(name, words)
    console = Console(soft_wrap=False)
    console.print()
    console.print(summary)
    ratio = checked.get("ratio")
    if over > 0 and ratio:
        print(
            f"Reason: whole networks take {1 / ratio:.2f} times as long as this table predicts.\n"
            f"A budget of {budget_ms * ratio:.3g} ms by the table means about {budget_ms:.3g} ms on the device."
        )
    print(f"The files are in {out}:")
    models = {kind: Path(path).name for kind, path in result["files"].items()}
    files = {
        f"{NAME}.csv": "the latency table; .json: device and settings, .jsonl: every sample",
        f"{NAME}-networks.jsonl": "every sample of the networks that calibrated and validated the table",
        "search.json": "the search result, as printed by `ofa-search --json`",
        models["onnx"]: "the network for onnxruntime; .json: its architecture",
        models["tflite"]: "the same network for LiteRT (TFLite)",
    }
    for name, words in files.items():
        if (out / name).exists():  # without matplotlib there is no plot
            print(f"  {name:26s} {words}")


def _accuracy(result: dict[str, Any]) -> str:
    if result["predicted_accuracy"] is None:
        return f"none: MACs were maximised, because this version contains no predictor for {SPACE}"
    learned_from = result["accuracy"]["predictor"]["learned_from"]
    return f"{result['predicted_accuracy']:.1%} top-1, learned from {learned_from}"


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out") / "quickstart", help="folder for the results (default: %(default)s)"
    )
    parser.add_argument(
        "--resolution", metavar="R[,R...]", help="input resolutions in pixels (default: those of the space)"
    )
    parser.add_argument("--time-limit", default="100s", help="time limit of profiling (default: %(default)s)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    try:
        go(arguments.out, arguments.resolution, arguments.time_limit)
    except StepError as stopped:
        again = "; run the same command again to resume" if stopped.code in (INTERRUPTED, TERMINATED) else ""
        print(f"the quickstart stops here (exit code {stopped.code}){again}", file=sys.stderr)
        return stopped.code
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
