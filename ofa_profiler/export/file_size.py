"""The bytes of the model file of every network of a space, as a sum over its ops.

Both formats store an op in bytes of its own: parameters, nodes, tensors and their names. So each op is exported alone,
once and twice in the same file; the difference is what it adds to a file. What a file has once (operator codes, the
layouts of its tables, constants that layers share) is found by exporting a few whole networks, and so is what each run
of int8 slots adds to a network of mixed precision. ONNX files are such sums to a few bytes. TFLite files differ by a
few hundred bytes, because they align weights to 16 bytes and share some constants. A margin makes the sum an upper
bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.export import get_exporter
from ofa_profiler.export.base import LOGITS_NAME
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.boundary import QUANTIZE
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import PLAIN, AnyForms
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.base import Slot
from ofa_profiler.spaces.changes import edge_part
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_profiler.spaces.mixed import PRECISIONS, MixedSpace

#: Random networks that are exported, beside the smallest and the largest one.
_PROBES = 10


def file_bytes(
    space: SearchSpace, target: Target, forms: AnyForms = PLAIN, metadata: Mapping[str, str] | None = None
) -> AdditiveCost:
    """The bytes of the file that `export_network` writes for each network of `space`.

    `metadata` are those of the network with the longest ones. Raises `UsageError` if the space cannot be exported.
    """
    # The parameters of a network do not depend on the resolution.
    small = space if space.resolution_gene is None else space.at(min(space.resolutions))
    if isinstance(small, MixedSpace):
        costs = [_ops(small, target.at(name), forms) for name in PRECISIONS.values()]
        ops = AdditiveCost(small, tuple(_by_bits(small, [cost.parts for cost in costs])))
        counts = [*(_slots_of(small, number) for number in range(len(PRECISIONS))), _runs(small)]
    else:
        ops, counts = _ops(small, target, forms), [AdditiveCost.from_ops(small, lambda _: 1.0)]
    probes = _probes(small)
    sizes = [_network_bytes(small, each, target, forms) for each in small.decode(probes)]
    cost = _fitted(ops, counts, probes, np.array(sizes, dtype=np.float64))
    parts = tuple(_without(space.resolution_gene, part) for part in cost.parts)
    return AdditiveCost(space, parts, cost.constant + _metadata_bytes(small, target, metadata or {}))


# --- ops -------------------------------------------------------------------------------------------------


def _ops(space: SearchSpace, target: Target, forms: AnyForms) -> AdditiveCost:
    """What ops add to a file of one precision."""

    @cache
    def added(length_of_name: int, op: Op) -> int:
        once, twice = (_bytes(_copies("x" * length_of_name, op, count), target, forms) for count in (1, 2))
        return twice - once

    def value(slot: Slot, _resolution: int | None, op: Op) -> float:
        return added(len(slot.name), op)

    return AdditiveCost.from_slots(space, value)


def _copies(name: str, op: Op, count: int) -> Graph:
    """Several copies of an op with one input, under names as long as `name`."""
    graphs = [as_graph([(f"{name[:-1]}{number}", op)]) for number in range(count)]
    nodes = tuple(node for graph in graphs for node in graph.nodes)
    return Graph(graphs[0].inputs, nodes, tuple(name for graph in graphs for name in graph.outputs))


def _by_bits(space: MixedSpace, parts: Sequence[Sequence[Part]]) -> Iterator[Part]:
    """A part per slot, from those of each precision."""
    for slot, same in enumerate(zip(*parts, strict=True)):
        yield Part((space.bits_gene(slot), *same[0].genes), np.stack([part.values for part in same]))


def _slots_of(space: MixedSpace, number: int) -> AdditiveCost:
    """The number of slots whose bits have this index."""
    slots = AdditiveCost.from_ops(space, lambda _: 1.0).parts
    nothing = [Part(part.genes, 0 * part.values) for part in slots]
    each = [slots if i == number else nothing for i in range(len(PRECISIONS))]
    return AdditiveCost(space, tuple(_by_bits(space, each)))


def _runs(space: MixedSpace) -> AdditiveCost:
    """The number of runs of int8 slots."""
    inner = (edge for edge in space.edges if edge.before is not None and edge.after is not None)
    parts = [edge_part(space, edge, lambda kind, _shape: float(kind == QUANTIZE)) for edge in inner]
    first = Part((space.bits_gene(0),), np.array([float(name == "int8") for name in PRECISIONS.values()]))
    return AdditiveCost(space, (first, *parts))


# --- files -----------------------------------------------------------------------------------------------


def _bytes(
    graph: Graph,
    target: Target,
    forms: AnyForms,
    metadata: Mapping[str, str] | None = None,
    precisions: Mapping[str, str] | None = None,
) -> int:
    weights = {name: np.broadcast_to(np.float32(1), shape) for name, shape in graph.parameter_shapes.items()}
    data = get_exporter(target).build(
        graph,
        weights,
        target,
        outputs=[f"{LOGITS_NAME}{number or ''}" for number in range(len(graph.outputs))],
        metadata=metadata or {},
        forms=forms,
        precisions=precisions,
    )
    return len(data)


def _network_bytes(space: SearchSpace, architecture: Architecture, target: Target, forms: AnyForms) -> int:
    precisions = space.precisions(architecture) if isinstance(space, MixedSpace) else None
    return _bytes(as_graph(space.layout(architecture)), target, forms, precisions=precisions)


def _metadata_bytes(space: SearchSpace, target: Target, metadata: Mapping[str, str]) -> int:
    """What metadata add to a file, whatever its network."""
    slot = space.slots[0]
    graph, target = _copies(slot.name, space.slot_ops(slot)[0], 1), target.at("fp32")
    return _bytes(graph, target, PLAIN, metadata) - _bytes(graph, target, PLAIN)


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
