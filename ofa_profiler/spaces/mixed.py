"""The networks of a space in mixed precision: every slot is computed in 8-bit integers or in 32-bit floats.

After APQ (arXiv 2006.08509, section 3), where each block has its own bits. A slot is the unit of a latency table, so
the rows of two tables, one per precision, cover all of these networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import MIXED, Architecture
from ofa_profiler.networks.boundary import DEQUANTIZE, QUANTIZE, boundary_op
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import Shape
from ofa_profiler.spaces.base import Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.codec import Codec
from ofa_profiler.spaces.genes import BITS, Gene, Genomes

#: Bits of a slot -> the precision of its op.
PRECISIONS = {8: "int8", 32: "fp32"}
#: The share of drawn networks that have one precision.
_PURE = 1 / 8


class Activity(NamedTuple):
    """A slot is active if the gene at position `switch` has at least the index `switch_from`, or if it is None."""

    switch: int | None
    switch_from: int

    def of(self, genomes: Genomes) -> Any:
        """Genomes (N, G) -> whether the slot is active (N,)."""
        if self.switch is None:
            return np.ones(len(genomes), dtype=np.bool_)
        return genomes[:, self.switch] >= self.switch_from


@dataclass(frozen=True, kw_only=True)
class MixedSpace(SearchSpace):
    """The networks of `plain`, whose genes come first, with one gene per slot: its bits.

    Its slots are those of `plain`: an op does not say its precision, `precisions` does.
    """

    plain: SearchSpace
    name: str
    family: str
    n_classes: int
    preprocessing: Preprocessing
    resolutions: tuple[int, ...]
    valid_resolutions: tuple[int, ...]

    @staticmethod
    @lru_cache(maxsize=64)
    def of(plain: SearchSpace) -> MixedSpace:
        """The networks of `plain` in mixed precision."""
        return MixedSpace(
            plain=plain,
            name=f"{plain.name}{MIXED}",
            family=plain.family,
            n_classes=plain.n_classes,
            preprocessing=plain.preprocessing,
            resolutions=plain.resolutions,
            valid_resolutions=plain.valid_resolutions,
        )

    def _replaced(self, **changes: Any) -> SearchSpace:
        return MixedSpace.of(self.plain._replaced(**changes))

    # --- genes -----------------------------------------------------------------------------------

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        bits = [
            Gene(BITS, tuple(PRECISIONS), slot=slot.name, switch=activity.switch, switch_from=activity.switch_from)
            for slot, activity in zip(self.slots, self.activities, strict=True)
        ]
        return (*self.plain.genes, *bits)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return self.plain.slots

    @property
    def unrestricted(self) -> SearchSpace:
        plain = self.plain.unrestricted
        return self if plain is self.plain else MixedSpace.of(plain)

    def widened(self, genomes: Genomes) -> Genomes:
        plain, bits = np.split(genomes, [len(self.plain.genes)], axis=1)
        return np.hstack([self.plain.widened(plain), bits])

    @property
    def labels(self) -> tuple[tuple[Any, ...], ...]:
        return (*self.plain.labels, *(gene.choices for gene in self.genes[len(self.plain.genes) :]))

    @cached_property
    def activities(self) -> tuple[Activity, ...]:
        """When each slot is active. Raises `UsageError` for a space without mixed networks."""
        found = tuple(_activity(self.plain, slot) for slot in self.slots)
        for slot, activity in zip((self.slots[0], self.slots[-1]), (found[0], found[-1]), strict=True):
            if activity.switch is not None:
                raise UsageError(
                    f"space {self.plain.name} has no mixed networks: slot {slot.name}, an end, is optional"
                )
        return found

    def bits_gene(self, slot: int) -> int:
        """The position of the gene for the bits of the slot with this number."""
        return len(self.plain.genes) + slot

    # --- architectures ---------------------------------------------------------------------------

    def canonical(self, genomes: Genomes) -> Genomes:
        plain, bits = np.split(genomes, [len(self.plain.genes)], axis=1)
        plain = self.plain.canonical(plain)
        active = np.stack([activity.of(plain) for activity in self.activities], axis=1)
        return np.hstack([plain, np.where(active, bits, 0).astype(np.int8)])

    @cached_property
    def codec(self) -> Codec:
        return MixedCodec(self)

    def with_bits(self, architecture: Architecture, bits: Sequence[int]) -> Architecture:
        """An architecture of `plain` with the bits of its active slots; its plain one is `plain_architecture`."""
        return replace(architecture, space=self.name, bits=tuple(bits))

    def plain_architecture(self, architecture: Architecture) -> Architecture:
        """The architecture without its bits, in the space `plain`."""
        return replace(architecture, space=self.plain.name, bits=())

    def layout(self, architecture: Architecture) -> tuple[tuple[str, Op], ...]:
        self.validate(architecture)
        return self.plain.layout(self.plain_architecture(architecture))

    def precisions(self, architecture: Architecture) -> dict[str, str]:
        """Names of the active slots -> their precision, `fp32` or `int8`, in the order of `layout`."""
        names = (name for name, _ in self.layout(architecture))
        return {name: PRECISIONS[bits] for name, bits in zip(names, architecture.bits, strict=True)}

    def sample_genomes(self, rng: np.random.Generator, count: int) -> Genomes:
        """Draw `count` canonical genomes (count, G): the plain genes uniformly, the bits in runs.

        From slot to slot, the bits change with a probability that is drawn once per genome. So networks with a few
        long runs, which are the fast ones, are as frequent as those that change all the time. One in eight has one
        precision.
        """
        drawn = self.plain.sample_genomes(rng, count)
        return self.canonical(np.hstack([drawn, self.draw_bits(rng, count)]))

    def draw_bits(self, rng: np.random.Generator, count: int) -> Genomes:
        """Bits for `sample_genomes`, not canonical (count, slots)."""
        often = rng.random((count, 1)) * (rng.random((count, 1)) > _PURE)
        changes = rng.random((count, len(self.slots))) < often
        changes[:, 0] = rng.random(count) < 0.5
        return (np.cumsum(changes, axis=1) % 2).astype(np.int8)

    # --- changes of precision ----------------------------------------------------------------------

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All places between two slots where the precision of a network can change, and both of its ends."""
        ends: list[Edge] = [Edge(None, 0, ())]
        inner = [Edge(i, j, tuple(range(i + 1, j))) for i in range(len(self.slots)) for j in self._successors(i)]
        return (*ends, *inner, Edge(len(self.slots) - 1, None, ()))

    def _successors(self, slot: int) -> Iterator[int]:
        """The slots that can be the next active one after `slot`."""
        for other in range(slot + 1, len(self.slots)):
            yield other
            if self.activities[other].switch is None:
                return

    @property
    def boundary_ops(self) -> tuple[Op, ...]:
        """The ops that change the precision of any tensor between slots, at `resolutions`."""
        return tuple(boundary_op(kind, shape) for kind in (QUANTIZE, DEQUANTIZE) for shape in self.boundary_shapes)

    @cached_property
    def boundary_shapes(self) -> tuple[Shape, ...]:
        """All distinct shapes of tensors whose precision can change, at `resolutions` (height, width, channels)."""
        shapes: dict[Shape, None] = {}
        for slot in self.slots:
            for op in self.slot_ops(slot):
                shapes |= dict.fromkeys((op.input_shape, op.output_shape))
        return tuple(shapes)


