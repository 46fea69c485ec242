"""Error of a table before and after calibration: `python benchmarks/calibration.py --out DIR [--runtime NAME ...]`.

Makes a calibrated table per runtime, space and number of threads, as `ofa-profile` does. Then measures other networks
in a session of its own, interleaved with some that the calibration was fitted to: their times then and now show how
much the device has drifted. Prints a row per cell of the table in docs/accuracy.md. Run again with the same arguments,
it resumes. Cells that fail are listed at the end.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ofa_profiler import Architecture, LatencyTable
from ofa_profiler.devices import Device, open_device
from ofa_profiler.errors import OfaError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.corrections import Regression, Sum
from ofa_profiler.verification import agreement
from ofa_profiler.verification.calibrate import networks_journal, read_networks
from ofa_profiler.verification.networks import network_name
from ofa_profiler.verification.profile import profile
from ofa_profiler.verification.verify import verify

#: Networks of the calibration that are measured again.
_ANCHORS = 12
_HEADER = "| table | plain sum: MAPE | noise | MAPE | within 1% | 2% | 3% | bias | drift | Spearman | minutes |"


def others(table: LatencyTable, space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Draw networks over the latency range that the table was not fitted to."""
    correction = table.correction
    assert isinstance(correction, Regression)
    space = space.with_resolutions(table.resolutions(space))
    rng = np.random.default_rng([seed, 1])
    return draw_spread(space, table.cost(space), count, rng, lambda a: network_name(a) in correction.networks)[0]


def anchors(path: Path) -> tuple[list[Architecture], NDArray[np.float64]]:
    """Return some networks of the calibration, and what was measured of them then."""
    replay = read_networks(networks_journal(path))
    assert replay is not None
    found = replay.measurements()
    listed = map(Architecture.from_json, replay.run.about["networks"]["fitted"])
    usable = [a for a in listed if found[network_name(a)].ok]
    chosen = [usable[i] for i in np.linspace(0, len(usable) - 1, min(_ANCHORS, len(usable))).astype(int)]
    return chosen, np.array([found[network_name(a)].steady_ms() for a in chosen])


def run_cell(device: Device, space: SearchSpace, settings: Settings, arguments: argparse.Namespace) -> str:
    """Make the table of a cell, verify it, and return its row."""
    name = f"{space.name}-{settings.target.runtime}-t{settings.threads}"
    made = profile(device, space, settings, arguments.out, name=name, networks=arguments.calibrate)
    drawn = others(made.table, space, arguments.networks, arguments.seed)
    known, then_ms = anchors(made.path)
    journal = arguments.out / f"{name}-again.jsonl"
    result = verify(made.table, device, architectures=[*drawn, *known], time_limit_s=None, journal=journal)
    measured = {subnet.architecture: subnet.measured_ms for subnet in result.usable}
    pairs = [(measured[a], then) for a, then in zip(known, then_ms, strict=True) if measured.get(a)]
    drift = float(np.exp(np.mean([np.log(now / then) for now, then in pairs])))
    subnets = [subnet for subnet in result.usable if subnet.architecture not in known]
    measured_ms = np.array([subnet.measured_ms for subnet in subnets], dtype=float) / drift
    predicted_ms = np.array([subnet.predicted_ms for subnet in subnets])
    metadata = {**made.table.metadata, "correction": Sum().to_json()}
    plain = LatencyTable(name, made.table.rows, metadata).predict_ms([subnet.architecture for subnet in subnets])
    within = (f"{agreement.within(predicted_ms, measured_ms, limit):.0%}" for limit in (0.01, 0.02, 0.03))
    networks = read_networks(networks_journal(made.path))
    minutes = (made.replay.used_s + (networks.used_s if networks else 0.0)) / 60
    cells = [
        name,
        f"{agreement.mape(plain, measured_ms):.1%}",
        f"{result.noise:.2%}",
        f"{agreement.mape(predicted_ms, measured_ms):.2%}",
        *within,
        f"{agreement.bias(predicted_ms, measured_ms):+.2%}",
        f"{drift - 1:+.2%}",
        f"{agreement.spearman(predicted_ms, measured_ms):.4f}",
        f"{minutes:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run all cells."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and journals")
    parser.add_argument("--space", nargs="+", default=["cifar-mbv3"])
    parser.add_argument("--runtime", nargs="+", default=["onnxruntime", "litert"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--resolution", type=int, nargs="+", help="default: those of the space")
    parser.add_argument("--networks", type=int, default=100, help="networks to verify")
    parser.add_argument("--calibrate", type=int, help="networks to fit; default: as ofa-profile")
    parser.add_argument("--time-limit", type=float, default=720.0, metavar="S", help="seconds for a table")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = []
    print(_HEADER)
    print("| --- " * _HEADER.count(" | ") + "| --- |", flush=True)
    for name in arguments.space:
        space = get_space(name)
        if arguments.resolution:
            space = space.with_resolutions(arguments.resolution)
        for runtime in arguments.runtime:
            for threads in arguments.threads:
                settings = Settings(Target(runtime), threads=threads, time_limit_s=arguments.time_limit)
                try:
                    with open_device("local") as device:
                        print(run_cell(device, space, settings, arguments), flush=True)
                except OfaError as error:
                    failed.append(f"not run: {name}, {runtime}, {threads} threads: {error}")
    print("\n".join(failed), file=sys.stderr, end="\n" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
