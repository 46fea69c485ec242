"""The ratios of ops, and their summary by kind of op and by what ops of a kind differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: What ops of a kind are grouped by: names of columns.
_BY = ((), ("kernel_size",), ("stride",), ("kernel_size", "stride"), ("activation",), ("se",))


@dataclass(frozen=True)
class OpRatio:
    """One op in two tables. Times are in milliseconds, `ratio` is `ms` / `base_ms`."""

    op: str
    kind: str
    #: Of the networks that the times are valid for; None: of all.
    resolution: int | None
    base_ms: float
    ms: float
    ratio: float
    #: `ratio` divided by the factor that all ops share.
    ratio_without_factor: float
    #: What the noise of both rows explains of the ratio, relative, 95%.
    noise: float
    #: Whether both rows tell their noise.
    noise_known: bool
    #: The ratio is not 1 by more than the noise.
    differs: bool
    #: `ratio_without_factor` is not 1 by more than the noise, and by more than the spread of all ops.
    significant: bool
    #: What the op takes longer than the common factor explains; negative if it is faster.
    worth_ms: float
    columns: Mapping[str, Any]
    #: JSON, as in the table.
    attributes: str

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        return {**asdict(self), "columns": dict(self.columns)}


@dataclass(frozen=True)
class Group:
    """Ops of one kind, with the same values of some columns (`by`; empty: all ops of the kind)."""

    kind: str
    by: Mapping[str, Any]
    count: int
    #: The median of the ratios without the common factor.
    ratio_without_factor: float
    significant: int
    #: The sum over the ops.
    worth_ms: float

    @property
    def label(self) -> str:
        """The group in words, such as `mbconv 7x7, stride 2`."""
        words = [_words(name, value) for name, value in self.by.items()]
        return " ".join(filter(None, (self.kind, ", ".join(words))))

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        return {**asdict(self), "by": dict(self.by), "label": self.label}


def _words(name: str, value: Any) -> str:
    if name == "kernel_size":
        return f"{value}x{value}"
    if name == "se":
        return "with se" if value else "without se"
    return f"stride {value}" if name == "stride" else str(value)


def groups_of(ops: Sequence[OpRatio]) -> tuple[Group, ...]:
    """All kinds, each before its parts; parts only where the ops of a kind differ. Slower kinds and parts first."""
    found = []
    by_kind: dict[str, list[OpRatio]] = {}
    for op in ops:
        by_kind.setdefault(op.kind, []).append(op)
    for kind, members in by_kind.items():
        for names in _BY:
            parts = _parts(members, names)
            if not names or len(parts) > 1:
                found += [_group(kind, dict(zip(names, values, strict=True)), part) for values, part in parts.items()]
    whole = {group.kind: group.ratio_without_factor for group in found if not group.by}
    return tuple(
        sorted(
            found,
            key=lambda g: (-whole[g.kind], g.kind, bool(g.by), -g.ratio_without_factor, g.label),
        )
    )


def _parts(members: Sequence[OpRatio], names: Sequence[str]) -> dict[tuple[Any, ...], list[OpRatio]]:
    """Values of the columns -> the ops with them. Ops without such a value are in no part."""
    if len(names) > 1 and any(len({op.columns[name] for op in members}) < 2 for name in names):
        return {}  # a single column says the same
    parts: dict[tuple[Any, ...], list[OpRatio]] = {}
    for op in members:
        values = tuple(op.columns[name] for name in names)
        if None not in values and "" not in values:
            parts.setdefault(values, []).append(op)
    return parts


def _group(kind: str, by: Mapping[str, Any], members: Sequence[OpRatio]) -> Group:
    logs = np.sort(np.log([op.ratio_without_factor for op in members]))
    worth = float(np.sort([op.worth_ms for op in members]).sum())
    return Group(kind, by, len(members), float(np.exp(np.median(logs))), sum(op.significant for op in members), worth)
