"""The latency of networks in mixed precision, from the tables of both precisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import MixedForms
from ofa_profiler.protocol.identity import HARDWARE, DeviceIdentity, difference
from ofa_profiler.protocol.target import MIXED, Target
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.corrections.intervals import checked_level
from ofa_profiler.tables.corrections.mixed import PRECISIONS, MixedCorrection, MsOf
from ofa_profiler.tables.row import FAILED
from ofa_profiler.tables.table import LatencyTable, Milliseconds

#: The field of the JSON of both tables: the name of the other table, the correction, and the validation.
MIXED_FIELD = "mixed"
#: What both tables must agree on.
_COMMON = ("runtime", "provider", "threads", "batch")
_REMEDY = "measure both in one session: ofa-profile --precision fp32,int8"


@dataclass(frozen=True, eq=False)
class MixedTable:
    """The tables of fp32 and int8, of one device and session. It predicts the networks of `MixedSpace`.

    It has what a search and a verification need of a `LatencyTable`. `correction` is that of the JSON of both tables,
    else what their own corrections say (`MixedCorrection.before_fit`).
    """

    fp32: LatencyTable
    int8: LatencyTable
    correction: MixedCorrection
    _costs: dict[MixedSpace, AdditiveCost] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def of(tables: Sequence[LatencyTable]) -> MixedTable:
        """From one table of each precision, in any order. Raises `UsageError` if they do not belong together."""
        by_precision = {str(table.metadata.get("precision") or table.rows[0].precision): table for table in tables}
        if len(tables) != len(PRECISIONS) or by_precision.keys() != set(PRECISIONS):
            found = ", ".join(f"{t.name} ({t.metadata.get('precision') or t.rows[0].precision})" for t in tables)
            raise UsageError(f"mixed precision needs a table of fp32 and one of int8, not {found or 'no table'}")
        fp32, int8 = (by_precision[precision] for precision in PRECISIONS)
        _check_common(fp32, int8)
        return MixedTable(fp32, int8, _correction(fp32, int8))

    @property
    def tables(self) -> tuple[LatencyTable, LatencyTable]:
        """Both tables, fp32 first."""
        return self.fp32, self.int8

    @property
    def name(self) -> str:
        """The names of both tables."""
        return f"{self.fp32.name}+{self.int8.name}"

    @property
    def path(self) -> Path | None:
        """The file of the int8 table, which has the changes of precision."""
        return self.int8.path

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the int8 table, with mixed precision and forms."""
        forms = {"chosen": self.forms.to_json()}
        return {**self.int8.metadata, "precision": MIXED, "forms": forms, "spaces": list(self.spaces)}

    @property
    def statistic(self) -> str:
        """The column for predictions."""
        return self.int8.statistic

    @property
    def warnings(self) -> list[str]:
        """The warnings of both tables, and `unfitted` if there is any."""
        own = [self.unfitted] if self.unfitted else []
        return [*self.fp32.warnings, *self.int8.warnings, *own]

    @property
    def unfitted(self) -> str:
        """Why the predictions are not fitted to mixed networks; empty if they are."""
        if self.correction.networks:
            return ""
        said = [table.metadata.get(MIXED_FIELD) for table in self.tables]
        how = "ofa-verify --precision mixed --calibrate 32 measures some"
        if not any(said) or said[0] == said[1]:
            return f"the predictions of {self.name} are not fitted to mixed networks; {how}"
        partners = [entry.get("with") or "?" if isinstance(entry, Mapping) else "none" for entry in said]
        found = ", ".join(f"{table.name} with {name}" for table, name in zip(self.tables, partners, strict=True))
        return (
            f"the predictions of {self.name} are not fitted to mixed networks: both tables do not have the same fit "
            f"({found}), because one of them was made again; {how}"
        )

    @property
    def forms(self) -> MixedForms:
        """The forms of both tables."""
        return MixedForms(self.fp32.forms, self.int8.forms)

    @property
    def target(self) -> Target:
        """What mixed networks are exported for."""
        metadata = self.int8.metadata
        encoding = str(metadata.get("encoding") or "")
        return Target(str(metadata.get("runtime")), MIXED, int(self.int8.rows[0].batch or 1), encoding)

    # --- coverage ----------------------------------------------------------------------------------

    @cached_property
    def spaces(self) -> tuple[str, ...]:
        """The names of the plain spaces of both tables."""
        return tuple(name for name in self.fp32.spaces if name in self.int8.spaces)

    def resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions at which both tables have all ops of `space`."""
        return self._common(space, [table.resolutions(_plain(space)) for table in self.tables])

    def complete_resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        """As `LatencyTable.complete_resolutions`, for both tables."""
        return self._common(space, [table.complete_resolutions(_plain(space)) for table in self.tables])

    @staticmethod
    def _common(space: SearchSpace, found: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(r for r in space.valid_resolutions if all(r in each for each in found))

    # --- milliseconds --------------------------------------------------------------------------------

    @property
    def op_ms(self) -> MsOf:
        """Precision -> milliseconds of an op: infinity for one that failed. Raises `UsageError` if it is missing."""

        def of(table: LatencyTable, resolution: int | None, op: Op) -> float:
            row = table.find(op, resolution)
            if row is None and op.kind in ("quantize", "dequantize"):
                raise UsageError(f"table {table.name} does not contain {op.key}, a change of precision; {_REMEDY}")
            failed = row is not None and row.status == FAILED
            return float("inf") if failed else table.latency_ms(op, resolution)

        return {
            "fp32": lambda resolution, op: of(self.fp32, resolution, op),
            "int8": lambda resolution, op: of(self.int8, resolution, op),
        }

    def cost(self, space: SearchSpace) -> AdditiveCost:
        """The milliseconds of all networks of a mixed space at `space.resolutions`. Raises `UsageError`."""
        if not isinstance(space, MixedSpace):
            raise UsageError(f"tables of two precisions predict networks of {space.name}-mixed, not of {space.name}")
        if space not in self._costs:
            for table in self.tables:
                table.cost(space.plain)  # raises the error of missing ops
            self._costs[space] = self.correction.cost(space, self.op_ms)
        return self._costs[space]

    @overload
    def predict_ms(self, architectures: Iterable[Architecture]) -> Milliseconds: ...

    @overload
    def predict_ms(
        self, architectures: Iterable[Architecture], *, interval: float
    ) -> tuple[Milliseconds, tuple[Milliseconds, Milliseconds]]: ...

    def predict_ms(
        self, architectures: Iterable[Architecture], *, interval: float | None = None
    ) -> Milliseconds | tuple[Milliseconds, tuple[Milliseconds, Milliseconds]]:
        """N architectures of mixed spaces -> predicted milliseconds (N,); see `LatencyTable.predict_ms`."""
        architectures = list(architectures)
        predicted: NDArray[np.float64] = np.empty(len(architectures))
        groups: dict[tuple[str, int | None], list[int]] = {}
        for i, architecture in enumerate(architectures):
            groups.setdefault((architecture.space, architecture.resolution), []).append(i)
        for (name, resolution), members in groups.items():
            space = get_space(name).at(resolution)
            predicted[members] = self.cost(space).evaluate(space.encode(architectures[i] for i in members))
        if interval is None:
            return predicted
        low, high = self.interval_factors(interval)
        return predicted, (predicted * low, predicted * high)

    def interval_factors(self, level: float) -> tuple[float, float]:
        """As `LatencyTable.interval_factors`. Raises `UsageError` if there is none."""
        factors = self.correction.interval_factors(checked_level(level))
        if factors is None:
            raise UsageError(
                f"tables {self.name} have no interval of {100 * level:g}%: too few mixed networks were measured"
            )
        return factors

    def with_correction(self, correction: MixedCorrection) -> MixedTable:
        """The same tables with another correction."""
        return replace(self, correction=correction)

    def before_fit(self) -> MixedTable:
        """The same tables with what their own corrections say of mixed networks."""
        return self.with_correction(MixedCorrection.before_fit(self.fp32.correction, self.int8.correction))


#: What predicts networks: of one precision, or of mixed precision.
AnyTable = LatencyTable | MixedTable


def _plain(space: SearchSpace) -> SearchSpace:
    return space.plain if isinstance(space, MixedSpace) else space


def _check_common(fp32: LatencyTable, int8: LatencyTable) -> None:
    """Raise `UsageError` unless both tables are of one device and the same settings."""
    for name in _COMMON:
        values = [table.metadata.get(name) for table in (fp32, int8)]
        if values[0] != values[1]:
            raise UsageError(f"{fp32.name} and {int8.name} differ in {name} ({values[0]} and {values[1]}); {_REMEDY}")
    one, other = (DeviceIdentity.from_table(table.metadata) for table in (fp32, int8))
    if found := difference(one, other, HARDWARE):
        raise UsageError(f"{fp32.name} and {int8.name} are of different devices ({found}); {_REMEDY}")


def _correction(fp32: LatencyTable, int8: LatencyTable) -> MixedCorrection:
    """The fitted correction, if both tables have the same one."""
    said = [table.metadata.get(MIXED_FIELD) for table in (fp32, int8)]
    fitted = [entry.get("correction") if isinstance(entry, Mapping) else None for entry in said]
    if fitted[0] is not None and fitted[0] == fitted[1]:
        try:
            return MixedCorrection.from_json(fitted[0])
        except UsageError as error:
            raise InputFileError(fp32.path.with_suffix(".json") if fp32.path else fp32.name, str(error)) from None
    return MixedCorrection.before_fit(fp32.correction, int8.correction)