class Edge(NamedTuple):
    """The tensor between two slots, or the input (`before` is None) or output (`after` is None) of the network.

    The slots with the numbers `between` are inactive in a network that has this edge.
    """

    before: int | None
    after: int | None
    between: tuple[int, ...]


class MixedCodec(Codec):
    """Converts architectures of mixed precision to genomes and back: the plain codec, and the bits."""

    def __init__(self, space: MixedSpace) -> None:
        self._space_of, self._plain = space, space.plain.codec
        self._codes = {bits: index for index, bits in enumerate(PRECISIONS)}
        self._decoded = np.array(list(PRECISIONS))

    def _active(self, plain: Genomes) -> Any:
        """Plain genomes (N, G) -> which slots are active (N, slots)."""
        return np.stack([activity.of(plain) for activity in self._space_of.activities], axis=1)

    def encode(self, architectures: Sequence[Architecture]) -> Genomes:
        space = self._space_of
        if any(architecture.space != space.name for architecture in architectures):
            raise KeyError(space.name)
        plain = self._plain.encode([space.plain_architecture(architecture) for architecture in architectures])
        active = self._active(plain)
        bits = np.zeros(active.shape, dtype=np.int8)
        for row, slots, architecture in zip(bits, active, architectures, strict=True):
            if len(architecture.bits) != slots.sum():
                raise ValueError("another number of slots")
            row[slots] = [self._codes[each] for each in architecture.bits]
        return np.hstack([plain, bits])

    def decode(self, genomes: Genomes) -> list[Architecture]:
        plain, bits = np.split(genomes, [len(self._space_of.plain.genes)], axis=1)
        decoded, active = self._plain.decode(plain), self._active(plain)
        return [
            self._space_of.with_bits(architecture, self._decoded[row[slots]].tolist())
            for architecture, row, slots in zip(decoded, bits, active, strict=True)
        ]

    def from_values(self, values: Sequence[float]) -> Architecture:
        genes = self._space_of.genes
        genome = [gene.choices.index(value) for gene, value in zip(genes, values, strict=True)]
        return self.decode(np.array([genome], dtype=np.int8))[0]

    def problems(self, architecture: Architecture) -> Iterator[str]:
        space = self._space_of
        if architecture.space != space.name:
            yield f"the architecture belongs to space {architecture.space}, not to {space.name}"
            return
        plain = space.plain_architecture(architecture)
        found = list(self._plain.problems(plain))
        yield from found
        if not found:
            slots = int(self._active(self._plain.encode([plain])).sum())
            if len(architecture.bits) != slots:
                yield f"bits: the network has {slots} slots, but {len(architecture.bits)} bits"
        known = list(PRECISIONS)
        yield from (f"bits: {each} is not one of {known}" for each in architecture.bits if each not in PRECISIONS)


def _activity(space: SearchSpace, slot: Slot) -> Activity:
    """When a slot of `space` is active. Raises `UsageError` if `Activity` cannot say that."""
    sizes = [range(len(space.genes[g].choices)) for g in slot.genes]
    is_active = {index: _op_at(space, slot, index) is not None for index in product(*sizes)}
    if all(is_active.values()):
        return Activity(None, 0)
    for axis, gene in enumerate(slot.genes):
        # A slot that is never there needs more than there is.
        never = len(space.genes[gene].choices)
        from_here = min((index[axis] for index, active in is_active.items() if active), default=never)
        if all(active == (index[axis] >= from_here) for index, active in is_active.items()):
            return Activity(gene, from_here)
    raise UsageError(
        f"space {space.name} has no mixed networks: whether slot {slot.name} is there depends on more than one "
        "choice, or not on its largest options"
    )


def _op_at(space: SearchSpace, slot: Slot, index: Sequence[int]) -> Op | None:
    build: Callable[..., Op | None] = slot.build
    return build(*(space.genes[g].choices[i] for g, i in zip(slot.genes, index, strict=True)))
