"""Times networks in int8 against fp32: `python benchmarks/precisions.py [SPACE ...] [--networks N]`.

Draws random networks of each space, spread over its range of MACs, and exports each in both precisions, plain and with
every form that the runtime has. All four files and a copy of the plain fp32 one run interleaved in this process; the
copy shows the noise. With one thread, times are CPU times, so other programs count little.

Prints a line per network, and the geometric mean of the gain: the faster fp32 file against the faster int8 file.
"""

from __future__ import annotations

import argparse

import numpy as np
from forms import RUNTIMES, Bench, race

from device_agents.ofa_agent import cores
from ofa_profiler import get_space
from ofa_profiler.protocol.forms import PLAIN
from ofa_profiler.spaces import space_names
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.sampling import draw_spread

PRECISIONS = ("fp32", "int8")


def compare(space_name: str, benches: dict[str, Bench], count: int, rounds: int, runs: int) -> str:
    """Print the networks of one space, and return the row of a Markdown table."""
    space = get_space(space_name)
    cost = AdditiveCost.from_ops(space, lambda op: op.macs)
    gains, noises = [], []
    for architecture in draw_spread(space, cost, count, np.random.default_rng(0))[0]:
        layout = space.layout(architecture)
        models = [
            benches[precision].load(layout, forms)
            for precision in PRECISIONS
            for forms in (PLAIN, benches[precision].fast_forms(layout))
        ]
        times_ms = race([*models, benches["fp32"].load(layout, PLAIN)], rounds, runs)
        fp32_ms, int8_ms = min(times_ms[:2]), min(times_ms[2:4])
        gains.append(fp32_ms / int8_ms)
        noises.append(abs(float(np.log(times_ms[0] / times_ms[-1]))))
        each = ", ".join(f"{ms:.3f}" for ms in times_ms[:4])
        print(f"{space_name:20} {fp32_ms:9.3f} -> {int8_ms:9.3f} ms {gains[-1]:6.3f}x  ({each})", flush=True)
    mean = float(np.exp(np.mean(np.log(gains))))
    runtime = benches["fp32"].target.runtime
    return (
        f"| `{space_name}` | {runtime} | {mean:.2f}x | {min(gains):.2f} to {max(gains):.2f}x "
        f"| {100 * float(np.median(noises)):.1f}% |"
    )


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
    rows = []
    for runtime in arguments.runtime or RUNTIMES:
        benches = {precision: Bench(runtime, arguments.threads, precision) for precision in PRECISIONS}
        rows += [
            compare(space, benches, arguments.networks, arguments.rounds, arguments.runs)
            for space in arguments.spaces or space_names()
        ]
    print("| space | runtime | int8 is faster: geometric mean | over networks | noise |")
    print("| --- | --- | ---: | ---: | ---: |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
