"""Where the precision of a network changes, as parts of a cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ofa_profiler.networks.boundary import DEQUANTIZE, QUANTIZE
from ofa_profiler.networks.tensors import Shape
from ofa_profiler.spaces.costs import Part
from ofa_profiler.spaces.mixed import PRECISIONS, Edge, MixedSpace


def change_kind(before: str, after: str) -> str | None:
    """The kind of the op between two slots of these precisions; None between equal ones."""
    return None if before == after else QUANTIZE if after == "int8" else DEQUANTIZE


def edge_part(space: MixedSpace, edge: Edge, change_ms: Callable[[str, Shape], float]) -> Part:
    """The cost of a change at a place between two slots: `change_ms(kind, shape)`, or 0 where there is none.

    It depends on the bits of both slots, on whether this place exists in a network, and on the shape of the tensor.
    """
    assert edge.before is not None
    assert edge.after is not None
    before = space.slots[edge.before]
    switched = [space.activities[slot].switch for slot in (edge.before, *edge.between, edge.after)]
    own = _genes_of_shape(space, edge.before)
    switches = [gene for gene in switched if gene is not None]
    genes = tuple(dict.fromkeys((space.bits_gene(edge.before), space.bits_gene(edge.after), *switches, *own)))
    names = tuple(PRECISIONS.values())
    values = np.zeros([len(space.genes[gene].choices) for gene in genes])
    for index in np.ndindex(*values.shape):
        chosen = dict(zip(genes, index, strict=True))
        kind = change_kind(*(names[index[end]] for end in (0, 1)))
        if kind is not None and _exists(space, edge, chosen):
            indices = {gene: chosen.get(gene, _usual(space, edge.before, gene)) for gene in before.genes}
            op = before.build(*(space.genes[gene].choices[i] for gene, i in indices.items()))
            assert op is not None, "its slot is active"
            values[index] = change_ms(kind, op.output_shape)
    return Part(genes, values)


def _exists(space: MixedSpace, edge: Edge, chosen: Mapping[int, int]) -> bool:
    """Whether a network with these choices has the edge."""

    def is_active(slot: int) -> bool:
        switch, switch_from = space.activities[slot]
        return switch is None or chosen[switch] >= switch_from

    ends = (edge.before, edge.after)
    return all(is_active(slot) for slot in ends if slot is not None) and not any(map(is_active, edge.between))


def _usual(space: MixedSpace, slot: int, gene: int) -> int:
    """A choice of a gene with which the slot is active."""
    switch, switch_from = space.activities[slot]
    # A slot that is never there has none.
    return min(switch_from, len(space.genes[gene].choices) - 1) if gene == switch else 0


def _genes_of_shape(space: MixedSpace, number: int) -> list[int]:
    """The genes of a slot on which the shape of its output depends."""
    slot = space.slots[number]
    usual = [_usual(space, number, gene) for gene in slot.genes]

    def shape(index: Sequence[int]) -> Shape | None:
        op = slot.build(*(space.genes[gene].choices[i] for gene, i in zip(slot.genes, index, strict=True)))
        return None if op is None else op.output_shape

    found = []
    for axis, gene in enumerate(slot.genes):
        tried = ([*usual[:axis], i, *usual[axis + 1 :]] for i in range(len(space.genes[gene].choices)))
        if len({shape(index) for index in tried} - {None}) > 1:
            found.append(gene)
    return found
