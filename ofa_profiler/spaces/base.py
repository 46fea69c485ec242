"""What a search space is: genes, slots, and everything that follows from these two.

A **gene** is one open choice (a kernel size, a depth, the resolution). A **slot** is one place in the network; it
depends on a few genes only and yields an op, or none when the block is not active. Whatever is a sum over ops
(latency, MACs, parameters) is therefore a sum of small tables, one per slot, which `costs.py` evaluates for thousands
of architectures at once and minimises exactly.

A **genome** is a row of gene indices. Genes without effect (of a block that is not active) are 0 in a canonical
genome, so equal architectures have equal genomes. `codec.py` turns architectures into genomes and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.codec import Codec
from ofa_profiler.spaces.genes import RESOLUTION, Gene, Genomes


@dataclass(frozen=True)
class Slot:
    """One place in the network. `build` takes the *values* of `genes`, in order."""

    name: str
    genes: tuple[int, ...]
    build: Callable[..., Op | None]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before it is an input: it is scaled to `range`, then (x - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str = "RGB"
    range: tuple[float, float] = (0.0, 1.0)


class SearchSpace(ABC):
    """A family of networks. A space is a frozen dataclass: its data, its genes and its slots."""

    name: str
    #: What its ops have in common with those of other spaces, for example `mobilenetv3`.
    family: str
    n_classes: int
    preprocessing: Preprocessing
    #: The resolutions that `sample` and the search draw from; none in a space without a gene of this kind.
    resolutions: tuple[int, ...] = ()
    #: Every resolution that the supernet is trained for: all that `with_resolutions` takes.
    valid_resolutions: tuple[int, ...] = ()

    @cached_property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """All open choices. A gene comes after its switch. The choices of a resolution are `resolutions`."""

    @cached_property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """All places of the network, in the order in which they run."""

    @property
    def fixed(self) -> Mapping[str, float]:
        """Kinds of choices that are no genes here, and the value that they have in every block."""
        return {}

    def with_resolutions(self, resolutions: Sequence[int]) -> SearchSpace:
        """The same space, drawing from other resolutions. Raises `UsageError` for impossible ones."""
        if not resolutions:
            raise UsageError(f"space {self.name}: no resolution given")
        for resolution in resolutions:
            self._check_resolution(resolution)
        return self._replaced(resolutions=tuple(sorted(set(resolutions))))

    def at(self, resolution: int | None) -> SearchSpace:
        """The same space at one resolution; at None it is itself, where it has no choice of a resolution."""
        if resolution is None and self.resolution_gene is None:
            return self
        self._check_resolution(resolution)
        return self._replaced(resolutions=(resolution,))

    def with_classes(self, n_classes: int) -> SearchSpace:
        """The same space with a classifier for `n_classes` classes."""
        return self._replaced(n_classes=n_classes)

    def _replaced(self, **changes: Any) -> SearchSpace:
        assert is_dataclass(self), "every space is a frozen dataclass"
        return replace(self, **changes)

    # --- genes -----------------------------------------------------------------------------------

    @cached_property
    def resolution_gene(self) -> int | None:
        """The position of the resolution among the genes; None for a space without this choice."""
        return next((i for i, gene in enumerate(self.genes) if gene.kind == RESOLUTION), None)

    @cached_property
    def n_choices(self) -> NDArray[np.int64]:
        """Number of choices of each gene, (G,)."""
        return np.array([len(gene.choices) for gene in self.genes])

    def position(self, kind: str, *, stem: bool = False, stage: int | None = None, block: int | None = None) -> int:
        """The position of a gene, for `Slot.genes`. Raises `KeyError` if this place has no gene of this kind."""
        return self._positions[kind, stem, stage, block]

    @cached_property
    def _positions(self) -> dict[tuple[str, bool, int | None, int | None], int]:
        return {(gene.kind, gene.stem, gene.stage, gene.block): i for i, gene in enumerate(self.genes)}

    # --- architectures ---------------------------------------------------------------------------

    @cached_property
    def codec(self) -> Codec:
        """Between architectures and genomes."""
        return Codec(self.name, self.genes, self.fixed)

    @cached_property
    def _at_all_resolutions(self) -> SearchSpace:
        return self if self.resolution_gene is None else self.with_resolutions(self.valid_resolutions)

    def validate(self, architecture: Architecture) -> None:
        """Raise `UsageError` unless `architecture` is a point of this space (at any resolution)."""
        codec = self._at_all_resolutions.codec
        try:
            codec.encode([architecture])
        except (KeyError, ValueError):
            if architecture.space == self.name and self.resolution_gene is not None:
                self._check_resolution(architecture.resolution)
            raise UsageError(next(codec.problems(architecture))) from None

    def _check_resolution(self, resolution: int | None) -> None:
        if self.resolution_gene is None:
            raise UsageError(f"space {self.name} has no choice of a resolution")
        if resolution not in self.valid_resolutions:
            known = _spell_range(self.valid_resolutions)
            raise UsageError(f"space {self.name} has no resolution {resolution}; it has {known}")

    def encode(self, architectures: Iterable[Architecture]) -> Genomes:
        """Architectures -> canonical genomes (N, G). Raises `UsageError` for one of another space."""
        architectures = list(architectures)
        try:
            return self.codec.encode(architectures)
        except (KeyError, ValueError):
            for architecture in architectures:
                self.validate(architecture)
                if self.resolution_gene is not None and architecture.resolution not in self.resolutions:
                    raise UsageError(
                        f"resolution {architecture.resolution} is not among {list(self.resolutions)}, "
                        "the resolutions in use here"
                    ) from None
            raise

    def decode(self, genomes: Genomes) -> list[Architecture]:
        """Genomes (N, G) -> architectures."""
        return self.codec.decode(genomes)

    def from_values(self, values: Sequence[float]) -> Architecture:
        """The architecture that values of all genes (those without effect included) stand for."""
        return self.codec.from_values(values)

    def canonical(self, genomes: Genomes) -> Genomes:
        """A copy of (N, G) in which the genes without effect are 0."""
        genomes = genomes.copy()
        for i, gene in enumerate(self.genes):
            if gene.switch is not None:
                genomes[genomes[:, gene.switch] < gene.switch_from, i] = 0
        return genomes

    def sample_genomes(self, rng: np.random.Generator, count: int) -> Genomes:
        """`count` canonical genomes, every gene drawn evenly (the paper's sampling, section 3.2)."""
        drawn = rng.integers(0, self.n_choices, size=(count, len(self.genes)))
        return self.canonical(drawn.astype(np.int8))

    def sample(self, rng: np.random.Generator) -> Architecture:
        """One architecture, every choice drawn evenly."""
        return self.decode(self.sample_genomes(rng, 1))[0]

    @property
    def largest(self) -> Architecture:
        """The architecture with the largest value of every choice."""
        return self.from_values([max(gene.choices) for gene in self.genes])

    @property
    def smallest(self) -> Architecture:
        """The architecture with the smallest value of every choice."""
        return self.from_values([min(gene.choices) for gene in self.genes])

    # --- ops -------------------------------------------------------------------------------------

    def layout(self, architecture: Architecture) -> tuple[tuple[str, Op], ...]:
        """The active slots of a network as (slot name, op), in the order in which they run."""
        self.validate(architecture)
        space = self._at_all_resolutions
        values = [gene.choices[i] for gene, i in zip(space.genes, space.encode([architecture])[0], strict=True)]
        built = ((slot.name, slot.build(*(values[g] for g in slot.genes))) for slot in self.slots)
        return tuple((name, op) for name, op in built if op is not None)

    def ops(self, architecture: Architecture) -> tuple[Op, ...]:
        """The ops of a network, in the order in which they run."""
        return tuple(op for _, op in self.layout(architecture))

    def unique_ops(self, resolutions: Sequence[int] | None = None) -> tuple[Op, ...]:
        """Every distinct op of every architecture at these resolutions (default: the space's own)."""
        space = self if resolutions is None else self.with_resolutions(resolutions)
        return tuple(dict.fromkeys(op for slot in space.slots for op in space.slot_ops(slot)))

    def slot_ops(self, slot: Slot) -> tuple[Op, ...]:
        """Every distinct op that this slot of the space can hold."""
        choices = (self.genes[g].choices for g in slot.genes)
        built = (slot.build(*values) for values in product(*choices))
        return tuple(dict.fromkeys(op for op in built if op is not None))

    def macs(self, architecture: Architecture) -> int:
        """Multiply-accumulates of one image through the network; see `Op.macs`."""
        return sum(op.macs for op in self.ops(architecture))

    def params(self, architecture: Architecture) -> int:
        """Trainable parameters of the network; see `Op.params`."""
        return sum(op.params for op in self.ops(architecture))


def _spell_range(values: tuple[int, ...]) -> str:
    if len(values) <= 5:
        return ", ".join(map(str, values))
    return f"{values[0]} to {values[-1]} in steps of {values[1] - values[0]}"


def strided(size: int, *strides: int) -> int:
    """Height (or width) after layers with "same" padding and these strides."""
    for stride in strides:
        size = (size - 1) // stride + 1
    return size
