"""Measures the ops of a space twice on this machine, and compares both tables: `python benchmarks/repeat.py --out DIR`.

`--load` runs another program on a measuring core during the second measurement. Two tables should differ by at most 3%
in the median op, or the second one should say that it is noisy, and why. An interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from device_agents.ofa_agent.cores import allowed_cores, fastest_cores
from ofa_profiler import LatencyTable, get_space
from ofa_profiler.base.units import parse_duration_ms
from ofa_profiler.devices import open_device
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.measuring.profile import profile
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import runtimes

#: Computes on one core for a share of the time, in slices of random length (up to 40 ms a period). It takes the highest
#: priority that it may have, because the agent does.
_LOAD = """
import os, random, sys, time
sys.path.insert(0, {root!r})
from device_agents.ofa_agent.cores import pin, raise_priority
raise_priority()
pin([{core}])
print("runs", flush=True)
while True:
    period_s = random.uniform(0.002, 0.04)
    ends = time.monotonic() + {share} * period_s
    while time.monotonic() < ends:
        pass
    time.sleep({idle} * period_s)
"""
_ROOT = str(Path(__file__).parents[1])


@contextmanager
def load(core: int, share: float) -> Iterator[None]:
    """Another program on a core, for a share of the time."""
    code = _LOAD.format(root=_ROOT, core=core, share=share, idle=1 - share)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as program:
        try:
            assert program.stdout is not None
            program.stdout.readline()
            yield
        finally:
            program.kill()


def describe(table: LatencyTable) -> str:
    """The verdict of a table, and what it follows from."""
    sampling, found = table.metadata["sampling"], table.stability
    others = sampling.get("others_share")
    facts = [
        f"rounds {sampling['visits'] / len(table.rows):.1f}",
        f"repeated after drift {sampling.get('repeated', 0)}",
        f"disturbed {sampling.get('disturbed', 'unknown')}, kept {sampling.get('kept_disturbed', 'unknown')}",
        f"others {'unknown' if others is None else f'{others:.1%}'}",
    ]
    verdict = "unknown" if found is None else f"{found.verdict}: {found}"
    return f"{table.name}: {verdict} ({'; '.join(facts)})"


def compare(first: LatencyTable, second: LatencyTable) -> str:
    """How much the ops of two tables differ."""
    before = {row.op: row.median_ms for row in first.rows if row.median_ms}
    ratios = np.array([row.median_ms / before[row.op] for row in second.rows if row.median_ms and row.op in before])
    off = np.abs(ratios - 1)
    return (
        f"{len(off)} ops: median difference {np.median(off):.2%}, 90% of them below {np.quantile(off, 0.9):.2%}, "
        f"{np.mean(off > 0.05):.1%} above 5%; all together {np.exp(np.log(ratios).mean()) - 1:+.2%}"
    )


def seconds(text: str) -> float:
    """Parse a duration like `9m`, for argparse."""
    return parse_duration_ms(text) / 1e3


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Two tables of the ops of this machine, compared.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables `first` and `second`")
    parser.add_argument("--space", default="cifar-mbv3")
    parser.add_argument("--resolution", type=int, action="append", help="default: those of the space")
    parser.add_argument("--runtime", choices=sorted(runtimes()), default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", help="comma-separated list; default: the fastest ones")
    parser.add_argument("--time-limit", type=seconds, default=540.0, help="for each table (default 9m)")
    parser.add_argument("--pause", type=seconds, default=0.0, help="between the tables, for example 1h")
    parser.add_argument("--load", type=float, nargs="?", const=0.3, default=0.0, metavar="SHARE", help="default 0.3")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark and print its figures."""
    arguments = parse_arguments()
    fastest = fastest_cores(allowed_cores() or [0], arguments.threads)
    cores = tuple(map(int, arguments.cores.split(","))) if arguments.cores else tuple(fastest)
    space = get_space(arguments.space)
    space = space.with_resolutions(arguments.resolution) if arguments.resolution else space
    settings = Settings(Target(arguments.runtime), threads=arguments.threads, time_limit_s=arguments.time_limit)
    tables = []
    for name, share in (("first", 0.0), ("second", arguments.load)):
        if name == "second" and not (arguments.out / "second.jsonl").exists():
            time.sleep(arguments.pause)
        busy = load(cores[0], share) if share else nullcontext()
        with open_device("local", DeviceOptions(cores=cores)) as device, busy:
            tables.append(profile(device, space, settings, arguments.out, name=name).table)
        print(describe(tables[-1]), flush=True)
    print(compare(*tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
