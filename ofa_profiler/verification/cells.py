"""Several cells on one device: a table each, measured in turns, and a matrix that compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ofa_profiler.base.parallel import Check, run_all
from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import OfaError
from ofa_profiler.measuring.cells import Cell, common_settings
from ofa_profiler.measuring.joint_progress import JointProgress
from ofa_profiler.measuring.naming import table_name
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.turns import TakingTurns, Turns
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.matrix import MatrixRow, compute_matrix, save_matrix
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.like import profile_like
from ofa_profiler.verification.profile import profile


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
    resumes all cells. One that fails does not stop the others. `check` is called regularly; it raises
    `KeyboardInterrupt` to stop all. Raises `UsageError` if the matrix cannot be written.
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
    tables = [found.table for found in outcomes.values() if isinstance(found, Profile)]
    path = out / f"{name}-matrix.csv"
    matrix = compute_matrix(tables) if len(tables) > 1 else ()
    if matrix:
        save_matrix(matrix, path)
    return Comparison(outcomes, matrix, path)
