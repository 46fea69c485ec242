"""Made-up search problems in mixed precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.objectives import Objective
from ofa_search.searching.problem import Constraint, Problem


def by_bits(space: MixedSpace, ops: tuple[Any, Any], change: float, constant: float = 0.0) -> AdditiveCost:
    """A cost with a value for int8 and for float32 ops, and one for each change of precision inside the network."""
    pair = [AdditiveCost.from_slots(space, lambda _, __, op, value=value: value(op)).parts for value in ops]
    parts = [
        Part((*int8.genes, space.bits_gene(slot)), np.stack([int8.values, fp32.values], axis=-1))
        for slot, (int8, fp32) in enumerate(zip(*pair, strict=True))
    ]
    for edge in space.edges:
        if edge.before is None or edge.after is None:
            continue
        genes = [space.bits_gene(edge.before), space.bits_gene(edge.after)]
        values = change * (1 - np.eye(2))
        # It is there if both ends are active, and no slot between them is.
        states = [(edge.before, True), (edge.after, True), *((slot, False) for slot in edge.between)]
        for slot, wanted in states:
            activity = space.activities[slot]
            if activity.switch is None:
                continue
            active = np.arange(space.n_choices[activity.switch]) >= activity.switch_from
            if activity.switch not in genes:
                genes.append(activity.switch)
                values = values[..., np.newaxis] * np.ones(len(active))
            axis = genes.index(activity.switch)
            shape = [-1 if i == axis else 1 for i in range(values.ndim)]
            values = values * (active == wanted).reshape(shape)
        parts.append(Part(tuple(genes), values))
    return AdditiveCost(space, tuple(parts), constant)


def fp32_ms(op: Op) -> float:
    return op.macs / 4e6 + 0.05


def int8_ms(op: Op) -> float:
    """Some kinds of op gain much, others lose."""
    fields: Any = op.attributes
    return fp32_ms(op) * (1.3 if fields.get("se") else 0.3 if fields.get("kernel_size") != 5 else 0.9)


class Linear(Objective):
    """A sum over ops, of which int8 loses a part."""

    name = "points"

    def __init__(self, space: MixedSpace) -> None:
        value = lambda op: np.log1p(op.macs)  # noqa: E731
        self.cost = by_bits(space, (lambda op: 0.97 * value(op), value), 0.0)

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        return self.cost.evaluate(genomes)

    def accuracy(self, score: float) -> float | None:
        return None


def mixed_problem(space: MixedSpace, share: float) -> Problem:
    cost = by_bits(space, (int8_ms, fp32_ms), change=0.05)
    low, high = cost.minimum()[0], cost.maximum()[0]
    constraint = Constraint("table", "ms", cost, low + share * (high - low))
    return Problem(space, Linear(space), (constraint,), find_anchor(space, [constraint], np.random.default_rng(0)))
