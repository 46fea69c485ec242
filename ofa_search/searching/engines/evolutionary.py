"""Evolutionary search, as in the OFA paper (arXiv 1908.09791, section 3.4), on whole generations at once.

Each generation keeps the best genomes ever seen as parents; half of the children are mutated copies,
half are crossed from two parents. A last step tries every change of one or two genes of the winner,
which evolution leaves to chance, and in mixed precision of the bits of every run of slots.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_search.searching.engines.annealing import Annealing
from ofa_search.searching.engines.base import Engine, Evaluator
from ofa_search.searching.engines.linear_model import LinearModels
from ofa_search.searching.engines.moves import crossed, mutated, neighbours, runs

Scores = NDArray[np.float64]

#: Few evaluations are spread over about so many generations.
_GENERATIONS = 20
#: The powers with which chains and proposals shrink; rounds take the rest, since each learns from the one before.
_CHAINS, _PROPOSALS = 1 / 3, 1 / 3
#: The powers with which chains and rounds grow, and the share of the proposals that are new and under the budgets.
_MORE_CHAINS, _MORE_ROUNDS, _NEW_SHARE = 2 / 3, 1 / 3, 0.75
#: Rounds of annealing, and the patience of generations, where the starts are good.
_QUICK_ROUNDS, _QUICK_PATIENCE = 40, 5
#: Chains are renewed after so many rounds at the earliest.
_SHORTEST = 5


@dataclass(frozen=True)
class Evolutionary(Engine):
    """The default. `patience` is the number of generations without a better genome after which it stops.

    If evaluations are limited, all before the last step gets `first_share` of them.
    """

    name = "evolutionary"
    population: int = 1024
    parents: int = 256
    generations: int = 120
    patience: int = 20
    mutation_share: float = 0.5
    mutation_rate: float = 0.12
    polish_rounds: int = 8
    first_share: float = 0.9
    annealing: Annealing = field(default_factory=Annealing)

    def _search(self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: Scores) -> None:
        problem = evaluator.problem
        models = LinearModels.of(problem)
        fitting = self.within(evaluator.left * self.first_share)
        if models is not None and problem.objective.gradients(problem.space, known) is not None:
            evaluator.spend(self.first_share, lambda: fitting.annealing.run(evaluator, models, rng, known, scores))
        else:
            evaluator.spend(self.first_share, lambda: fitting._evolve(evaluator, rng, known, scores))
        self._polish(evaluator)

    @property
    def most_evaluations(self) -> int:
        """About so many genomes are scored without a limit, with gradients."""
        return round(self.annealing.most_evaluations / self.first_share)

    @property
    def quick(self) -> Engine:
        rounds = min(_QUICK_ROUNDS, self.annealing.rounds)
        annealing = replace(self.annealing, rounds=rounds, renewal_rounds=rounds, starts_per_chain=1)
        return replace(self, annealing=annealing, patience=min(_QUICK_PATIENCE, self.patience))

    def within(self, evaluations: float) -> Evolutionary:
        """With a smaller population, and with fewer or more chains and rounds, if evaluations are limited."""
        if evaluations == inf:
            return self
        population = max(8, min(self.population, int(evaluations / _GENERATIONS)))
        return replace(
            self,
            population=population,
            parents=max(2, min(self.parents, population // 4)),
            annealing=_within(self.annealing, evaluations),
        )

    def _evolve(self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: Scores) -> None:
        problem = evaluator.problem
        drawn = problem.space.sample_genomes(rng, 4 * self.population)
        drawn = drawn[np.argsort(~problem.feasible(drawn), kind="stable")]  # those under the budgets first
        first = evaluator.fresh(evaluator.under_budgets(drawn, rng), self.population)
        genomes = np.vstack([known, first])
        scores = np.concatenate([scores, evaluator.score(first)])
        since_best = 0
        for _ in range(self.generations):
            keep = np.argsort(-scores, kind="stable")[: self.parents]
            genomes, scores, best = genomes[keep], scores[keep], evaluator.best_score
            # Many children are over a budget or seen before; three times as many leave enough.
            children = evaluator.fresh(self._children(problem.space, genomes, rng), self.population)
            genomes = np.vstack([genomes, children])
            scores = np.concatenate([scores, evaluator.score(children)])
            since_best = 0 if evaluator.best_score > best else since_best + 1
            if since_best == self.patience:
                break

    def _children(self, space: SearchSpace, parents: Genomes, rng: np.random.Generator) -> Genomes:
        count = 3 * self.population
        first, second = parents[rng.integers(len(parents), size=(2, count))]
        n_mutants = round(count * self.mutation_share)
        mutants, firsts = first[:n_mutants], first[n_mutants:]
        children = np.vstack(
            [mutated(space, mutants, self.mutation_rate, rng), crossed(space, firsts, second[n_mutants:], rng)]
        )
        # Shuffled, so that neither kind crowds out the other when there are enough children.
        return children[rng.permutation(count)]

    def _polish(self, evaluator: Evaluator) -> None:
        """Walk from the best genome to the best one that differs in one or two genes, while that is better."""
        space = evaluator.problem.space
        for _ in range(self.polish_rounds):
            assert evaluator.best is not None
            best = evaluator.best_score
            singles = neighbours(space, evaluator.best)
            pairs = np.vstack([singles, *(neighbours(space, genome) for genome in singles)])
            evaluator.score(evaluator.fresh(np.vstack([pairs, runs(space, evaluator.best)])))
            if evaluator.best_score <= best:
                break


def _within(annealing: Annealing, evaluations: float) -> Annealing:
    """Fewer chains, proposals and rounds, if these settings need more evaluations; else more chains and rounds."""
    share = evaluations / annealing.most_evaluations
    if share >= 1:
        share /= _NEW_SHARE
        chains, rounds = round(annealing.chains * share**_MORE_CHAINS), round(annealing.rounds * share**_MORE_ROUNDS)
        return replace(annealing, chains=chains, rounds=rounds)
    chains = max(2, round(annealing.chains * share**_CHAINS))
    starts = max(1, round(annealing.starts_per_chain * share**_CHAINS))
    proposals = max(2, round(annealing.proposals * share**_PROPOSALS))
    more = 1 + (starts - 1) * annealing.renewal_rounds / annealing.rounds
    rounds = max(1, ceil((evaluations / chains - starts) / proposals / more))
    renewal = max(_SHORTEST, round(annealing.renewal_rounds * rounds / annealing.rounds))
    return replace(
        annealing, chains=chains, starts_per_chain=starts, proposals=proposals, rounds=rounds, renewal_rounds=renewal
    )
