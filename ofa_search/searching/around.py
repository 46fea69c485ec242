"""What surrounds the answer of a search: every single change, the uniform networks, and a quick front.

All of it takes a few tenths of a second. None of it is asked of an objective that is expensive: its scores are unknown
here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import Cost
from ofa_profiler.spaces.mixed import PRECISIONS, MixedSpace
from ofa_profiler.tables.mixed import AnyTable
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.moves import single_changes
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.problem import Constraint, Genome, Problem

#: The searches of a quick front, and how many networks each of them scores.
_BUDGETS, _EVALUATIONS = 5, 150
#: How far the tightest and the loosest budget of a quick front are from the ends, as a part of the range.
_FROM_THE_ENDS = 0.03


@dataclass(frozen=True)
class Network:
    """A network near the answer. `score` is None if the objective is too expensive to ask."""

    architecture: Architecture
    score: float | None
    predicted_accuracy: float | None
    #: By table; infinite if an op of it cannot be used.
    latency_ms: Mapping[str, float]
    keeps_limits: bool


@dataclass(frozen=True)
class Change:
    """One gene of the answer with another value. `choice` is the name of the gene; differences are to the answer."""

    choice: str
    before: Any
    after: Any
    network: Network
    score_change: float | None
    accuracy_change: float | None
    latency_change_ms: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """One of the `changes` of a result. A network that cannot run has no latency."""
        finite = {name: ms if math.isfinite(ms) else None for name, ms in self.latency_change_ms.items()}
        return {
            "choice": self.choice,
            "from": self.before,
            "to": self.after,
            "score_change": self.score_change,
            "accuracy_change": self.accuracy_change,
            "latency_change_ms": finite,
            "keeps_limits": self.network.keeps_limits,
        }


@dataclass(frozen=True, eq=False)
class Around:
    """What surrounds the anchor of a problem, which is its answer, by the tables of its first constraints."""

    problem: Problem
    tables: Sequence[AnyTable]
    _costs: dict[str, Cost] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._costs.update({table.name: table.cost(self.problem.space) for table in self.tables})

    @property
    def knows_scores(self) -> bool:
        """Whether networks are scored."""
        return self.problem.objective.default_evaluations is None

    def networks(self, genomes: Genomes) -> list[Network]:
        """Canonical genomes (N, G) as networks."""
        problem = self.problem
        scores: list[float | None] = [None] * len(genomes)
        if self.knows_scores and len(genomes):
            with threadpool_limits(1, "blas"):
                scores = problem.objective.scores(problem.space, genomes).tolist()
        latencies = {name: cost.evaluate(genomes).tolist() for name, cost in self._costs.items()}
        feasible = problem.feasible(genomes).tolist()
        return [
            Network(
                architecture,
                score,
                None if score is None else problem.objective.accuracy(score),
                {name: milliseconds[i] for name, milliseconds in latencies.items()},
                feasible[i],
            )
            for i, (architecture, score) in enumerate(zip(problem.space.decode(genomes), scores, strict=True))
        ]

    @cached_property
    def answer(self) -> Network:
        """The answer itself."""
        return self.networks(self.problem.anchor[np.newaxis])[0]

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Every change of one gene: the best ones first, of equal ones the fastest."""
        space = self.problem.space
        genomes, genes = single_changes(space, self.problem.anchor)
        rows = zip(genomes, genes.tolist(), self.networks(genomes), strict=True)
        found = [self._change(gene, genome, network) for genome, gene, network in rows]
        first = self.tables[0].name
        return tuple(sorted(found, key=lambda each: (-(each.score_change or 0.0), each.latency_change_ms[first])))

    def _change(self, gene: int, genome: Genome, network: Network) -> Change:
        answer, space = self.answer, self.problem.space
        before, after = (
            _value(space, gene, int(row[gene]), at)
            for row, at in ((self.problem.anchor, answer.architecture), (genome, network.architecture))
        )
        accuracies = network.predicted_accuracy, answer.predicted_accuracy
        return Change(
            space.genes[gene].name,
            before,
            after,
            network,
            None if network.score is None or answer.score is None else network.score - answer.score,
            None if accuracies[0] is None or accuracies[1] is None else accuracies[0] - accuracies[1],
            {name: ms - answer.latency_ms[name] for name, ms in network.latency_ms.items()},
        )

    @cached_property
    def uniform(self) -> dict[str, Network]:
        """The networks with the smallest, the middle and the largest value of every choice, by what they are called.

        In mixed precision, all of each precision.
        """
        space = self.problem.space
        plain = space.plain if isinstance(space, MixedSpace) else space
        found: dict[str, Genome] = {}
        for size, rank in (("smallest", 0.0), ("middle", 0.5), ("largest", 1.0)):
            genome = np.array([_ranked(gene.choices, rank) for gene in plain.genes], dtype=np.int8)
            if not isinstance(space, MixedSpace):
                found[size] = genome
                continue
            for number, precision in enumerate(PRECISIONS.values()):
                found[f"{size}, {precision}"] = np.append(genome, np.full(len(space.slots), number, dtype=np.int8))
        networks = self.networks(space.canonical(np.array(list(found.values()))))
        return dict(zip(found, networks, strict=True))

    @cached_property
    def front(self) -> tuple[Network, ...]:
        """The best networks of quick searches for a few budgets of the first table, from tight to loose."""
        first, *others = self.problem.constraints
        if not self.knows_scores or not first.cost.is_exact:
            return ()
        low, high = first.cost.minimum()[0], first.cost.maximum()[0]
        shares = np.linspace(_FROM_THE_ENDS, 1 - _FROM_THE_ENDS, _BUDGETS)
        # More budgets where the accuracy grows fast.
        budgets = low * (high / low) ** shares if low > 0 else low + (high - low) * shares
        genomes = list(self._found([replace(first, budget=float(budget)) for budget in budgets], others))
        return tuple(self.networks(np.array(genomes))) if genomes else ()

    def _found(self, limits: Sequence[Constraint], others: Sequence[Constraint]) -> Iterator[Genome]:
        problem = self.problem
        known = problem.anchor[np.newaxis]
        for limit in limits:
            constraints, rng = (limit, *others), np.random.default_rng(0)
            try:
                anchor = find_anchor(problem.space, constraints, rng)
            except InfeasibleError:  # the other limits allow no network as fast as that
                continue
            here = Problem(problem.space, problem.objective, constraints, anchor)
            with threadpool_limits(1, "blas"):
                best = Evolutionary().search(here, rng, known[here.feasible(known)], _EVALUATIONS)
            known = np.vstack([known, best.genome])
            yield best.genome


def _ranked(choices: Sequence[float], rank: float) -> int:
    """The index of the value at this rank, between the smallest (0) and the largest (1)."""
    order = sorted(range(len(choices)), key=choices.__getitem__)
    return order[round(rank * (len(choices) - 1))]


def _value(space: SearchSpace, gene: int, index: int, architecture: Architecture) -> Any:
    """What an option of a gene is called, in an architecture that has it."""
    value = space.genes[gene].choices[index]
    if isinstance(space, MixedSpace) and gene >= len(space.plain.genes):
        return PRECISIONS[int(value)]
    return dict(architecture.choices).get(space.genes[gene].name, value)


def undominated(networks: Sequence[Network], table: str) -> list[Network]:
    """Those that no other one beats in latency and score, from fast to slow."""
    kept: list[Network] = []
    for network in sorted(networks, key=lambda each: (each.latency_ms[table], -(each.score or 0.0))):
        if network.score is not None and (not kept or network.score > (kept[-1].score or -math.inf)):
            kept.append(network)
    return kept
