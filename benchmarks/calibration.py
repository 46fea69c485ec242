"""Measure tables and networks that they have not seen: `python benchmarks/calibration.py --out DIR [--cell NAME ...]`.

For each cell of `cells.py`: makes a calibrated table, as `ofa-profile` does. Then measures, in a session of its own and
interleaved, 100 random networks over the latency range that the calibration has not seen, 30 networks that a search
finds with the table at 30 budgets, and 12 of the networks that the calibration was fitted to. The times of these then
and now show how much the device has drifted.

Run again with the same arguments, it resumes. `calibration_figures.py` prints what follows from the files.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from cells import Cell, add_cells, chosen_cells, session_journal

from ofa_profiler import Architecture, LatencyTable
from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import OfaError
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.verification.calibrate import networks_journal, read_networks
from ofa_profiler.verification.conditions import settings_of
from ofa_profiler.verification.networks import measure_networks, network_name
from ofa_profiler.verification.profile import profile
from ofa_search import AccuracyPredictor
from ofa_search.artifacts.shipped import shipped_predictor
from ofa_search.searching.api import search_each
from ofa_search.searching.objectives import Macs, Objective, PredictedAccuracy

#: The number of networks of the calibration that are measured again.
_KNOWN = 12


def draw_fresh(table: LatencyTable, space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Networks over the latency range that the table has not seen."""
    networks = table.correction.networks if isinstance(table.correction, Regression) else ()
    rng = np.random.default_rng([seed, 1])
    return draw_spread(space, table.cost(space), count, rng, lambda a: network_name(a) in networks)[0]


def find(table: LatencyTable, space: SearchSpace, count: int, objective: Objective) -> list[Architecture]:
    """The networks that a search finds at budgets over the latency range."""
    cost = table.cost(space)
    budgets_ms = np.linspace(cost.minimum()[0], cost.maximum()[0], count + 2)[1:-1]
    results = search_each(space, [table], [[float(budget)] for budget in budgets_ms], objective)
    return list(dict.fromkeys(result.architecture for result in results))


def known_networks(table_path: Path) -> list[Architecture]:
    """Some of the networks that the calibration was fitted to, from fast to slow."""
    replay = read_networks(networks_journal(table_path))
    assert replay is not None
    found = replay.measurements()
    listed = map(Architecture.from_json, replay.run.about["networks"]["fitted"])
    usable = [a for a in listed if found[network_name(a)].ok]
    return [usable[i] for i in np.linspace(0, len(usable) - 1, min(_KNOWN, len(usable))).astype(int)]


def choose_networks(cell: Cell, table: LatencyTable, arguments: argparse.Namespace) -> dict[str, list[Architecture]]:
    """The networks of the second session."""
    space = cell.search_space()
    space = space.with_resolutions(table.resolutions(space))
    given = arguments.predictor if arguments.predictor_space == cell.space else None
    predictor = given or shipped_predictor(cell.space)
    objective = PredictedAccuracy(AccuracyPredictor.load(predictor)) if predictor else Macs()
    assert table.path is not None
    return {
        "fresh": draw_fresh(table, space, arguments.networks, arguments.seed),
        "found": find(table, space, arguments.found, objective),
        "known": known_networks(table.path),
    }


def run_cell(device: Device, cell: Cell, arguments: argparse.Namespace) -> None:
    """Make the table of a cell, and measure the networks of its second session."""
    space, settings = cell.search_space(), cell.settings(arguments.time_limit)
    made = profile(device, space, settings, arguments.out, name=cell.name, networks=arguments.calibrate)
    print(f"{cell.name}: table ready", flush=True)
    journal = session_journal(made.path)
    before = read_networks(journal) if journal.exists() else None
    if before is None:
        chosen = choose_networks(cell, made.table, arguments)
        listed = {name: [a.to_json() for a in some] for name, some in chosen.items()}
    else:
        listed = before.run.about["networks"]
    if before is None or before.end is None:
        architectures = list(dict.fromkeys(Architecture.from_json(data) for some in listed.values() for data in some))
        settings, about = replace(settings_of(made.table), time_limit_s=arguments.session_limit), {"networks": listed}
        measure_networks(made.table, device, space, architectures, settings, about=about, journal=journal)
    print(f"{cell.name}: {sum(map(len, listed.values()))} networks measured", flush=True)


def main() -> int:
    """Measure all chosen cells; go on after a cell that fails."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add_cells(parser)
    parser.add_argument("--core", type=int, nargs="+", help="cores to measure on, for cells with so many threads")
    parser.add_argument("--predictor", type=Path, help="accuracy predictor of --predictor-space")
    parser.add_argument("--predictor-space", default="ofa-mbv3-w1.2")
    parser.add_argument("--time-limit", type=float, default=720.0, metavar="S", help="seconds for a table")
    parser.add_argument("--session-limit", type=float, metavar="S", help="seconds for the second session")
    parser.add_argument("--calibrate", type=int, help="networks to fit; default: as ofa-profile")
    parser.add_argument("--networks", type=int, default=100, help="random networks that the table has not seen")
    parser.add_argument("--found", type=int, default=30, help="budgets of the search")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for cell in chosen_cells(arguments):
        cores = tuple(arguments.core) if arguments.core and len(arguments.core) == cell.threads else None
        try:
            with open_device("local", DeviceOptions(cores=cores)) as device:
                run_cell(device, cell, arguments)
        except OfaError as error:
            failed = True
            print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
