"""Linear models of an objective are solved under the budgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.problems import CIFAR, constraint, problem

from ofa_profiler import get_space, space_names
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.searching.engines.linear_model import LinearModels
from ofa_search.searching.problem import Problem


def models_of(asked: Problem) -> LinearModels:
    models = LinearModels.of(asked)
    assert models is not None
    return models


def linear_scores(asked: Problem, values: np.ndarray, genomes: np.ndarray) -> np.ndarray:
    """The sums of the values (columns,) of genes that have an effect."""
    space = asked.space
    first = np.cumsum([0, *space.n_choices[:-1]])
    active = np.stack(
        [
            np.ones(len(genomes), bool) if gene.switch is None else genomes[:, gene.switch] >= gene.switch_from
            for gene in space.genes
        ],
        axis=1,
    )
    return np.where(active, values[first + genomes], 0.0).sum(axis=1)


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("shares", [(0.15,), (0.3, 0.3)])
def test_what_is_found_keeps_the_budgets_and_the_given_genes(name: str, shares: tuple[float, ...]) -> None:
    asked = problem(get_space(name), shares)
    models, rng = models_of(asked), np.random.default_rng(0)
    parents = asked.space.sample_genomes(rng, 64)
    given_genes = parents[:, models.given]
    values = rng.standard_normal((64, int(asked.space.n_choices.sum())))
    weights = rng.dirichlet(np.ones(len(shares)), 64)
    found = models.best(parents, values, np.zeros(64), given_genes, weights)
    assert len(set(found.models.tolist())) > 5
    assert (asked.space.canonical(found.genomes) == found.genomes).all()
    assert (found.genomes[:, models.given] == given_genes[found.models]).all()
    for limit in asked.constraints:
        assert (limit.cost.evaluate(found.genomes) <= limit.budget * (1 + 1e-5)).all()  # costs are float32 there


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.2, 0.9))
def test_nothing_is_much_better_than_what_is_found(seed: int, share: float) -> None:
    """No random network with the same given genes."""
    space = CIFAR.at(CIFAR.resolutions[0])
    asked = problem(space, (share,))
    models, rng = models_of(asked), np.random.default_rng(seed)
    values = rng.standard_normal(int(space.n_choices.sum()))
    parent = space.sample_genomes(rng, 1)
    found = models.best(parent, values[np.newaxis], np.zeros(1), parent[:, models.given], np.ones((1, 1)))
    others = np.repeat(parent, 20_000, axis=0)
    free = np.setdiff1d(np.arange(len(space.genes)), models.given)
    others[:, free] = space.sample_genomes(rng, 20_000)[:, free]
    others = space.canonical(others)
    others = others[asked.feasible(others)]
    if not len(found.genomes):
        assert not len(others)
        return
    best = linear_scores(asked, values, found.genomes).max()
    assert best >= (linear_scores(asked, values, others).max() if len(others) else -np.inf)


def test_a_price_of_changes_keeps_the_parent() -> None:
    asked = problem(CIFAR, (0.9,))
    models, rng = models_of(asked), np.random.default_rng(0)
    parents = asked.space.sample_genomes(rng, 32)
    parents = parents[asked.feasible(parents)]
    values = rng.standard_normal((len(parents), int(CIFAR.n_choices.sum())))
    weights = np.ones((len(parents), 1))
    found = models.best(parents, values, np.full(len(parents), 1e6), parents[:, models.given], weights)
    assert (found.genomes == parents[found.models]).all()


def test_bits_are_given_until_the_others_fall_apart() -> None:
    mixed = MixedSpace.of(CIFAR)
    asked = Problem(
        mixed, problem().objective, (constraint(mixed, 0.5, "params"),), np.zeros(len(mixed.genes), np.int8)
    )
    models = models_of(asked)
    sizes = [int(np.prod(mixed.n_choices[[g for g in genes if g < len(mixed.genes)]])) for genes in models.groups.genes]
    assert max(sizes) <= 128
    assert len(models.given) + sum(map(len, models.groups.genes)) >= len(mixed.genes)


def test_joint_choices_cost_what_their_genomes_cost() -> None:
    """The tables of all groups and the shared costs add up to the cost of a genome."""
    asked = problem(get_space("ofa-resnet50"), (0.5,))
    models, rng = models_of(asked), np.random.default_rng(0)
    groups, cost = models.groups, asked.constraints[0].cost
    for genome in asked.space.sample_genomes(rng, 50):
        rows = genome[models.given].astype(int) @ groups.weights + groups.offsets
        total = float(models.shared[0].evaluate(genome[np.newaxis])[0])
        padded = np.append(genome, 0)
        for number, row in enumerate(rows):
            wanted = padded[groups.genes[number]]
            choice = int((groups.choices[number] == wanted).all(axis=1).argmax())
            total += float(groups.costs[0, choice, row])
        assert total == pytest.approx(float(cost.evaluate(genome[np.newaxis])[0]), rel=1e-5)
