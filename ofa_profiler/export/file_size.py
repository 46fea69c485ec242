"""The bytes of the model file of every network of a space, as a sum over its ops.

Both formats store an op in bytes of its own: parameters, nodes, tensors and their names. So each op is exported alone,
once and twice in the same file; the difference is what it adds to a file. What a file has once (operator codes, the
layouts of its tables, constants that layers share) is found by exporting a few whole networks. ONNX files are such
sums to a few bytes. TFLite files differ by a few hundred bytes, because they align weights to 16 bytes and share some
constants. A margin makes the sum an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.export import get_exporter
from ofa_profiler.export.base import LOGITS_NAME
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.base import Slot
from ofa_profiler.spaces.costs import AdditiveCost, Part

#: Random networks that are exported, beside the smallest and the largest one.
_PROBES = 10


def file_bytes(
    space: SearchSpace, target: Target, forms: Forms = PLAIN, metadata: Mapping[str, str] | None = None
) -> AdditiveCost:
    """The bytes of the file that `export_network` writes for each network of `space`.

    `metadata` are those of the network with the longest ones. Raises `UsageError` if the space cannot be exported.
    """
    # The parameters of a network do not depend on the resolution.
    small = space if space.resolution_gene is None else space.at(min(space.resolutions))

    @cache
    def added(name: str, op: Op) -> int:
        return _bytes(_copies(name, op, 2), target, forms) - _bytes(_copies(name, op, 1), target, forms)

    def value(slot: Slot, _resolution: int | None, op: Op) -> float:
        return added(slot.name, op)

    ops, slots = AdditiveCost.from_slots(small, value), AdditiveCost.from_ops(small, lambda _: 1.0)
    probes = _probes(small)
    sizes = [_bytes(as_graph(small.layout(each)), target, forms) for each in small.decode(probes)]
    cost = _fitted(ops, [slots], probes, np.array(sizes, dtype=np.float64))
    about = _bytes(_copies("slot", small.slot_ops(small.slots[0])[0], 1), target, forms, metadata)
    about -= _bytes(_copies("slot", small.slot_ops(small.slots[0])[0], 1), target, forms)
    parts = tuple(_without(space.resolution_gene, part) for part in cost.parts)
    return AdditiveCost(space, parts, cost.constant + about)


def _copies(name: str, op: Op, count: int) -> Graph:
    """Several copies of an op with one input, under names as long as `name`."""
    graphs = [as_graph([(f"{name[:-1]}{number}", op)]) for number in range(count)]
    nodes = tuple(node for graph in graphs for node in graph.nodes)
    return Graph(graphs[0].inputs, nodes, tuple(name for graph in graphs for name in graph.outputs))


def _bytes(graph: Graph, target: Target, forms: Forms, metadata: Mapping[str, str] | None = None) -> int:
    weights = {name: np.broadcast_to(np.float32(1), shape) for name, shape in graph.parameter_shapes.items()}
    outputs = [f"{LOGITS_NAME}{number or ''}" for number in range(len(graph.outputs))]
    exporter = get_exporter(target)
    return len(exporter.build(graph, weights, target, outputs=outputs, metadata=metadata or {}, forms=forms))


def _probes(space: SearchSpace) -> Genomes:
    ends = space.encode([space.smallest, space.largest])
    return np.vstack([ends, space.sample_genomes(np.random.default_rng(0), _PROBES)])


def _fitted(
    cost: AdditiveCost, counts: Sequence[AdditiveCost], probes: Genomes, sizes: NDArray[np.float64]
) -> AdditiveCost:
    """`cost` plus a constant, plus bytes for each of `counts`: above the `sizes` (N,) of `probes` (N, G)."""
    features = np.stack([np.ones(len(probes)), *(count.evaluate(probes) for count in counts)], axis=1)
    missing = sizes - cost.evaluate(probes)
    constant, *each = np.linalg.lstsq(features, missing, rcond=None)[0].tolist()
    parts = [
        Part(part.genes, part.values * factor)
        for count, factor in zip(counts, each, strict=True)
        for part in count.parts
    ]
    left = missing - features @ [constant, *each]
    margin = float(left.max() + 2 * left.std())
    return AdditiveCost(cost.space, (*cost.parts, *parts), cost.constant + constant + margin)


def _without(gene: int | None, part: Part) -> Part:
    """A part without a gene that has one choice."""
    if gene is None or gene not in part.genes:
        return part
    axis = part.genes.index(gene)
    return Part(tuple(g for g in part.genes if g != gene), np.take(part.values, [0], axis).squeeze(axis))
