"""Spaces with fewer choices: their networks are those of the whole space that have the fixed values, and no others."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.language import choice, conv, global_pool, linear, optional, repeat, residual, sequence
from ofa_profiler.spaces.language import space as language_space
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.spaces.narrowing import narrowed, narrowed_cost
from ofa_search.predictor.features import Features

CIFAR = get_space("cifar-mbv3")
WIDTH = choice("width", [8, 16, 24])
LANGUAGE = language_space(
    sequence(
        conv(WIDTH, 3, 2, "relu"),
        repeat(
            lambda number: residual(
                conv(WIDTH, choice("kernel", [1, 3, 5])),
                optional(conv(WIDTH, activation=choice("act", ["", "relu"])), "more"),
            ),
            choice("depth", [1, 2, 3]),
            name="stage",
        ),
        global_pool(),
        linear(),
    ),
    resolutions=[16, 24, 32],
    classes=10,
).named("test:LANGUAGE")
SPACES = {name: get_space(name) for name in space_names()} | {"mixed": MixedSpace.of(CIFAR), "language": LANGUAGE}


@st.composite
def some_fixed(draw: st.DrawFn) -> tuple[SearchSpace, dict[str, Any]]:
    space = SPACES[draw(st.sampled_from(sorted(SPACES)))]
    plain = space.plain if isinstance(space, MixedSpace) else space
    fixed = {}
    for gene, labels in zip(plain.genes, plain.labels, strict=True):
        if draw(st.booleans()):
            fixed[gene.name] = draw(st.lists(st.sampled_from(list(labels)), min_size=1, max_size=2))
    return space, fixed


@settings(max_examples=40, deadline=None)
@given(some_fixed(), st.integers(0, 99))
def test_its_networks_are_those_with_the_fixed_values(case: tuple[SearchSpace, dict[str, Any]], seed: int) -> None:
    whole, fixed = case
    space = narrowed(whole, fixed)
    genomes = space.sample_genomes(np.random.default_rng(seed), 40)
    assert (space.canonical(genomes) == genomes).all()
    architectures = space.decode(genomes)
    assert (space.encode(architectures) == genomes).all()
    wide = space.widened(genomes)
    assert (space.unrestricted.encode(architectures) == wide).all()
    plain = whole.plain if isinstance(whole, MixedSpace) else whole
    for position, gene in enumerate(plain.genes):
        if gene.name in fixed and gene.name != "resolution":
            has_effect = space.unrestricted.canonical(_changed(wide, position, space)) != wide
            labels = np.array([plain.labels[position].index(value) for value in fixed[gene.name]])
            active = has_effect.any(axis=1) & (len(gene.choices) > 1)
            assert np.isin(wide[active, position], labels).all(), gene.name
    if "resolution" in fixed:
        assert {architecture.resolution for architecture in architectures} <= set(fixed["resolution"])


def _changed(genomes: np.ndarray, position: int, space: SearchSpace) -> np.ndarray:
    """The same with another choice of one gene."""
    changed = genomes.copy()
    changed[:, position] = (changed[:, position] + 1) % len(space.unrestricted.genes[position].choices)
    return changed


@settings(max_examples=25, deadline=None)
@given(some_fixed(), st.integers(0, 99))
def test_costs_and_features_are_those_of_the_whole_space(case: tuple[SearchSpace, dict[str, Any]], seed: int) -> None:
    whole, fixed = case
    space = narrowed(whole, fixed)
    genomes = space.sample_genomes(np.random.default_rng(seed), 40)
    cost, of_whole = (
        AdditiveCost.from_ops(each, lambda op: op.macs / 1e6 + 0.01) for each in (space, space.unrestricted)
    )
    expected = of_whole.evaluate(space.widened(genomes))
    np.testing.assert_allclose(cost.evaluate(genomes), expected)
    np.testing.assert_allclose(narrowed_cost(of_whole, space).evaluate(genomes), expected)
    lowest, genome = cost.minimum()
    assert lowest <= expected.min() * (1 + 1e-9)
    assert of_whole.evaluate(space.widened(genome[np.newaxis]))[0] == pytest.approx(lowest)
    features = Features.of(space.unrestricted)
    assert features.count(space) == features.count(space.unrestricted)
    ones = features.ones(space, genomes)
    assert (ones == features.ones(space.unrestricted, space.widened(genomes))).all()
    choices, columns = features.columns(space)
    assert len(choices) == len(columns) <= features.count(space)


def test_a_name_may_leave_parts_out() -> None:
    space = narrowed(CIFAR, {"depth": "2", "stage1.kernel_size": ["3", "5"], "stage0.block1.expand_ratio": 3})
    for gene, whole in zip(space.genes, CIFAR.genes, strict=True):
        expected: tuple[float, ...] = whole.choices
        if gene.kind == "depth":
            expected = (2,)
        elif gene.name.startswith("stage1.") and gene.kind == "kernel_size":
            expected = (3, 5)
        elif gene.name == "stage0.block1.expand_ratio":
            expected = (3,)
        assert gene.choices == expected, gene.name
    assert {len(stage.kernel_sizes) for stage in space.largest.stages} == {2}


def test_one_network_is_a_space_too() -> None:
    rng = np.random.default_rng(1)
    architecture = CIFAR.sample(rng)
    values = {gene.name: gene.choices[i] for gene, i in zip(CIFAR.genes, CIFAR.encode([architecture])[0], strict=True)}
    space = narrowed(CIFAR, values)
    assert set(space.decode(space.sample_genomes(rng, 20))) == {architecture}
    assert space.with_classes(7).ops(architecture)[-1].output_shape == (7,)
    with pytest.raises(UsageError, match="restricted to other choices"):
        space.validate(replace(CIFAR.largest, resolution=architecture.resolution))


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"size": 3}, "has no choice 'size'; it has resolution, depth, kernel_size, expand_ratio"),
        ({"stage9.depth": 3}, "has no choice 'stage9.depth'"),
        ({"kernel_size": "4"}, "kernel_size cannot be 4; it can be 3, 5"),
        ({"resolution": "big"}, "resolution cannot be big; it can be"),
        ({"depth": 2, "stage0.depth": 3}, "stage0.depth: nothing is left of stage0.depth, which is fixed twice"),
    ],
)
def test_mistakes_name_what_is_valid(fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        narrowed(CIFAR, fixed)
