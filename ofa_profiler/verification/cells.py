"""Several cells on one device: a table each, measured in turns, and a matrix that compares them.

    outcomes = measure_cells(device, cells, name, measure)         # `measure` makes the table of one cell
    compare_cells(cells, outcomes, name, out)                      # NAME-matrix.csv

`profile_cells` does both for a search space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ofa_profiler.base.parallel import Check, run_all
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import OfaError, UsageError
from ofa_profiler.measuring.cells import Cell, common_settings, too_many_threads
from ofa_profiler.measuring.joint_progress import JointProgress
from ofa_profiler.measuring.naming import table_name
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.turns import TakingTurns, Turns
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.matrix import MatrixRow, compute_matrix, save_matrix, unmeasured_row
from ofa_profiler.tables.mixed import MixedTable
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.like import profile_like
from ofa_profiler.verification.mixed import MixedCalibration, calibrate_mixed
from ofa_profiler.verification.profile import count_networks, networks_limit_s, profile

#: Measures one cell: the cell, the device, the name of its table, and where progress goes. Raises `OfaError`.
MeasureCell = Callable[[Cell, Device, str, Reporter], Profile]
#: What became of each cell, by its label.
Outcomes = Mapping[str, Profile | OfaError]


@dataclass(frozen=True)
class Comparison:
    """What became of each cell, and the comparison of those that have a table.

    `matrix` has a row with the reason for each cell without a table. If no cell has one, it is empty, and no file is
    written.
    """

    outcomes: Outcomes
    matrix: tuple[MatrixRow, ...]
    #: `NAME-matrix.csv`.
    path: Path
    #: By runtime and threads (`Cell.pair`): the calibration of networks in mixed precision, or its error.
    pairs: Mapping[str, MixedCalibration | OfaError] = field(default_factory=dict)

    @property
    def mixed(self) -> MixedCalibration | OfaError | None:
        """The first calibration of networks in mixed precision, or its error; None without one."""
        return next(iter(self.pairs.values()), None)

    @property
    def profiles(self) -> dict[str, Profile]:
        """The cells that did not fail, by label."""
        return {label: found for label, found in self.outcomes.items() if isinstance(found, Profile)}

    @property
    def errors(self) -> dict[str, OfaError]:
        """The cells without a table, by label."""
        return {label: found for label, found in self.outcomes.items() if isinstance(found, OfaError)}


def profile_cells(
    device: Device,
    space: SearchSpace,
    cells: Sequence[Cell],
    out: Path,
    *,
    name: str | None = None,
    like: LatencyTable | None = None,
    progress: Reporter | None = None,
    check: Check = lambda: None,
    **given: Any,
) -> Comparison:
    """Measure all `cells` alternately and write `out/NAME-CELL.{csv,json,jsonl}` of each, and `out/NAME-matrix.csv`.

    `given` are further arguments of `profile`, or of `profile_like` with a table `like`. A call with the same arguments
    resumes all cells. Where a runtime has both fp32 and int8 with as many threads, networks in mixed precision are
    calibrated at the end. A cell that fails does not stop the others. `check` is called regularly; it raises
    `KeyboardInterrupt` to stop all. Raises `UsageError` if the matrix cannot be written.
    """
    name = table_name(name, device.describe(), [space.name], common_settings(cells))

    def measure(cell: Cell, own: Device, its_name: str, report: Reporter) -> Profile:
        how = {**given, "name": its_name, "progress": report}
        if like is not None:
            return profile_like(own, space, cell.settings, out, table=like, **how)
        return profile(own, space, cell.settings, out, more_ops=cell.more_ops(space), **how)

    outcomes: Outcomes = measure_cells(device, cells, name, measure, progress=progress, check=check)
    networks = given.get("networks")
    pairs: dict[str, MixedCalibration | OfaError] = {}
    if like is None and count_networks(networks):
        for pair, both in _mixed_cells(cells, outcomes).items():
            check()
            pairs[pair] = _calibrated(device, both, outcomes, networks, progress)
            outcomes = _with_tables(both, outcomes, pairs[pair])
    return compare_cells(cells, outcomes, name, out, pairs)


def measure_cells(
    device: Device,
    cells: Sequence[Cell],
    name: str,
    measure: MeasureCell,
    *,
    progress: Reporter | None = None,
    check: Check = lambda: None,
) -> dict[str, Profile | OfaError]:
    """Make the table of each cell by `measure`, in turns -> the outcomes by label, in the order of `cells`.

    `name` is that of all tables together. Cells that are refused, or have more threads than the device has cores, are
    not begun. Raises `DeviceError` if the device cannot be described.
    """
    described = device.describe()
    refused = {cell.label: cell.refused or too_many_threads(cell, described, device.spec) for cell in cells}
    able = [cell for cell in cells if not refused[cell.label]]
    labels = [cell.label for cell in able]
    joint = JointProgress(labels, progress or (lambda _: None))
    turns = Turns(labels) if labels else None

    def work(cell: Cell, stopped: Check) -> Profile:
        assert turns is not None

        def check_both() -> None:
            check()
            stopped()

        show = joint.reporter_of(cell.label, cell.label)

        def report(state: Any) -> None:
            check_both()
            show(state)

        try:
            with turns.member(cell.label, check_both):
                own = TakingTurns(device, turns, cell.label, check_both)
                made = measure(cell, own, cell.table_name(name), report)
                return replace(made, seconds=made.seconds - own.waited_s)
        finally:
            joint.end(cell.label)

    made = run_all({cell.label: partial(work, cell) for cell in able})
    return {label: UsageError(why) if why else made[label] for label, why in refused.items()}


def compare_cells(
    cells: Sequence[Cell],
    outcomes: Outcomes,
    name: str,
    out: Path,
    pairs: Mapping[str, MixedCalibration | OfaError] | None = None,
) -> Comparison:
    """Compare the tables of all cells and write `out/NAME-matrix.csv`. Raises `UsageError` if it cannot be written."""
    tables = [found.table for found in outcomes.values() if isinstance(found, Profile)]
    path = out / f"{name}-matrix.csv"
    matrix: tuple[MatrixRow, ...] = ()
    if tables:
        missing = [
            unmeasured_row(cell.table_name(name), cell.settings, found)
            for cell in cells
            if isinstance(found := outcomes[cell.label], OfaError)
        ]
        matrix = (*compute_matrix(tables), *missing)
        save_matrix(matrix, path)
    return Comparison(outcomes, matrix, path, pairs or {})


def _mixed_cells(cells: Sequence[Cell], outcomes: Outcomes) -> dict[str, tuple[Cell, Cell]]:
    """Per runtime and threads: the cells in fp32 and int8 whose tables predict networks of both precisions."""
    made = [cell for cell in cells if isinstance(outcomes[cell.label], Profile)]
    fp32 = {cell.pair: cell for cell in made if cell.settings.target.precision == "fp32"}
    int8 = {cell.pair: cell for cell in made if cell.has_boundaries}
    return {pair: (fp32[pair], cell) for pair, cell in int8.items() if pair in fp32}


def _calibrated(
    device: Device, both: Sequence[Cell], outcomes: Outcomes, networks: int | None, progress: Reporter | None
) -> MixedCalibration | OfaError:
    """Calibrate networks of both cells. An error leaves their tables as they are."""
    settings = both[0].settings

    def show(state: Progress) -> None:
        assert progress is not None
        progress(replace(state, phase=f"{state.phase} mixed networks"))

    try:
        return calibrate_mixed(
            MixedTable.of([found.table for cell in both if isinstance(found := outcomes[cell.label], Profile)]),
            device,
            fitted=networks,
            time_limit_s=networks_limit_s(settings, settings.time_limit_s or 0.0),
            progress=None if progress is None else show,
        )
    except OfaError as error:
        return error


def _with_tables(both: Sequence[Cell], outcomes: Outcomes, made: MixedCalibration | OfaError) -> Outcomes:
    """The outcomes of all cells, those of `both` with their tables as the calibration has left them."""
    if isinstance(made, OfaError):
        return outcomes
    changed = {
        cell.label: replace(found, table=each)
        for cell, each in zip(both, made.table.tables, strict=True)
        if isinstance(found := outcomes[cell.label], Profile)
    }
    return {**outcomes, **changed}
