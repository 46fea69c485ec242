"""The latency table: measured ops of one device, and latency predictions for networks of these ops."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_profiler.spaces.costs import Cost
from ofa_profiler.tables.consistency import check_rows, index_of, is_of_model, why_incomplete
from ofa_profiler.tables.corrections import Correction, Sum, read_correction
from ofa_profiler.tables.corrections.intervals import checked_level
from ofa_profiler.tables.csv_file import read_csv, read_metadata, save_files
from ofa_profiler.tables.doubts import Doubt, table_doubts
from ofa_profiler.tables.frame import rows_of_frame, rows_to_frame
from ofa_profiler.tables.ofa_files import read_published, write_published
from ofa_profiler.tables.row import FAILED, Row
from ofa_profiler.tables.stability import Stability, stability
from ofa_profiler.tables.summary import coverage_words, facts, facts_html, facts_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LatencyTable", "Row"]

#: One number per network.
Milliseconds = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class LatencyTable:
    """The rows of one device, runtime, precision, number of threads and batch.

    `name` is the stem of the file, or the name of a folder of published tables. `metadata` is the JSON beside the file.
    A prediction sums the medians of the ops and applies the correction of the metadata. Tables without medians, such
    as the published ones, use the means.

    Raises `InputFileError` for inconsistent rows: an op is listed twice, batch or precision differ, only some rows have
    a median. Also raises it for an unknown correction.
    """

    name: str
    rows: tuple[Row, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    _costs: dict[SearchSpace, tuple[Cost, dict[int | None, list[str]]]] = field(
        default_factory=dict, init=False, repr=False
    )
    _resolutions: dict[SearchSpace, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.rows:
            self._refuse("has no rows")
        check_rows(self.rows, self.metadata, self.statistic, self._refuse)
        spaces = self.metadata.get("spaces", [])
        if not isinstance(spaces, list | tuple) or not all(isinstance(name, str) for name in spaces):
            self._refuse_metadata("'spaces' must be a list of names")
        try:
            _ = self.correction, self.forms
        except UsageError as error:
            self._refuse_metadata(str(error))
        _ = self._index

    @staticmethod
    def load(path: str | os.PathLike[str]) -> LatencyTable:
        """Read a CSV with its JSON, if there is one, or a folder of published tables. Raises `InputFileError`."""
        path = Path(path)
        if path.is_dir():
            return LatencyTable(path.resolve().name, read_published(path), {"source": "published tables"}, path)
        if path.name.endswith(("_lookup_table.yaml", "_lookup_table.yml", "_lookup_table.json")):
            raise InputFileError(path, "is one file of published tables; give its folder instead")
        if path.suffix in (".json", ".jsonl"):
            raise InputFileError(path, f"is not the latency table; give {path.with_suffix('.csv').name} instead")
        rows = read_csv(path)
        json_path = path.with_suffix(".json")
        return LatencyTable(path.stem, rows, read_metadata(json_path) if json_path.exists() else {}, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the CSV to `path` and the JSON beside it, both or none. Raises `UsageError`.

        The metadata must consist of plain JSON types, without NaN and infinity.
        """
        metadata = {"format": None, **self.metadata, "spaces": list(self.spaces)}
        save_files(Path(path), self.rows, {**metadata, "correction": self.correction.to_json()})

    def save_published(self, folder: str | os.PathLike[str]) -> None:
        """Write the means in the format of the published tables, one YAML file per resolution.

        Raises `UsageError` if the format cannot store the table (failed ops, ops without a complete resolution), or if
        the folder already contains published tables.
        """
        spaces = [get_space(name) for name in self.spaces if name in space_names()]
        write_published(self.name, self.rows, {space: self.resolutions(space) for space in spaces}, Path(folder))

    def to_frame(self) -> pd.DataFrame:
        """A pandas frame with one row per op. Raises `UsageError` if pandas is not installed."""
        return rows_to_frame(self.rows, self.name, self.metadata)

    @staticmethod
    def from_frame(
        frame: pd.DataFrame, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> LatencyTable:
        """The table in a frame with the columns of `to_frame`. Raises `InputFileError`."""
        return LatencyTable(*rows_of_frame(frame, name, metadata))

    def __repr__(self) -> str:
        return facts_text(f"LatencyTable {self.name}", facts(self.rows, self.spaces, self.metadata))

    def _repr_html_(self) -> str:
        return facts_html(f"latency table {self.name}", facts(self.rows, self.spaces, self.metadata))

    # --- coverage ----------------------------------------------------------------------------------

    @cached_property
    def correction(self) -> Correction:
        """The correction of the metadata; the sum of the ops if there is none."""
        return read_correction(self.metadata.get("correction", Sum().to_json()))

    @cached_property
    def forms(self) -> Forms:
        """The forms in which the ops were measured. Tables without this information are plain."""
        return Forms.from_table(self.metadata)

    @cached_property
    def spaces(self) -> tuple[str, ...]:
        """The names of the search spaces of the metadata; without metadata, of all spaces that the table covers."""
        named = self.metadata.get("spaces")
        if named or is_of_model(self.metadata):
            return tuple(named or ())
        return tuple(name for name in space_names() if self.covers(get_space(name)))

    def covers(self, space: SearchSpace) -> bool:
        """Whether all ops of `space` have a row at one resolution at least. Failed rows count."""
        return self._covers(space, None) if space.resolution_gene is None else bool(self.resolutions(space))

    def resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions at which all ops of `space` have a row. Failed rows count."""
        if space not in self._resolutions:
            found = tuple(r for r in space.valid_resolutions if self._covers(space.with_resolutions([r]), r))
            self._resolutions[space] = found
        return self._resolutions[space]

    def complete_resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        """As `resolutions`, but rows that were lost are an error instead of a resolution less.

        Raises `InputFileError` if the table lacks ops of a resolution that was measured: one that the JSON names, or
        one whose first op has a row. The message names an op.
        """
        covered = self.resolutions(space)
        for resolution in self._measured_resolutions(space):
            if resolution not in covered:
                ops = space.with_resolutions([resolution]).unique_ops()
                missing = [op.key for op in ops if self.find(op, resolution) is None]
                why, advice = why_incomplete(self.rows, space)
                self._refuse(
                    f"{why}: {len(missing)} of the {len(ops)} ops of {space.name} at resolution {resolution} "
                    f"are missing, for example {missing[0]}; {advice}"
                )
        return covered

    def _measured_resolutions(self, space: SearchSpace) -> list[int]:
        """The resolutions of `space` that the table should cover."""
        spaces, named = (self.metadata.get(name) or () for name in ("spaces", "resolutions"))
        if spaces and space.name not in spaces:
            return []
        first = {r: space.with_resolutions([r]).slot_ops(space.slots[0])[0] for r in space.valid_resolutions}
        if len(set(first.values())) < len(first):  # then a row of the first op says nothing about a resolution
            first = {}
        named = named if spaces and isinstance(named, list | tuple) else ()
        return [r for r in space.valid_resolutions if r in named or (r in first and self.find(first[r], r) is not None)]

    def _covers(self, space: SearchSpace, resolution: int | None) -> bool:
        return all(self.find(op, resolution) for slot in space.slots for op in space.slot_ops(slot))

    # --- milliseconds --------------------------------------------------------------------------------

    @cached_property
    def statistic(self) -> str:
        """The column for predictions: `median_ms`, or `mean_ms` in a table without medians."""
        return "median_ms" if any(row.median_ms is not None for row in self.rows) else "mean_ms"

    def latency_ms(self, op: Op, resolution: int | None = None) -> float:
        """The measured time of the isolated `op`, in milliseconds.

        Published tables can contain an op once per resolution of the network. `resolution` selects one. Raises
        `UsageError` if the op is missing, failed or ambiguous.
        """
        if resolution is None and (None, op.key) not in self._index:
            measured_at = sorted(at for at, key in self._index if key == op.key and at is not None)
            if len(measured_at) > 1:
                listed = ", ".join(map(str, measured_at))
                raise UsageError(
                    f"table {self.name} has {op.key} at the resolutions {listed}; choose one by `resolution`"
                )
            resolution = measured_at[0] if measured_at else None
        row = self.find(op, resolution)
        if row is None:
            raise UsageError(f"table {self.name} does not contain the op {op.key}; it covers {self._coverage()}")
        if row.status == FAILED:
            why = f" ({row.error})" if row.error else ""
            self._refuse(f"op {op.key} could not be measured{why}; profile the device again or avoid this op", row)
        return self._time_ms(row)

    @overload
    def predict_ms(self, architectures: Iterable[Architecture]) -> Milliseconds: ...

    @overload
    def predict_ms(
        self, architectures: Iterable[Architecture], *, interval: float
    ) -> tuple[Milliseconds, tuple[Milliseconds, Milliseconds]]: ...

    def predict_ms(
        self, architectures: Iterable[Architecture], *, interval: float | None = None
    ) -> Milliseconds | tuple[Milliseconds, tuple[Milliseconds, Milliseconds]]:
        """N architectures -> predicted milliseconds of the networks (N,).

        `ms, (low, high) = predict_ms(..., interval=0.95)` also gives the ends of intervals that hold 95% of networks.
        Raises `UsageError` if an op of a network is missing or failed, or if the table has no such interval.
        """
        if interval is None:
            return self._predict_ms(list(architectures))
        low, high = self.interval_factors(interval)
        predicted = self._predict_ms(list(architectures))
        return predicted, (predicted * low, predicted * high)

    def interval_factors(self, level: float) -> tuple[float, float]:
        """The factors from every prediction to both ends of its interval. Raises `UsageError` if it has none."""
        factors = self.correction.interval_factors(checked_level(level))
        if factors is None:
            why = "its correction was fitted to too few networks, or to none; ofa-verify --calibrate N measures more"
            raise UsageError(f"table {self.name} has no interval of {100 * level:g}%: {why}")
        return factors

    def _predict_ms(self, architectures: list[Architecture]) -> Milliseconds:
        predicted = np.empty(len(architectures))
        groups: dict[tuple[str, int | None], list[int]] = {}
        for i, architecture in enumerate(architectures):
            groups.setdefault((architecture.space, architecture.resolution), []).append(i)
        for (name, resolution), members in groups.items():
            space = get_space(name).at(resolution)
            predicted[members] = self._cost(space)[0].evaluate(space.encode(architectures[i] for i in members))
        for architecture, milliseconds in zip(architectures, predicted, strict=True):
            if np.isinf(milliseconds):
                for op in get_space(architecture.space).ops(architecture):
                    self.latency_ms(op, architecture.resolution)  # raises the error of the op
        return predicted

    def cost(self, space: SearchSpace) -> Cost:
        """The milliseconds of all networks of `space` at `space.resolutions`. A failed op costs infinity.

        Raises `UsageError` if ops are missing. `space.with_resolutions(table.resolutions(space))` avoids this.
        """
        cost, missing = self._cost(space)
        if missing:
            resolution, keys = next(iter(missing.items()))
            ops = space.at(resolution).unique_ops()
            where = "" if resolution is None else f" at resolution {resolution}"
            raise UsageError(
                f"table {self.name} does not cover {space.name}{where}: it lacks "
                f"{len(keys)} of {len(ops)} ops, for example {keys[0]}; it covers {self._coverage()}"
            )
        return cost

    def _cost(self, space: SearchSpace) -> tuple[Cost, dict[int | None, list[str]]]:
        """The cost, with infinity for failed and missing ops, and the keys of missing ops by resolution."""
        if space not in self._costs:
            missing: dict[int | None, dict[str, None]] = {}

            def op_ms(resolution: int | None, op: Op) -> float:
                row = self.find(op, resolution)
                if row is None:
                    missing.setdefault(resolution, {})[op.key] = None
                if row is None or row.status == FAILED:
                    return np.inf
                return self._time_ms(row)

            cost = self.correction.cost(space, op_ms)
            self._costs[space] = cost, {resolution: list(keys) for resolution, keys in missing.items()}
        return self._costs[space]

    def _coverage(self) -> str:
        """The spaces and resolutions of the table, for messages."""
        known = [name for name in self.spaces if name in space_names()]
        covered = {name: self.resolutions(get_space(name)) for name in known if self.covers(get_space(name))}
        return coverage_words(self.spaces, covered)

    # --- rows ----------------------------------------------------------------------------------------

    @cached_property
    def _index(self) -> dict[tuple[int | None, str], Row]:
        return index_of(self.rows, self._refuse)

    def find(self, op: Op, resolution: int | None) -> Row | None:
        """The row of `op` in networks of this resolution; None if there is none."""
        return self._index.get((resolution, op.key)) or self._index.get((None, op.key))

    def _time_ms(self, row: Row) -> float:
        return float(getattr(row, self.statistic))

    def _refuse(self, problem: str, row: Row | None = None) -> NoReturn:
        raise InputFileError(self.path or self.name, problem, row=row.line if row else None)

    def _refuse_metadata(self, problem: str) -> NoReturn:
        raise InputFileError(self.path.with_suffix(".json") if self.path else self.name, problem)

    # --- doubts --------------------------------------------------------------------------------------

    @cached_property
    def stability(self) -> Stability | None:
        """The verdict on the noise of the table; None if the noise is unknown."""
        return stability(self.rows, self.metadata)

    @cached_property
    def doubts(self) -> tuple[Doubt, ...]:
        """Reasons why the numbers may be wrong, notes first. The table can still be used."""
        return table_doubts(self.name, self.rows, self.metadata, self.path)

    @property
    def warnings(self) -> list[str]:
        """The doubts except notes, one line each."""
        found = table_doubts(self.name, self.rows, self.metadata, self.path, notes=False)
        return [doubt.text for doubt in found if not doubt.is_note]
