"""Two or more latency tables, op by op: the factor that all ops share, and the ops that differ from it.

The common factor is the median of the logarithms of the ratios, and every op counts once. So a few slow ops, which may
be those that differ, do not decide it. The spread is the median absolute deviation, scaled to a standard deviation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.tables.compare_groups import Group, OpRatio, groups_of
from ofa_profiler.tables.compare_noise import LEAST_NOISE, row_noise, table_noise, whole_noise
from ofa_profiler.tables.compare_settings import FormDifference, Setting, form_differences, question_of, settings_of
from ofa_profiler.tables.consistency import is_of_model
from ofa_profiler.tables.op_columns import op_values, other_attributes
from ofa_profiler.tables.row import OK, Row
from ofa_profiler.tables.table import LatencyTable

#: An op stands out if it is this many standard deviations of all ops away from the common factor.
_SPREADS = 3.0
#: The median absolute deviation of a normal distribution, times this, is its standard deviation.
_MAD_TO_STD = 1.4826
#: The share of ops that differ by more than their 95% noise by chance.
_BY_CHANCE = 0.05

_Table = LatencyTable | str | os.PathLike[str]
_Key = tuple[int | None, str]


@dataclass(frozen=True)
class PairComparison:
    """One table against the base. Ratios are its milliseconds divided by those of the base."""

    base: str
    table: str
    #: `repeat` (no setting differs), `version` (only versions of the runtime), `settings`, `device`, or `unknown`.
    question: str
    settings: tuple[Setting, ...]
    forms: tuple[FormDifference, ...]
    #: Ops without a measured time (failed or inferred) in the base and in the table.
    left_out: tuple[int, int]
    #: Measured ops that only the base has, and that only the table has.
    only_in: tuple[int, int]
    factor: float
    #: The standard deviation of the logarithms of the ratios, robust.
    spread: float
    ops: tuple[OpRatio, ...]
    groups: tuple[Group, ...]
    #: Milliseconds of all compared ops, or of the whole network for tables of a model: base, table.
    whole_ms: tuple[float, float]
    #: What the noise of both tables explains of the difference of `whole_ms`, relative, 95%.
    whole_noise: float

    @property
    def whole_differs(self) -> bool:
        """Whether noise does not explain the difference of the whole."""
        return abs(float(np.log(self.whole_ms[1] / self.whole_ms[0]))) > self.whole_noise

    @property
    def differing(self) -> int:
        """How many ops differ by more than their noise explains, the common factor included."""
        return sum(op.differs for op in self.ops)

    @property
    def by_chance(self) -> float:
        """How many ops can differ like that by chance alone: the 95% noise of `n` ops, with two deviations of it."""
        n = len(self.ops)
        return float(_BY_CHANCE * n + 2 * np.sqrt(_BY_CHANCE * (1 - _BY_CHANCE) * n))

    @property
    def agrees(self) -> bool:
        """Whether noise explains all differences."""
        return not self.whole_differs and self.differing <= self.by_chance

    @property
    def outliers(self) -> tuple[OpRatio, ...]:
        """The significant ops, those that are worth the most milliseconds first."""
        return tuple(sorted((op for op in self.ops if op.significant), key=lambda op: (-abs(op.worth_ms), op.op)))

    def to_json(self) -> dict[str, Any]:
        """The entry in `ofa-compare --json`."""
        return {
            "base": self.base,
            "table": self.table,
            "question": self.question,
            "settings": [setting.to_json() for setting in self.settings],
            "forms": [form.to_json() for form in self.forms],
            "compared": len(self.ops),
            "left_out": list(self.left_out),
            "only_in": list(self.only_in),
            "factor": self.factor,
            "spread": self.spread,
            "whole_ms": list(self.whole_ms),
            "whole_noise": self.whole_noise,
            "whole_differs": self.whole_differs,
            "differing": self.differing,
            "by_chance": self.by_chance,
            "agrees": self.agrees,
            "groups": [group.to_json() for group in self.groups],
            "ops": [op.to_json() for op in self.ops],
        }


@dataclass(frozen=True)
class TableComparison:
    """All tables against the first one, the base."""

    base: str
    pairs: tuple[PairComparison, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `ofa-compare --json`."""
        return {"base": self.base, "comparisons": [pair.to_json() for pair in self.pairs]}


def compare(base: _Table, *others: _Table) -> TableComparison:
    """Compare tables, or the files of tables, with `base`, op by op.

    Raises `UsageError` if a table is given twice, if two have no op in common, or if they are of different models, and
    `InputFileError` for files that are no tables.
    """
    if not others:
        raise UsageError("a comparison needs two tables at least")
    tables = [each if isinstance(each, LatencyTable) else LatencyTable.load(each) for each in (base, *others)]
    names = _names(tables)
    pairs = tuple(_pair(tables[0], each, names[0], name) for each, name in zip(tables[1:], names[1:], strict=True))
    return TableComparison(names[0], pairs)


def _names(tables: Sequence[LatencyTable]) -> list[str]:
    """The names of the tables; their paths where names are equal. Raises `UsageError` for a table given twice."""
    seen: set[object] = set()
    for table in tables:
        identity = table.path.resolve() if table.path is not None else id(table)
        if identity in seen:
            raise UsageError(f"table {table.path or table.name} is given twice; give different tables")
        seen.add(identity)
    names = [table.name for table in tables]
    found = [str(table.path or table.name) if names.count(table.name) > 1 else table.name for table in tables]
    return [f"{name} ({i + 1})" if found.count(name) > 1 else name for i, name in enumerate(found)]


