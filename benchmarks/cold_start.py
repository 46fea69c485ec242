"""Time and memory of `ofa-search --no-export` beside its engine: `python benchmarks/cold_start.py`.

Each run is a process of its own, started from this small one, and is accounted by the operating system. Beside the
engine are the start of Python, all imports, tables and predictor, the bound (`docs/search.md`), and the answer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

# Only the standard library: the memory of a parent would count for its children.
_ROOT = Path(__file__).parents[1]
_TABLE = _ROOT / "latency_tables" / "epyc-cifar-mbv3-onnxruntime-fp32-t1.csv"
#: The command with clocks; the last line on stderr has the seconds of engine and bound, and those of the processor.
_COMMAND = """
import sys
from ofa_profiler.cli.start import imported
main = imported("ofa_search.cli.search").main
import time
from ofa_search.searching import api
prove, solve, spent = api.prove, api._Rows.solve, dict.fromkeys(("bound", "engine", "cpu"), 0.0)
def timed(*arguments):
    began = time.perf_counter()
    bound = prove(*arguments)
    spent["bound"] += time.perf_counter() - began
    return bound
def solved(*arguments, **options):
    began = time.process_time()
    found = solve(*arguments, **options)
    spent["cpu"] += time.process_time() - began
    spent["engine"] += found.result.search_seconds
    return found
api.prove, api._Rows.solve = timed, solved
code = main(sys.argv[1:])
print(spent["engine"], spent["bound"], spent["cpu"], file=sys.stderr)
sys.exit(code)
"""


class Run(NamedTuple):
    """Seconds and bytes of a process."""

    wall_s: float
    beside_cpu_s: float
    engine_s: float
    bound_s: float
    peak_bytes: int

    @property
    def beside_s(self) -> float:
        """What is neither engine nor bound."""
        return self.wall_s - self.engine_s - self.bound_s


def run(arguments: list[str]) -> Run:
    """One search in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, "-c", _COMMAND, *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - began
    if child.returncode:
        raise SystemExit(said)
    engine_s, bound_s, cpu_s = map(float, said.splitlines()[-1].split())
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall_s, usage.ru_utime + usage.ru_stime - cpu_s, engine_s, bound_s, usage.ru_maxrss * unit)


def spread(values: list[float], unit: str, digits: int = 2) -> str:
    """Median, lowest and highest."""
    return f"{median(values):.{digits}f} {unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="default: %(default)s")
    parser.add_argument("arguments", nargs="*", help="of ofa-search, after --; default: a table of this repository")
    given = parser.parse_args()
    arguments = given.arguments or ["--lut", str(_TABLE), "--budget", "0.7ms"]
    run([*arguments, "--no-export", "--json"])  # fills the caches of the system
    runs = [run([*arguments, "--no-export", "--json"]) for _ in range(given.runs)]
    print(f"beside engine and bound: {spread([each.beside_s for each in runs], 's')}")
    print(f"processor time of that: {spread([each.beside_cpu_s for each in runs], 's')}")
    print(f"engine: {spread([each.engine_s for each in runs], 's')}")
    print(f"bound: {spread([each.bound_s for each in runs], 's')}")
    print(f"peak memory: {spread([each.peak_bytes / 1e6 for each in runs], 'MB', 1)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
