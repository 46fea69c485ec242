"""Costs over whole spaces: against brute force on small made-up spaces, against sums over ops on the real ones."""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import get_space, space_names
from ofa_profiler.errors import InfeasibleError
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import Gene, SearchSpace, Slot
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.genes import RESOLUTION


class ToySpace(SearchSpace):
    """Any genes and slots; an op carries its value's position in `values` as `mid_channels`."""

    name = "toy"

    def __init__(self, genes, slots, values):
        self._toy_genes, self._toy_slots, self.values = genes, slots, values

    @cached_property
    def genes(self):
        return self._toy_genes

    @cached_property
    def slots(self):
        return self._toy_slots

    def value(self, op: Op) -> float:
        return self.values[op.attributes["mid_channels"]]


@st.composite
def toy_spaces(draw) -> ToySpace:
    """Few genes, some switched by an earlier one, and slots over arbitrary subsets of them, in any order.

    One gene at most is the resolution, whichever; it is never switched, nor does it switch others.
    """
    genes: list[Gene] = []
    count = draw(st.integers(1, 5))
    resolution = draw(st.none() | st.integers(0, count - 1))
    for i in range(count):
        choices = tuple(range(10, 10 + draw(st.integers(1, 3))))
        masters = [j for j in range(i) if j != resolution and genes[j].switch is None and len(genes[j].choices) > 1]
        switch = draw(st.none() | st.sampled_from(masters)) if masters and i != resolution else None
        kind = RESOLUTION if i == resolution else f"g{i}"
        genes.append(Gene(kind, choices, switch=switch, switch_from=1 if switch is not None else 0))
    values: list[float] = []
    slots = []
    for number in range(draw(st.integers(1, 5))):
        wanted = draw(st.sets(st.integers(0, len(genes) - 1), max_size=3))
        wanted |= {genes[g].switch for g in wanted} - {None}
        slots.append(_toy_slot(draw, f"slot{number}", tuple(draw(st.permutations(sorted(wanted)))), genes, values))
    return ToySpace(tuple(genes), tuple(slots), values)


def _toy_slot(draw, name, slot_genes, genes, values) -> Slot:
    number = st.floats(-100, 100) | st.sampled_from([np.inf, 0.0, 1.0])
    entries = {}
    for chosen in product(*(genes[g].choices for g in slot_genes)):
        if draw(st.booleans()) or chosen == ():
            entries[chosen] = len(values)
            values.append(draw(number))

    def build(*chosen):
        value_of = dict(zip(slot_genes, chosen, strict=True))
        for g in slot_genes:  # a gene that is switched off must not matter
            gene = genes[g]
            if gene.switch is not None and genes[gene.switch].choices.index(value_of[gene.switch]) < gene.switch_from:
                value_of[g] = gene.choices[0]
        entry = entries.get(tuple(value_of[g] for g in slot_genes))
        return None if entry is None else block_op("mbconv", (1, 1, 1), (1, 1, 1), mid_channels=entry)

    return Slot(name, slot_genes, build)


def brute_force(space: ToySpace) -> dict[tuple[int, ...], float]:
    """The value of every canonical genome, by the definition."""
    values = {}
    for genome in product(*(range(len(gene.choices)) for gene in space.genes)):
        if tuple(space.canonical(np.array([genome], dtype=np.int8))[0]) == genome:
            chosen = [gene.choices[i] for gene, i in zip(space.genes, genome, strict=True)]
            ops = [slot.build(*(chosen[g] for g in slot.genes)) for slot in space.slots]
            values[genome] = sum(space.value(op) for op in ops if op is not None)
    return values


@settings(max_examples=300, deadline=None)
@given(toy_spaces(), st.data())
def test_equals_brute_force(space, data):
    expected = brute_force(space)
    cost = AdditiveCost.from_ops(space, space.value)
    genomes = np.array(list(expected), dtype=np.int8)
    np.testing.assert_allclose(cost.evaluate(genomes), list(expected.values()), atol=1e-9)

    gene = data.draw(st.integers(0, len(space.genes) - 1))
    held = data.draw(st.integers(0, len(space.genes[gene].choices) - 1))
    # A gene held at a choice that is switched off stands for the genome with its first choice.
    for fixed in ({}, {gene: held}):
        reachable = {
            tuple(space.canonical(np.array([genome], dtype=np.int8))[0])
            for genome in product(*(range(len(g.choices)) for g in space.genes))
            if all(genome[g] == i for g, i in fixed.items())
        }
        finite = [expected[genome] for genome in reachable if np.isfinite(expected[genome])]
        for extreme, best in ((cost.minimum, min), (cost.maximum, max)):
            if not finite:
                with pytest.raises(InfeasibleError, match="toy"):
                    extreme(fixed)
                continue
            value, genome = extreme(fixed)
            assert value == pytest.approx(best(finite), abs=1e-9)
            assert tuple(genome) in reachable
            assert cost.evaluate(genome[np.newaxis])[0] == value