def _pair(base: LatencyTable, other: LatencyTable, base_name: str, name: str) -> PairComparison:
    _check_models(base, other, base_name, name)
    measured = [{(row.resolution, row.op): row for row in table.rows if row.status == OK} for table in (base, other)]
    matched = list(_matched(*measured))
    if not matched:
        raise UsageError(f"{base_name} and {name} have no measured op in common; compare tables of one search space")
    statistic = "median_ms" if base.statistic == other.statistic == "median_ms" else "mean_ms"
    ms = np.array([[_time(row, statistic) for row in (one, two)] for _, one, two in matched])
    logs = np.log(ms[:, 1] / ms[:, 0])
    centre = float(np.median(logs))
    spread = float(_MAD_TO_STD * np.median(np.abs(logs - centre)))
    ops = tuple(
        _op_ratio(key[0], one, two, times, (centre, spread)) for (key, one, two), times in zip(matched, ms, strict=True)
    )
    common = {key for (_, key), _, _ in matched}
    return PairComparison(
        base=base_name,
        table=name,
        question=question_of(base, other),
        settings=settings_of(base, other),
        forms=form_differences(base, other),
        left_out=(len(base.rows) - len(measured[0]), len(other.rows) - len(measured[1])),
        only_in=(len({k for _, k in measured[0]} - common), len({k for _, k in measured[1]} - common)),
        factor=float(np.exp(centre)),
        spread=spread,
        ops=ops,
        groups=groups_of(ops),
        **_whole(base, other, ms),
    )


def _whole(base: LatencyTable, other: LatencyTable, ms: np.ndarray) -> dict[str, Any]:
    """`whole_ms` and `whole_noise` of a pair."""
    whole = [table.metadata.get("whole_ms") for table in (base, other)]
    known = [float(each) for each in whole if isinstance(each, int | float) and each > 0]
    if is_of_model(base.metadata) and len(known) == 2:
        one, two = (whole_noise(table) for table in (base, other))
    else:
        known = [float(total) for total in ms.sum(axis=0)]
        one, two = (table_noise(table) for table in (base, other))
    return {"whole_ms": (known[0], known[1]), "whole_noise": max(math.hypot(one, two), LEAST_NOISE)}


def _check_models(base: LatencyTable, other: LatencyTable, base_name: str, name: str) -> None:
    """Raise `UsageError` unless both tables are of the same model file, or both of search spaces."""
    models = [table.metadata.get("model") for table in (base, other)]
    hashes = [model.get("sha256") if isinstance(model, Mapping) else None for model in models]
    for table, model, found in zip((base, other), models, hashes, strict=True):
        if model is not None and not isinstance(found, str):
            raise InputFileError(table.path.with_suffix(".json") if table.path else table.name, "'model' has no sha256")
    if hashes[0] != hashes[1]:
        why = "are of different model files" if None not in hashes else "are of a model and of a search space"
        raise UsageError(f"{base_name} and {name} {why}, so their ops are not the same; profile one model on both")


def _matched(one: Mapping[_Key, Row], other: Mapping[_Key, Row]) -> Iterator[tuple[_Key, Row, Row]]:
    """Yield the rows of the same op, in the order of the first table.

    A row without resolution is valid at all of them, so it also matches rows of single resolutions.
    """
    resolutions: dict[str, dict[int | None, None]] = {}
    for resolution, key in (*one, *other):
        resolutions.setdefault(key, {})[resolution] = None
    for key, found in resolutions.items():
        single: list[int | None] = [resolution for resolution in found if resolution is not None]
        for resolution in single or [None]:
            rows = [rows.get((resolution, key)) or rows.get((None, key)) for rows in (one, other)]
            if rows[0] is not None and rows[1] is not None:
                yield (resolution, key), rows[0], rows[1]


def _time(row: Row, statistic: str) -> float:
    ms = getattr(row, statistic)
    return float(ms if ms is not None else row.median_ms or row.mean_ms or 0.0)


def _op_ratio(resolution: int | None, one: Row, two: Row, ms: np.ndarray, common: tuple[float, float]) -> OpRatio:
    centre, spread = common
    log = float(np.log(ms[1] / ms[0]))
    noises = [row_noise(row) for row in (one, two)]
    noise = max(math.hypot(*(each or 0.0 for each in noises)), LEAST_NOISE)
    described = op_values(one.description)
    return OpRatio(
        op=one.op,
        kind=one.description.kind,
        resolution=resolution,
        base_ms=float(ms[0]),
        ms=float(ms[1]),
        ratio=float(np.exp(log)),
        ratio_without_factor=float(np.exp(log - centre)),
        noise=noise,
        noise_known=None not in noises,
        differs=abs(log) > noise,
        significant=abs(log - centre) > max(noise, _SPREADS * spread),
        worth_ms=float(ms[1] - ms[0] * np.exp(centre)),
        columns={name: described[name] for name in ("kernel_size", "stride", "se", "activation")},
        attributes=other_attributes(one.description),
    )
