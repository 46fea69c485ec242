"""Several cells on one device: a table each, measured in turns, and a matrix that compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ofa_profiler.base.parallel import Check, run_all
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import OfaError
from ofa_profiler.measuring.cells import Cell, common_settings
from ofa_profiler.measuring.joint_progress import JointProgress
from ofa_profiler.measuring.naming import table_name
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.turns import TakingTurns, Turns
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.matrix import MatrixRow, compute_matrix, save_matrix
from ofa_profiler.tables.mixed import MixedTable
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.like import profile_like
from ofa_profiler.verification.mixed import MixedCalibration, calibrate_mixed
from ofa_profiler.verification.profile import count_networks, networks_limit_s, profile


@dataclass(frozen=True)
class Comparison:
    """What became of each cell, and the comparison of those that have a table.

    `matrix` is empty, and no file is written, if fewer than two have one.
    """

    #: By the label of the cell.
    outcomes: Mapping[str, Profile | OfaError]
    matrix: tuple[MatrixRow, ...]
    #: `NAME-matrix.csv`.
    path: Path
    #: The calibration of networks in mixed precision, or its error; None without one.
    mixed: MixedCalibration | OfaError | None = None

    @property
    def profiles(self) -> dict[str, Profile]:
        """The cells that did not fail, by label."""
        return {label: found for label, found in self.outcomes.items() if isinstance(found, Profile)}


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
    resumes all cells. With both fp32 and int8, networks in mixed precision are calibrated at the end. A cell that fails
    does not stop the others. `check` is called regularly; it raises `KeyboardInterrupt` to stop all. Raises
    `UsageError` if the matrix cannot be written.
    """
    name = table_name(name, device.describe(), [space.name], common_settings(cells))
    turns = Turns([cell.label for cell in cells])
    joint = JointProgress([cell.label for cell in cells], progress or (lambda _: None))

    def work(cell: Cell, stopped: Check) -> Profile:
        def check_both() -> None:
            check()
            stopped()

        show = joint.reporter_of(cell.label, cell.label)

        def report(state: Any) -> None:
            check_both()
            show(state)

        how = {**given, "name": cell.table_name(name), "progress": report}
        try:
            with turns.member(cell.label, check_both):
                own = TakingTurns(device, turns, cell.label, check_both)
                if like is None:
                    made = profile(own, space, cell.settings, out, more_ops=cell.more_ops(space), **how)
                else:
                    made = profile_like(own, space, cell.settings, out, table=like, **how)
                return replace(made, seconds=made.seconds - own.waited_s)
        finally:
            joint.end(cell.label)

    outcomes = run_all({cell.label: partial(work, cell) for cell in cells})
    mixed = None
    if like is None and (both := _mixed_cells(cells, outcomes)) and count_networks(given.get("networks")):
        mixed = _calibrated(device, both, outcomes, given.get("networks"), progress)
        if isinstance(mixed, MixedCalibration):
            outcomes |= _with_tables(both, outcomes, mixed.table)
    tables = [found.table for found in outcomes.values() if isinstance(found, Profile)]
    path = out / f"{name}-matrix.csv"
    matrix = compute_matrix(tables) if len(tables) > 1 else ()
    if matrix:
        save_matrix(matrix, path)
    return Comparison(outcomes, matrix, path, mixed)


_Outcomes = Mapping[str, Profile | OfaError]


def _mixed_cells(cells: Sequence[Cell], outcomes: _Outcomes) -> tuple[Cell, ...]:
    """The cells in fp32 and int8 whose tables predict networks of both precisions; empty if there are none."""
    made = [cell for cell in cells if isinstance(outcomes[cell.label], Profile)]
    int8 = [cell for cell in made if cell.has_boundaries]
    fp32 = [cell for cell in made if cell.settings.target.precision == "fp32"]
    return (fp32[0], int8[0]) if fp32 and int8 else ()


def _calibrated(
    device: Device, both: Sequence[Cell], outcomes: _Outcomes, networks: int | None, progress: Reporter | None
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


def _with_tables(both: Sequence[Cell], outcomes: _Outcomes, table: MixedTable) -> dict[str, Profile]:
    """The outcomes of both cells with their tables as the calibration has left them."""
    return {
        cell.label: replace(found, table=each)
        for cell, each in zip(both, table.tables, strict=True)
        if isinstance(found := outcomes[cell.label], Profile)
    }
