"""Cells of a user's network: one file per runtime and precision, measured in turns with any number of threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from ofa_profiler.base.parallel import Check
from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.cells import Cell, cell_label, common_settings
from ofa_profiler.measuring.model import profile_model, settings_for
from ofa_profiler.measuring.naming import subject_of, table_name
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.models.base import Array, UserModel
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.verification.cells import Comparison, compare_cells, measure_cells


class Source(NamedTuple):
    """An opened model, and what its inputs get."""

    model: UserModel
    feeds: Mapping[str, Array]


def model_cells(
    sources: Sequence[Source],
    settings: Settings,
    *,
    runtimes: Sequence[str] = (),
    precisions: Sequence[str] = (),
    threads: Sequence[int] = (),
) -> dict[Cell, Source | None]:
    """Each combination of the lists, the last one fastest, and the model for it; a cell without one is refused.

    Empty lists are those of the files. Raises `UsageError` if no file is for any combination, if one is for none, or
    if two are for the same.
    """
    files: dict[tuple[str, str], Source] = {}
    for source in sources:
        kind = (source.model.runtime, source.model.precision)
        if kind in files:
            both = f"{files[kind].model.path.name} and {source.model.path.name}"
            raise UsageError(f"{both} are both for {kind[0]} in {kind[1]}: give one --model per runtime and precision")
        files[kind] = source
    runtimes = tuple(runtimes) or tuple(dict.fromkeys(runtime for runtime, _ in files))
    precisions = tuple(precisions) or tuple(dict.fromkeys(precision for _, precision in files))
    threads = tuple(threads) or (settings.threads,)
    for (runtime, precision), source in files.items():
        if runtime not in runtimes or precision not in precisions:
            raise UsageError(
                f"{source.model.path.name} is a model for {runtime} in {precision}, which is not asked for; models are "
                f"not converted, so give files for {', '.join(runtimes)} in {', '.join(precisions)}"
            )
    cells: dict[Cell, Source | None] = {}
    for runtime, precision, count in product(runtimes, precisions, threads):
        label = cell_label((runtime, runtimes), (precision, precisions), (f"t{count}", threads)) or precision
        own = replace(settings, threads=count)
        found = files.get((runtime, precision))
        if found is not None:
            cells[Cell(settings_for(found.model, own), label)] = found
            continue
        target = replace(settings.target, runtime=runtime, precision=precision)
        suffix = get_runtime(runtime).suffix
        missing = f"no --model is for {runtime} in {precision}: models are not converted, so give a {suffix} file"
        cells[Cell(replace(own, target=target), label, refused=missing)] = None
    return cells


def profile_model_cells(
    device: Device,
    cells: Mapping[Cell, Source | None],
    out: Path,
    *,
    name: str | None = None,
    fresh: bool = False,
    what_if: bool = False,
    progress: Reporter | None = None,
    check: Check = lambda: None,
) -> Profile | Comparison:
    """Measure all cells in turns, with a table for each, and compare them; a single cell is just measured.

    With `what_if`, also measure what changes of the networks would save. Raises `UsageError` if the comparison cannot
    be written, and for a single cell what `profile_model` raises.
    """
    how: dict[str, Any] = {"fresh": fresh, "what_if": what_if}
    if len(cells) == 1:
        ((cell, source),) = cells.items()
        if source is None:
            raise UsageError(cell.refused)
        return profile_model(device, *source, cell.settings, out, name=name, progress=progress, **how)
    first = next(source for source in cells.values() if source is not None)
    name = table_name(name, device.describe(), [subject_of(first.model.path.name)], common_settings(cells))

    def measure(cell: Cell, own: Device, its_name: str, report: Reporter) -> Profile:
        source = cells[cell]
        assert source is not None, "it would be refused"
        return profile_model(own, *source, cell.settings, out, name=its_name, progress=report, **how)

    outcomes = measure_cells(device, list(cells), name, measure, progress=progress, check=check)
    return compare_cells(list(cells), outcomes, name, out)
