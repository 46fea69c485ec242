"""Made-up search problems."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa_profiler import get_space
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_search.predictor.relu_network import ReluNetwork
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.objectives import Objective
from ofa_search.searching.problem import Constraint, Problem

CIFAR = get_space("cifar-mbv3")


def work_ms(op: Op) -> float:
    """A made-up latency that is not proportional to MACs: pointwise work, depthwise work, and a start-up."""
    return op.macs / 4e6 + op.attributes["kernel_size"] ** 2 * op.attributes["mid_channels"] / 2e4 + 0.05


class Bumpy(Objective):
    """A score that is no sum over genes; counts what it is asked for."""

    name = "bumps"

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        genes = len(space.genes)
        # Whole numbers: exact in any order of summation.
        self.first, self.second = rng.integers(-99, 100, (genes, 16)), rng.integers(-99, 100, 16)
        self.asked: list[bytes] = []

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        self.asked += [genome.tobytes() for genome in genomes]
        return (np.maximum(genomes.astype(int) @ self.first, 0) @ self.second).astype(float)

    def accuracy(self, score: float) -> float | None:
        return None


class Sloped(Bumpy):
    """The same score with its gradients, and as a network of ReLU."""

    def network(self, space: SearchSpace) -> ReluNetwork:
        choices = [
            gene[np.newaxis] * np.arange(n)[:, np.newaxis] for gene, n in zip(self.first, space.n_choices, strict=True)
        ]
        hidden = (np.vstack(choices).astype(float), np.zeros(len(self.second)))
        return ReluNetwork(space, (hidden, (self.second[:, np.newaxis].astype(float), np.zeros(1))))

    def gradients(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        slopes = ((genomes.astype(int) @ self.first > 0) * self.second) @ self.first.T
        sizes = space.n_choices
        return np.repeat(slopes, sizes, axis=1) * np.concatenate([np.arange(size) for size in sizes])


def constraint(space: SearchSpace, share: float, value: str = "latency") -> Constraint:
    """A budget at `share` of the way from the lowest to the highest cost."""
    per_op = {"latency": work_ms, "params": lambda op: op.params}[value]
    cost = AdditiveCost.from_ops(space, per_op)
    low, high = cost.minimum()[0], cost.maximum()[0]
    return Constraint(value, "ms" if value == "latency" else "parameters", cost, low + share * (high - low))


def problem(
    space: SearchSpace = CIFAR,
    shares: tuple[float, ...] = (0.4,),
    seed: int = 0,
    objective: type[Bumpy] = Bumpy,
) -> Problem:
    constraints = tuple(
        constraint(space, share, value) for share, value in zip(shares, ("latency", "params"), strict=False)
    )
    anchor = find_anchor(space, constraints, np.random.default_rng(0))
    return Problem(space, objective(space, seed), constraints, anchor)
