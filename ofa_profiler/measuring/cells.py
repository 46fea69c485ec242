"""Cells: several settings that one command measures on a device, each with its own table and journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ofa_profiler.errors import UsageError
from ofa_profiler.export import get_exporter
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import MIXED
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace


@dataclass(frozen=True)
class Cell:
    """One table of several. `label` tells it from the others in messages, `name` in the names of files."""

    settings: Settings
    label: str
    #: Whether its table has rows for changes of precision, which networks of this cell and an fp32 cell need.
    has_boundaries: bool = False

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
    except ValueError:  # whether a slot is active depends on several genes
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


def cells_of(settings: Settings, precisions: Sequence[str]) -> tuple[Cell, ...]:
    """A cell per precision, in this order. Raises `UsageError` if one is not supported.

    With fp32 among them, the cell in int8 has the rows of changes of precision.
    """
    targets = [replace(settings.target, precision=precision) for precision in precisions]
    if MIXED in precisions:
        raise UsageError(f"'{MIXED}' is no precision of ops: --precision fp32,int8 also measures mixed networks")
    for target in targets:
        get_exporter(target)
    return tuple(
        Cell(
            replace(settings, target=target),
            target.precision,
            has_boundaries=target.precision == "int8" and "fp32" in precisions,
        )
        for target in targets
    )


def common_settings(cells: Iterable[Cell]) -> Settings:
    """Settings for the part of the names that all tables share: the default where the name of a cell tells the rest."""
    default, settings = Settings(), next(iter(cells)).settings
    target = replace(settings.target, runtime=default.target.runtime, precision=default.target.precision, encoding="")
    return replace(settings, target=target, threads=default.threads)
