"""The measured grid: the milliseconds of points of slots, and what they say about all networks of the space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations_with_replacement, product

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_search.pruning.groups import Counts
from ofa_search.pruning.latency.correction import Correction
from ofa_search.pruning.latency.space import Place, PruningSpace, parse_key, point_key
from ofa_search.pruning.latency.surface import Surface, best_step


@dataclass(frozen=True)
class Point:
    """A slot with some units kept, measured alone. `ms` is None if the device failed on it."""

    op: Op
    ms: float | None


@dataclass(frozen=True, eq=False)
class Grid:
    """Points by their keys. `unit_channels`: group -> the channels of a unit."""

    space: PruningSpace
    unit_channels: Mapping[str, int]
    points: Mapping[str, Point]
    correction: Correction = field(default_factory=Correction)

    def with_points(self, points: Mapping[str, Point]) -> Grid:
        """With more points."""
        return replace(self, points={**self.points, **points})

    @cached_property
    def units(self) -> Mapping[str, Mapping[tuple[int, ...], Point]]:
        """Template -> units -> point."""
        found: dict[str, dict[tuple[int, ...], Point]] = {}
        for key, point in self.points.items():
            template, units = parse_key(key)
            found.setdefault(template, {})[units] = point
        return found

    def missing(self, counts: Counts) -> list[str]:
        """The points of a network that were not measured."""
        return [key for place in self.space.places if (key := place.key(counts)) not in self.points]

    # --- costs ---------------------------------------------------------------------------------------

    @cached_property
    def measured_only(self) -> AdditiveCost:
        """The corrected milliseconds of the networks all of whose points are measured; infinity for the others."""
        return self._corrected(self._times(lambda place, units: self._measured_ms(place, units)))

    @cached_property
    def interpolated(self) -> AdditiveCost:
        """The corrected milliseconds of all networks; what is not measured is interpolated."""
        surfaces = self._surfaces()

        def ms(place: Place, units: NDArray[np.float64]) -> NDArray[np.float64]:
            measured = self._measured_ms(place, units)
            if not np.isinf(measured).any() or place.template not in surfaces:
                return measured
            failed = [self._point(place, kept) is not None for kept in units]  # measured, or failed
            return np.where(failed, measured, surfaces[place.template].at(units))

        return self._corrected(self._times(ms))

    @cached_property
    def sums(self) -> AdditiveCost:
        """`interpolated` without the correction: what the correction is fitted to."""
        return replace(self, correction=Correction()).interpolated

    @cached_property
    def macs(self) -> AdditiveCost:
        """The multiply-accumulates of all networks. They are polynomials of the units, so a few points tell them."""
        return self._counted("macs")

    @cached_property
    def megabytes(self) -> AdditiveCost:
        """What the slots of all networks move: weights, inputs and outputs. Interpolated, too."""
        return self._counted("bytes").affine(1e-6, 0.0)

    def _counted(self, attribute: str) -> AdditiveCost:
        found = {place.template: self._polynomial(place, attribute) for place in self.space.places}
        return self._times(lambda place, units: _polynomial_terms(units) @ found[place.template])

    def share_interpolated(self) -> float:
        """The share of all points of the space that is not measured."""
        found = [np.isinf(part.values).ravel() for part in self.measured_only.parts if part.genes]
        return float(np.concatenate(found).mean()) if found else 0.0

    @cached_property
    def n_points(self) -> tuple[int, int]:
        """How many points are measured, and how many the space has."""
        every = {
            point_key(place.template, tuple(map(int, kept)))
            for place in self.space.places
            for kept in self._combinations(place)[1]
        }
        return len(every & self.points.keys()), len(every)

    def _combinations(self, place: Place) -> tuple[list[int], NDArray[np.float64]]:
        """The shape of a part over the genes of a place, and the units of its groups for each entry."""
        genes = self.space.genes_of(place)
        shape = [len(self.space.widths[gene].levels) for gene in genes]
        found = []
        for levels in product(*map(range, shape)):
            counts = self.space.counts_at(dict(zip(genes, levels, strict=True)))
            found.append([counts[group] for group in place.groups])
        return shape, np.array(found, dtype=float).reshape(math.prod(shape), len(place.groups))

    def _times(self, values: Callable[[Place, NDArray[np.float64]], NDArray[np.float64]]) -> AdditiveCost:
        parts, constant = [], 0.0
        for place in self.space.places:
            shape, units = self._combinations(place)
            found = values(place, units)
            if place.groups:
                parts.append(Part(self.space.genes_of(place), found.reshape(shape)))
            else:
                constant += float(found[0])
        return AdditiveCost(self.space, tuple(parts), constant)

    def _corrected(self, cost: AdditiveCost) -> AdditiveCost:
        fitted = self.correction
        corrected = cost.affine(fitted.scale, fitted.offset_ms)
        if fitted.ms_per_mb > 0:
            corrected = AdditiveCost.weighted([corrected, self.megabytes], [1.0, fitted.ms_per_mb])
        return corrected

    def _point(self, place: Place, units: Sequence[float] | NDArray[np.float64]) -> Point | None:
        return self.points.get(point_key(place.template, tuple(map(int, units))))

    def _measured_ms(self, place: Place, units: NDArray[np.float64]) -> NDArray[np.float64]:
        found = (self._point(place, kept) for kept in units)
        return np.array([math.inf if point is None or point.ms is None else point.ms for point in found])

    def _surfaces(self) -> dict[str, Surface]:
        slots = {}
        for place in self.space.places:
            known = self.units.get(place.template, {})
            points = {kept: ms for kept, point in known.items() if (ms := point.ms) is not None}
            if points and place.groups:
                slots[place.template] = points, [self.unit_channels[group] for group in place.groups]
        step = best_step(list(slots.values()))
        return {template: Surface.fitted(*slot, step) for template, slot in slots.items()}

    def _polynomial(self, place: Place, attribute: str) -> NDArray[np.float64]:
        known = self.units.get(place.template, {})
        units = np.array(list(known), dtype=float).reshape(len(known), len(place.groups))
        counted = np.array([float(point.op.attributes[attribute]) for point in known.values()])
        terms = _polynomial_terms(units)
        scale = np.maximum(np.abs(terms).max(axis=0), 1.0)
        found: NDArray[np.float64] = np.linalg.lstsq(terms / scale, counted, rcond=1e-12)[0] / scale
        return found


def _polynomial_terms(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """1, each number of units, and all products of two."""
    pairs = combinations_with_replacement(range(units.shape[1]), 2)
    return np.column_stack([np.ones(len(units)), *units.T, *(units[:, i] * units[:, j] for i, j in pairs)])
