"""The cells of `calibration.py`: what a table is made of, and the files in which a cell is measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler import Architecture, LatencyTable
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.steady import SteadyTime, noise_of, steady_times
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.verification.calibrate import calibrated, networks_journal, read_networks
from ofa_profiler.verification.networks import network_name

RUNTIMES = ("onnxruntime", "litert")


@dataclass(frozen=True)
class Cell:
    """A table: space, runtime, threads, resolutions (none: all of the space) and batch."""

    space: str
    runtime: str
    threads: int = 1
    resolutions: tuple[int, ...] = ()
    batch: int = 1

    @property
    def name(self) -> str:
        """The name of its table."""
        sizes = "".join(f"-{resolution}" for resolution in self.resolutions)
        return f"{self.space}{sizes}-{self.runtime}-t{self.threads}" + (f"-b{self.batch}" if self.batch > 1 else "")

    def search_space(self) -> SearchSpace:
        """The space at its resolutions."""
        space = get_space(self.space)
        return space.with_resolutions(self.resolutions) if self.resolutions else space

    def settings(self, time_limit_s: float) -> Settings:
        """The settings of its table."""
        target = Target(self.runtime, batch=self.batch)
        return Settings(target, threads=self.threads, time_limit_s=time_limit_s)


#: All cells, the most important ones first.
CELLS = (
    *(Cell(space, runtime) for space in ("cifar-mbv3", "ofa-mbv3-w1.2") for runtime in RUNTIMES),
    *(Cell(space, runtime, threads=2) for space in ("cifar-mbv3", "ofa-mbv3-w1.2") for runtime in RUNTIMES),
    *(
        Cell(space, runtime, resolutions=(160, 224))
        for space in ("ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50")
        for runtime in RUNTIMES
    ),
    *(Cell("cifar-mbv3", runtime, batch=8) for runtime in RUNTIMES),
)


def add_cells(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose cells."""
    parser.add_argument("--out", type=Path, required=True, help="folder of tables and journals")
    parser.add_argument(
        "--cell", nargs="+", default=["*"], metavar="PATTERN", help="only these cells: names with wildcards"
    )
    parser.add_argument("--resolution", type=int, nargs="+", help="instead of those of the cells")


def chosen_cells(arguments: argparse.Namespace) -> list[Cell]:
    """The cells of `add_cells`."""
    chosen = [cell for cell in CELLS if any(fnmatchcase(cell.name, pattern) for pattern in arguments.cell)]
    if arguments.resolution:
        chosen = list(dict.fromkeys(replace(cell, resolutions=tuple(arguments.resolution)) for cell in chosen))
    return chosen


@dataclass(frozen=True)
class Networks:
    """Measured networks of a session: architectures, milliseconds, and the noise (even against odd rounds)."""

    architectures: tuple[Architecture, ...]
    ms: NDArray[np.float64]
    noise: float


@dataclass(frozen=True)
class Measured:
    """What was measured of a cell."""

    table: LatencyTable
    #: The journals of the ops, and of the networks of the calibration.
    ops: Replay
    networks: Replay
    #: Networks that the calibration was fitted to.
    fitted: Networks
    #: Networks that the table has not seen. The drift is taken out of their times.
    fresh: Networks
    #: Networks that a search found with the table; likewise.
    found: Networks
    #: Measured now / then, of a network with the geometric mean of the latencies.
    drift: float


def session_journal(table_path: Path) -> Path:
    """The journal of the networks of a cell that were measured in a session after that of its table."""
    return table_path.with_name(f"{table_path.stem}-again.jsonl")


def op_ms(table: LatencyTable, resolution: int | None, op: Op) -> float:
    """The milliseconds of an isolated op."""
    return table.latency_ms(op, resolution)


def session_times(replay: Replay, rounds: int | None = None) -> dict[str, SteadyTime]:
    """The times of the networks of a journal, after so many rounds. The journal may hold ops, too."""
    listed = (Architecture.from_json(data) for some in replay.run.about["networks"].values() for data in some)
    names = set(map(network_name, listed))
    found = [m for key, m in replay.measurements().items() if key in names]
    return steady_times(replace(measurement, rounds_ms=measurement.rounds_ms[:rounds]) for measurement in found)


def networks_of(replay: Replay, listed: Sequence[Any]) -> Networks:
    """The usable ones of some networks of a journal, as its first line lists them."""
    times = session_times(replay)
    named = {network_name(architecture): architecture for architecture in map(Architecture.from_json, listed)}
    usable = {name: a for name, a in named.items() if name in times}
    noise = noise_of(times[name] for name in usable)
    return Networks(tuple(usable.values()), np.array([times[name].ms for name in usable]), noise)


def read_cell(out: Path, cell: Cell) -> Measured | None:
    """What was measured of a cell in the folder `out`; None if that is not complete."""
    path = out / f"{cell.name}.csv"
    journals = (path.with_suffix(".jsonl"), networks_journal(path), session_journal(path))
    replays = [read_networks(journal) if journal.exists() else None for journal in journals]
    if not path.exists() or any(replay is None or replay.end is None for replay in replays):
        return None
    ops, networks, again = (replay for replay in replays if replay is not None)
    listed = again.run.about["networks"]
    fitted = networks_of(networks, networks.run.about["networks"]["fitted"])
    then = dict(zip(fitted.architectures, fitted.ms, strict=True))
    known = networks_of(again, listed["known"])
    pairs = [(then[a], ms) for a, ms in zip(known.architectures, known.ms, strict=True) if a in then]
    fresh, found = (networks_of(again, listed[name]) for name in ("fresh", "found"))
    slope, level = drift_line(*np.log(pairs).T)
    fresh, found = (
        Networks(some.architectures, np.exp((np.log(some.ms) - level) / (1 + slope)), some.noise)
        for some in (fresh, found)
    )
    middle = float(np.log(fresh.ms).mean())
    table = calibrated(LatencyTable.load(path), networks, journals[1]).table
    return Measured(table, ops, networks, fitted, fresh, found, float(np.exp(level + slope * middle)))


def read_cells(arguments: argparse.Namespace) -> dict[Cell, Measured | None]:
    """The cells of `add_cells`, with what was measured of them."""
    return {cell: read_cell(arguments.out, cell) for cell in chosen_cells(arguments)}


def halves(networks: Networks) -> tuple[Networks, Networks]:
    """Every second network, and the others. A draw is sorted by latency."""
    first, second = (Networks(networks.architectures[i::2], networks.ms[i::2], networks.noise) for i in (0, 1))
    return first, second


def drift_line(then: NDArray[np.float64], now: NDArray[np.float64]) -> tuple[float, float]:
    """Logarithms of latencies in two sessions -> slope and level of now - then against then.

    Other load changes large networks by another factor than small ones.
    """
    slope, level = np.polyfit(then, now - then, 1)
    return float(slope), float(level)
