"""Cells: several settings that one command measures on a device, each with its own table and journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ofa_profiler.errors import OfaError, UsageError
from ofa_profiler.export import get_exporter
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.records import Device
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import MIXED, Target
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace


@dataclass(frozen=True)
class Cell:
    """One table of several. `label` tells it from the others in messages, `name` in the names of files."""

    settings: Settings
    label: str
    #: Whether its table has rows for changes of precision, which networks of this cell and an fp32 cell need.
    has_boundaries: bool = False
    #: Why no device can measure it; empty if one can. The other cells are measured nevertheless.
    refused: str = ""

    @property
    def pair(self) -> str:
        """Runtime and threads, `litert-t1`: networks in mixed precision belong to the two cells that have both."""
        return f"{self.settings.target.runtime}-t{self.settings.threads}"

    @property
    def name(self) -> str:
        """Runtime, precision and threads: `onnxruntime-int8-t1`."""
        return f"{self.settings.target.runtime}-{self.settings.target.precision}-t{self.settings.threads}"

    def table_name(self, name: str) -> str:
        """The name of its table, if the user calls all tables together `name`."""
        return f"{name}-{self.name}"

    def more_ops(self, space: SearchSpace) -> tuple[Op, ...]:
        """The ops that are measured in addition to those of `space`: its changes of precision, if any."""
        return boundary_ops(space) if self.has_boundaries else ()


def boundary_ops(space: SearchSpace) -> tuple[Op, ...]:
    """The changes of precision in networks of `space` at its resolutions; none if it has no mixed networks."""
    mixed = MixedSpace.of(space)
    try:
        _ = mixed.activities
    except UsageError:
        return ()
    return mixed.boundary_ops


def read_list(text: str, option: str) -> tuple[str, ...]:
    """The values of an option like `fp32,int8`. Raises `UsageError` if one is empty or given twice."""
    values = tuple(part.strip() for part in text.split(","))
    if not all(values):
        raise UsageError(f"{option} {text!r:.60} has an empty value: give one, or several like fp32,int8")
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise UsageError(f"{option} {text!r:.60} has {twice[0]!r:.20} twice: give each value once")
    return values


def cells_of(
    settings: Settings,
    precisions: Sequence[str],
    *,
    runtimes: Sequence[str] = (),
    threads: Sequence[int] = (),
) -> tuple[Cell, ...]:
    """A cell for each combination, the last list fastest: runtimes, precisions, threads. Empty: that of `settings`.

    A cell in int8 has the rows of changes of precision if fp32 of the same runtime and threads is among the cells. A
    precision that only some of the runtimes support is a `refused` cell for the others. Raises `UsageError` for a
    value that no cell can have.
    """
    runtimes = tuple(runtimes) or (settings.target.runtime,)
    threads = tuple(threads) or (settings.threads,)
    if MIXED in precisions:
        raise UsageError(f"'{MIXED}' is no precision of ops: --precision fp32,int8 also measures mixed networks")
    for runtime in runtimes:
        get_runtime(runtime)
    refused = {
        (runtime, precision): _refused(replace(settings.target, runtime=runtime, precision=precision))
        for precision, runtime in product(precisions, runtimes)
    }
    for precision in precisions:
        errors = [refused[runtime, precision] for runtime in runtimes]
        if all(errors):
            raise UsageError(errors[0])
    return tuple(
        Cell(
            replace(settings, target=replace(settings.target, runtime=runtime, precision=precision), threads=count),
            cell_label((runtime, runtimes), (precision, precisions), (f"t{count}", threads)) or precision,
            has_boundaries=precision == "int8" and "fp32" in precisions and not refused[runtime, "fp32"],
            refused=refused[runtime, precision],
        )
        for runtime, precision, count in product(runtimes, precisions, threads)
    )


def _refused(target: Target) -> str:
    """Why there are no models for a target; empty if there are."""
    try:
        get_exporter(target)
    except UsageError as error:
        return str(error)
    return ""


def cell_label(*parts: tuple[str, Sequence[object]]) -> str:
    """The values of those lists that have several: `int8`, or `litert-int8-t4`."""
    return "-".join(value for value, values in parts if len(values) > 1)


def refuse(cells: Iterable[Cell], why: Callable[[Cell], str | None]) -> tuple[Cell, ...]:
    """The cells, refused where `why` gives a reason or raises an `OfaError`. Raises `UsageError` if no cell is left."""

    def reason(cell: Cell) -> str:
        try:
            return cell.refused or why(cell) or ""
        except OfaError as error:
            return str(error)

    found = tuple(replace(cell, refused=reason(cell)) for cell in cells)
    if found and all(cell.refused for cell in found):
        raise UsageError(found[0].refused)
    return found


def too_many_threads(cell: Cell, device: Device, spec: str) -> str:
    """Why a device, by the name `spec`, cannot measure a cell: it has fewer cores than threads. Empty if it can."""
    allowed = device.json.get("cores_allowed")
    if not isinstance(allowed, list) or not allowed or cell.settings.threads <= len(allowed):
        return ""
    cores = f"{len(allowed)} core{'s' * (len(allowed) > 1)}"
    return f"device {spec}: {cell.settings.threads} threads were requested, but it allows {cores}"


def common_settings(cells: Iterable[Cell]) -> Settings:
    """Settings for the part of the names that all tables share: the default where the name of a cell tells the rest."""
    default, settings = Settings(), next(iter(cells)).settings
    target = replace(settings.target, runtime=default.target.runtime, precision=default.target.precision, encoding="")
    return replace(settings, target=target, threads=default.threads)
