"""The noise of a table: one measure, one verdict.

The verdict is computed here only, when a table is written. It is kept as `stability` in the JSON, and every command
shows the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ofa_profiler.tables.row import OK, Row

#: The measure of tables with a column `half_width`: half of the 95% confidence interval of the median, relative to it.
HALF_WIDTH = "half_width"
#: The measure of all other tables, which contain no single samples: standard deviation divided by mean.
RELATIVE_STD = "relative_std"
#: The largest value of an op that is not noisy. Tables with `half_width` may name their own.
_LIMITS = {HALF_WIDTH: 0.02, RELATIVE_STD: 0.3}
#: A table is noisy if more than this share of its ops is.
_NOISY_SHARE = 0.05
#: Other programs are a reason for noise if they had more than this share of the core, and make any table noisy if they
#: had more than the second one: the medians of ops of several milliseconds are then off by 5% and more.
_OTHERS_REASON, _OTHERS_NOISY = 0.02, 0.1
#: The governor that keeps the clock constant.
_STEADY_GOVERNOR = "performance"

STEADY, NOISY = "steady", "noisy"


@dataclass(frozen=True)
class Stability:
    """The verdict on the noise of a table, and what it follows from."""

    verdict: str
    measure: str
    #: An op above this value of the measure is noisy.
    limit: float
    #: Ops that were measured, and those of them that are noisy.
    ops: int
    noisy: int
    #: Noisy ops that the time limit stopped, and that more time may improve.
    cut_short: int
    #: The noisiest op, and its value; None if the value is unknown, as after a single visit.
    worst: float | None
    worst_op: str | None
    #: What on the device may be the cause.
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the value of `stability` in a table's JSON."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @property
    def is_noisy(self) -> bool:
        """Whether the table as a whole is noisy."""
        return self.verdict == NOISY

    def __str__(self) -> str:
        what = "medians uncertain" if self.measure == HALF_WIDTH else "samples spread"
        worst = f", the worst by {self.worst:.0%}" if self.worst is not None and self.noisy else ""
        noisy = f"{self.noisy} of {self.ops} ops are noisy ({what} by more than {self.limit:.0%}{worst})"
        return "; ".join([noisy, *self.reasons])

    @property
    def remedy(self) -> str:
        """What can be done about noisy ops."""
        remedies = ["resume with a longer --time-limit"] if self.cut_short else []
        if self.cut_short < self.noisy or (self.is_noisy and not self.noisy):
            remedies.append("close other programs and measure again with --fresh")
        return ", or ".join(remedies)


def stability(rows: Sequence[Row], metadata: Mapping[str, Any]) -> Stability | None:
    """Return the verdict in `metadata`, else the one that follows from the rows; None if their noise is unknown."""
    found = metadata.get("stability")
    return _read(found) if isinstance(found, Mapping) else compute_stability(rows, metadata)


def compute_stability(rows: Sequence[Row], metadata: Mapping[str, Any]) -> Stability | None:
    """Return the verdict that follows from the rows, and from `sampling` in the metadata."""
    measured = [row for row in rows if row.status == OK]
    measure = HALF_WIDTH if any(HALF_WIDTH in row.extra for row in measured) else RELATIVE_STD
    if measure == RELATIVE_STD:
        measured = [row for row in measured if row.std_ms is not None and row.mean_ms]
    if not measured:
        return None
    given = metadata.get("sampling")
    sampling: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    limit = (_number(sampling.get("target_half_width")) if measure == HALF_WIDTH else None) or _LIMITS[measure]
    values = [(row.op, _value(row, measure)) for row in measured]
    noisy = [(op, value) for op, value in values if value is None or value > limit]
    cut_short = int(_number(sampling.get("cut_short")) or 0) if measure == HALF_WIDTH else 0
    worst_op, worst = max(values, key=lambda pair: float("inf") if pair[1] is None else pair[1])
    is_noisy = len(noisy) > _NOISY_SHARE * len(values) or _others_share(sampling) > _OTHERS_NOISY
    return Stability(
        NOISY if is_noisy else STEADY,
        measure,
        limit,
        len(values),
        len(noisy),
        min(cut_short, len(noisy)),
        worst,
        worst_op,
        tuple(_reasons(metadata.get("device"), sampling)),
    )


def _reasons(device: object, sampling: Mapping[str, Any]) -> Iterator[str]:
    facts: Mapping[str, Any] = device if isinstance(device, Mapping) else {}
    governor = facts.get("governor")
    if isinstance(governor, str) and governor != _STEADY_GOVERNOR and not facts.get("fixed_performance_mode"):
        yield f"governor {governor}"
    if (share := _others_share(sampling)) > _OTHERS_REASON:
        yield f"other programs took {share:.0%} of the core"


def _others_share(sampling: Mapping[str, Any]) -> float:
    return _number(sampling.get("others_share")) or 0.0


def _value(row: Row, measure: str) -> float | None:
    if measure == RELATIVE_STD:
        return row.relative_std
    try:
        return float(row.extra.get(HALF_WIDTH, ""))
    except ValueError:
        return None


def _read(data: Mapping[str, Any]) -> Stability | None:
    """Read `stability` of a table's JSON. Fields of later versions are ignored; None if a field is missing or wrong."""
    names = [field.name for field in fields(Stability) if field.name != "reasons"]
    if not set(names) <= data.keys() or data["measure"] not in _LIMITS or data["verdict"] not in (STEADY, NOISY):
        return None
    if any(_number(data[name]) is None for name in ("limit", "ops", "noisy", "cut_short")):
        return None
    reasons = data.get("reasons")
    texts = tuple(text for text in reasons if isinstance(text, str)) if isinstance(reasons, list) else ()
    worst, op = _number(data["worst"]), data["worst_op"]
    values = {name: data[name] for name in names} | {"worst": worst, "worst_op": op if op else None}
    return Stability(**values, reasons=texts)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
