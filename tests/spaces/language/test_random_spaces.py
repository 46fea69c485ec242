"""What holds for every space in the language, shown on random ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.both_formats import RUNTIMES, run_file, run_graph_file
from support.languages import language_spaces
from support.spaces import registered

from ofa_profiler import Architecture
from ofa_profiler.export import get_exporter
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.made_up_weights import random_weights, repeating_weights
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces.costs import AdditiveCost

torch.set_num_threads(1)
SEEDS = st.integers(0, 1000)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(language_spaces(), SEEDS)
def test_every_network_has_the_ops_and_the_genome_of_its_space(written, seed):
    rng = np.random.default_rng(seed)
    with registered(written.named("mine:SPACE")) as space:
        genomes = space.sample_genomes(rng, 8)
        assert (space.canonical(genomes) == genomes).all()
        architectures = space.decode(genomes)
        assert (space.encode(architectures) == genomes).all()
        ops = {op.key: op for op in space.unique_ops()}
        assert len(ops) == len(space.unique_ops()), "two different ops have one key"
        macs = AdditiveCost.from_ops(space, lambda op: op.macs)
        for architecture, counted in zip(architectures, macs.evaluate(genomes), strict=True):
            assert Architecture.from_json(architecture.to_json()) == architecture
            layout = space.layout(architecture)
            graph = as_graph(layout)  # raises where the shapes of two ops do not fit
            assert {op.key for _, op in layout} <= ops.keys()
            assert all(ops[op.key] == op for _, op in layout)
            assert graph.macs == space.macs(architecture) == counted
            assert graph.params == space.params(architecture)
            assert graph.shapes[graph.outputs[0]] == (5,)
            assert len({name for name, _ in layout}) == len(layout)


@QUICK
@given(language_spaces(), SEEDS)
def test_genes_without_effect_change_nothing_and_all_others_something(written, seed):
    """The networks of all genomes are those of the canonical ones."""
    with registered(written.named("mine:SPACE")) as space:
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, space.n_choices, size=(8, len(space.genes))).astype(np.int8)
        for genome, canonical in zip(drawn, space.canonical(drawn), strict=True):
            assert _ops(space, genome) == _ops(space, canonical)


def _ops(space, genome) -> list[Op | None]:
    values = [gene.choices[i] for gene, i in zip(space.genes, genome, strict=True)]
    return [slot.build(*(values[gene] for gene in slot.genes)) for slot in space.slots]


@QUICK
@given(language_spaces())
def test_an_op_says_its_layers_itself(written):
    for op in written.unique_ops():
        assert Op.from_json(op.to_json()).graph == op.graph


def check_outputs(written, seed: int) -> None:
    with registered(written.named("mine:SPACE")) as space:
        rng = np.random.default_rng(seed)
        architecture = space.sample(rng)
        layout = space.layout(architecture)
        weights = random_weights(layout, rng)
        side = architecture.resolution
        images = rng.standard_normal((2, 3, side, side), dtype=np.float32)
        module = StaticNetwork(layout)
        load_weights(module, weights)
        with torch.no_grad():
            expected = module.eval()(torch.from_numpy(images)).numpy()
        assume(np.isfinite(expected).all())
        for runtime in RUNTIMES:
            got = run_graph_file(runtime, as_graph(layout), weights, images)
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * max(np.abs(expected).max(), 1e-3))


@settings(QUICK, max_examples=6)
@given(language_spaces(), SEEDS)
def test_models_compute_what_the_network_computes(written, seed):
    check_outputs(written, seed)


@pytest.mark.slow
@settings(QUICK, max_examples=150)
@given(language_spaces(depth=3), SEEDS)
def test_models_of_many_spaces_compute_what_the_network_computes(written, seed):
    check_outputs(written, seed)


def check_int8(written, seed: int) -> None:
    """The integer models of a network run, and those of all ops are written."""
    with registered(written.named("mine:SPACE")) as space:
        rng = np.random.default_rng(seed)
        architecture = space.sample(rng)
        graph = as_graph(space.layout(architecture))
        images = rng.standard_normal((1, 3, architecture.resolution, architecture.resolution), dtype=np.float32)
        for runtime in RUNTIMES:
            target = Target(runtime, "int8")
            exporter = get_exporter(target)
            for op in space.unique_ops()[:30]:
                exporter.build(op.graph, repeating_weights(op), target, outputs=["output"], metadata={})
            data = exporter.build(graph, random_weights(graph, rng), target, outputs=["logits"], metadata={})
            assert np.isfinite(run_file(runtime, data, {"input": images})).all()


@settings(QUICK, max_examples=5)
@given(language_spaces(), SEEDS)
def test_networks_have_integer_models(written, seed):
    check_int8(written, seed)


@pytest.mark.slow
@settings(QUICK, max_examples=60)
@given(language_spaces(depth=3), SEEDS)
def test_networks_of_many_spaces_have_integer_models(written, seed):
    check_int8(written, seed)
