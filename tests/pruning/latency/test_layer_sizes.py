"""The sizes of layers of cut networks, learned from a few."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_profiler.networks.graph import Graph, Node
from ofa_profiler.networks.layers import Affine, AnyConv, Concat, Conv, GlobalPool, Linear
from ofa_profiler.networks.tensors import TensorSpec
from ofa_search.pruning.groups import CHANNELS, Axis, Dependencies, Group
from ofa_search.pruning.latency.layer_sizes import LayerTemplate, numbers_of
from ofa_search.pruning.latency.rules import Example, NotLearned

WHOLE = {"a": 16, "b": 24, "c": 32}
DRAWN = [{"a": 11, "b": 13, "c": 30}, {"a": 8, "b": 23, "c": 17}, {"a": 15, "b": 20, "c": 21}]


def joined(a: int, b: int, c: int, last: str = "relu") -> Graph:
    """A concatenation, as in a DenseNet, then a depthwise convolution."""
    nodes = (
        Node("a", Conv("a", 3, a, 3, batch_norm=False), ("x",)),
        Node("b", AnyConv("b", a, b, (3, 3), pads=(1, 1, 1, 1)), ("a",)),
        Node("both", Concat("both"), ("a", "b")),
        Node("norm", Affine("norm", a + b, "relu"), ("both",)),
        Node("c", AnyConv("c", a + b, c, (1, 1)), ("norm",)),
        Node("depthwise", AnyConv("depthwise", c, c, (3, 3), groups=c, activation=last), ("c",)),
        Node("mean", GlobalPool("mean"), ("depthwise",)),
        Node("head", Linear("head", c, 4), ("mean",)),
    )
    return Graph((TensorSpec("x", "float32", (8, 8, 3)),), nodes, ("head",))


def _axis(tensor: str, axis: int, size: int) -> Axis:
    """An axis of one channel for each unit."""
    return Axis(tensor, axis, np.arange(size))


def dependencies() -> Dependencies:
    """Those of `joined`."""
    a, b, c = WHOLE.values()
    read_a = (_axis("b.weight", 1, a), Axis("c.weight", 1, np.append(np.arange(a), np.full(b, -1))))
    read_b = (Axis("c.weight", 1, np.append(np.full(a, -1), np.arange(b))),)
    made_c = (_axis("c.weight", 0, c), _axis("depthwise.weight", 0, c))
    return Dependencies(
        (
            Group("a", CHANNELS, a, 1, (_axis("a.weight", 0, a),), read_a),
            Group("b", CHANNELS, b, 1, (_axis("b.weight", 0, b),), read_b),
            Group("c", CHANNELS, c, 1, made_c, (_axis("head.weight", 1, c),)),
        ),
        (),
    )


def test_sums_of_groups_are_found() -> None:
    examples = [Example(counts, joined(**counts)) for counts in DRAWN]
    template = LayerTemplate.learned(joined(**WHOLE), dependencies(), examples)
    found = template.at({"a": 8, "c": 24})
    assert numbers_of(found) == numbers_of(joined(8, 24, 24))
    assert found.shapes["head"] == (4,)
    assert template.at({}) == joined(**WHOLE)


def test_other_layers_are_noticed() -> None:
    examples = [Example(DRAWN[0], joined(**DRAWN[0], last=""))]
    with pytest.raises(NotLearned, match="different layers"):
        LayerTemplate.learned(joined(**WHOLE), dependencies(), examples)


def test_sizes_without_a_rule_are_noticed() -> None:
    examples = [Example(counts, joined(**counts | {"c": 5 + i * i})) for i, counts in enumerate(DRAWN)]
    with pytest.raises(NotLearned, match="no group explains that 32 becomes"):
        LayerTemplate.learned(joined(**WHOLE), dependencies(), examples)
