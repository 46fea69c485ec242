"""Where a network is cut, and which groups a slot depends on."""

from __future__ import annotations

import numpy as np
import pytest
from support.cut_nets import ResidualNet, cut_parameters, residual_dependencies

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Block, Kernel, TimedModel
from ofa_profiler.models.onnx_blocks import CALL_US
from ofa_search.pruning.groups import CHANNELS, HEADS, Group
from ofa_search.pruning.latency.design import design, networks_for_correction
from ofa_search.pruning.latency.onnx_files import OnnxFiles
from ofa_search.pruning.latency.slots import Blocks, check_prunable, find_places, joined_blocks
from ofa_search.pruning.latency.space import Place, PruningSpace, Width, levels_of, parse_key, point_key


def group(name: str, n_units: int, unit_channels: int = 1) -> Group:
    return Group(name, CHANNELS if unit_channels == 1 else HEADS, n_units, unit_channels, (), ())


def place(name: str, *groups: str) -> Place:
    return Place(name, name, groups, "Conv", (), ())


@pytest.mark.slow
def test_a_slot_per_residual_block() -> None:
    net = ResidualNet((16, 32), depth=3).eval()
    dependencies = residual_dependencies(net)
    blocks = Blocks(OnnxFiles(net, dependencies, ["1x3x32x32"], cut_parameters), this_machine=False)
    places = find_places(blocks, dependencies.groups)
    depends = [set(each.groups) for each in places]
    for i in (1, 2):
        assert {f"blocks.{i}.conv1", "stem.0"} in depends
    for i in (4, 5):
        assert {f"blocks.{i}.conv1", "blocks.3.shortcut.0"} in depends
    assert any({"stem.0", "blocks.3.shortcut.0"} <= found for found in depends)
    assert len({each.template for each in places}) < len(places)  # equal blocks are measured once
    assert "blocks.1.conv2" in {each.name.partition(":")[2] for each in places}
    space = PruningSpace.of(dependencies.groups, places)
    assert len(space.widths) == len(dependencies.groups)
    network = blocks.network(space.counts(space.sample_genomes(np.random.default_rng(0), 1)[0]))
    assert len(network.blocks) == len(places)


def test_levels() -> None:
    assert levels_of(group("a", 64)) == (8, 16, 24, 32, 40, 48, 56, 64)
    assert levels_of(group("a", 20)) == (8, 16, 20)
    assert levels_of(group("a", 4)) == (4,)
    assert levels_of(group("a", 6, 64)) == (1, 2, 3, 4, 5, 6)  # heads
    many = levels_of(group("a", 2048))
    assert len(many) <= 12
    assert (many[0], many[-1]) == (256, 2048)
    assert all(n % 8 == 0 for n in many)


def test_groups_that_meet_in_one_slot_share_a_gene() -> None:
    groups = [group(f"g{i}", 32 * (1 + i % 2)) for i in range(6)]
    places = [place("a", "g0", "g1", "g2", "g3"), place("b", "g4"), place("c", "g3", "g5")]
    space = PruningSpace.of(groups, places)
    assert [width.groups for width in space.widths] == [("g0", "g1", "g2", "g3"), ("g4",), ("g5",)]
    assert space.counts(space.full) == {each.name: each.n_units for each in groups}
    for genome in space.sample_genomes(np.random.default_rng(0), 20):
        assert space.genome(space.counts(genome)).tolist() == genome.tolist()
    assert [len(slot.genes) for slot in space.slots] == [1, 1, 2]
    op_key = space.places[2].key(space.counts(space.full))
    assert op_key == "c 64>64"
    assert parse_key(op_key) == ("c", (64, 64))
    assert parse_key(point_key("stem", [])) == ("stem", ())


def test_slots_of_two_genes_get_a_complete_grid() -> None:
    groups = [group(f"g{i}", 64) for i in range(5)]
    places = [place(f"p{i}", f"g{i}", f"g{i + 1}") for i in range(4)] + [place("long", "g0", "g2", "g4")]
    space = PruningSpace.of(groups, places)
    genomes = design(space, 5)
    assert len(genomes) == 26
    assert (genomes[0] == space.full).all()
    for i in range(4):
        assert len(np.unique(genomes[:, i : i + 2], axis=0)) >= 25
    for pair in ([0, 2], [0, 4], [2, 4]):
        assert len(np.unique(genomes[:, pair], axis=0)) >= 25


def test_networks_for_a_correction_are_spread() -> None:
    cost = np.arange(30.0)[::-1]
    chosen = networks_for_correction(cost, 5)
    assert {0, 29} <= set(chosen.tolist())
    assert 5 <= len(chosen) <= 6


def short_block(us: float) -> Block:
    macs = int(us * 40_000)
    return Block("b", (Kernel("k", "Conv", macs, 0, 0),), (), (), 0, "s", TimedModel(b"", ()))


def test_short_blocks_of_the_same_groups_are_joined() -> None:
    whole = [short_block(60)] * 6
    depends = [["a"], ["a", "b"], ["a", "b"], ["a", "c"], ["a", "c"], ["a"]]
    ends = joined_blocks(whole, depends, CALL_US)
    assert ends[-1] == 5
    assert 2 in ends
    assert len(ends) <= 4
    assert joined_blocks([short_block(5000)] * 3, [["a"], ["b"], ["c"]], CALL_US) == [0, 1, 2]


def test_a_network_without_groups() -> None:
    with pytest.raises(UsageError, match="nothing to prune"):
        check_prunable([place("a")])


def test_a_gene_for_one_group() -> None:
    width = Width.of(group("a", 16))
    assert (width.name, width.gene.choices) == ("a", (8, 16))