@settings(max_examples=50, deadline=None)
@given(toy_spaces(), st.floats(0.1, 10), st.floats(-10, 10))
def test_affine(space, scale, offset):
    expected = brute_force(space)
    cost = AdditiveCost.from_ops(space, space.value).affine(scale, offset).affine(2.0, 1.0)
    genomes = np.array(list(expected), dtype=np.int8)
    np.testing.assert_allclose(
        cost.evaluate(genomes), 2 * (scale * np.array(list(expected.values())) + offset) + 1, atol=1e-6
    )


def test_value_may_depend_on_the_resolution():
    space = get_space("cifar-mbv3")
    cost = AdditiveCost.from_ops_by_resolution(space, lambda resolution, op: resolution * (op.kind == "classifier"))
    genomes = space.sample_genomes(np.random.default_rng(0), 100)
    assert cost.evaluate(genomes).tolist() == [a.resolution for a in space.decode(genomes)]


@settings(max_examples=50, deadline=None)
@given(toy_spaces())
def test_value_is_asked_for_with_the_resolution_wherever_its_gene_is(space):
    gene = space.resolution_gene
    cost = AdditiveCost.from_ops_by_resolution(space, lambda resolution, op: resolution or 1)
    n_ops = AdditiveCost.from_ops(space, lambda op: 1)
    genomes = space.sample_genomes(np.random.default_rng(0), 20)
    factors = 1 if gene is None else np.array(space.genes[gene].choices)[genomes[:, gene]]
    np.testing.assert_allclose(cost.evaluate(genomes), n_ops.evaluate(genomes) * factors)


@settings(max_examples=50, deadline=None)
@given(toy_spaces(), st.lists(st.floats(0.1, 10), min_size=1, max_size=3))
def test_weighted_sum(space, weights):
    costs = [
        AdditiveCost.from_ops(space, lambda op, n=n: n + op.attributes["mid_channels"]) for n in range(len(weights))
    ]
    genomes = space.sample_genomes(np.random.default_rng(0), 20)
    expected = sum(weight * cost.evaluate(genomes) for cost, weight in zip(costs, weights, strict=True))
    np.testing.assert_allclose(AdditiveCost.weighted(costs, weights).evaluate(genomes), expected)


@pytest.mark.parametrize("name", space_names())
def test_real_spaces(name):
    space = get_space(name)
    space = space.with_resolutions(space.valid_resolutions)
    cost = AdditiveCost.from_ops(space, lambda op: float(op.macs))
    genomes = space.sample_genomes(np.random.default_rng(1), 20_000)
    values = cost.evaluate(genomes)
    assert [space.macs(a) for a in space.decode(genomes[:200])] == values[:200].tolist()
    assert cost.minimum()[0] == space.macs(space.smallest) <= values.min()
    assert cost.maximum()[0] == space.macs(space.largest) >= values.max()
    np.testing.assert_array_equal(cost.evaluate(genomes[:1]), values[:1])
    assert cost.evaluate(genomes[:0]).shape == (0,)


@pytest.mark.parametrize("name", space_names())
def test_extremes_of_random_values(name):
    """Values without any order, some unusable: nothing sampled lies outside, no single change goes beyond."""
    space = get_space(name)
    rng = np.random.default_rng(2)
    values: dict[str, float] = {}

    def value(op: Op) -> float:
        elastic = op.kind == "mbconv" and op.attributes["mid_channels"] != op.input_shape[-1]
        usable = not elastic or rng.random() > 0.1
        return values.setdefault(op.key, rng.uniform(0.1, 5) if usable else np.inf)

    cost = AdditiveCost.from_ops(space, value)
    sampled = cost.evaluate(space.sample_genomes(rng, 50_000))
    (low, lowest), (high, highest) = cost.minimum(), cost.maximum()
    finite = sampled[np.isfinite(sampled)]
    assert low <= finite.min() < finite.max() <= high
    for genome in (lowest, highest):
        neighbours = np.repeat(genome[np.newaxis], int(space.n_choices.sum()), axis=0)
        changes = [(gene, choice) for gene, n in enumerate(space.n_choices) for choice in range(n)]
        neighbours[np.arange(len(changes)), [g for g, _ in changes]] = [c for _, c in changes]
        around = cost.evaluate(space.canonical(neighbours))
        assert around.min() >= low
        assert around[np.isfinite(around)].max() <= high
    assert sum(values[op.key] for op in space.ops(space.decode(lowest[np.newaxis])[0])) == pytest.approx(low)
    gene = space.resolution_gene
    assert gene is not None
    for index in range(len(space.resolutions)):
        value_at, genome = cost.minimum({gene: index})
        assert genome[gene] == index
        assert value_at >= low


@pytest.mark.parametrize("bad", [float("nan"), -np.inf])
def test_refuses_values_that_are_no_cost(bad):
    with pytest.raises(ValueError, match="stem"):
        AdditiveCost.from_ops(get_space("cifar-mbv3"), lambda op: bad)


def test_refuses_genomes_of_another_shape():
    cost = AdditiveCost.from_ops(get_space("cifar-mbv3"), lambda op: 1.0)
    with pytest.raises(ValueError, match="shape"):
        cost.evaluate(np.zeros((3, 2), dtype=np.int8))
    with pytest.raises(ValueError, match="scale"):
        cost.affine(0.0, 1.0)
