"""The base class of search spaces: genes, slots, and everything that follows from them.

A **gene** is one open choice (a kernel size, a depth, the resolution). A **slot** is one position in the network. It
depends on a few genes and has an op, or none if its block is inactive. So a sum over ops (latency, MACs, parameters)
is a sum of small tables, one per slot. `costs.py` evaluates it for thousands of architectures at once and minimises
it exactly.

A **genome** is a row of gene indices. In a canonical genome, genes without effect (those of inactive blocks) are 0, so
equal architectures have equal genomes. `codec.py` converts architectures to genomes and back.
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
    """One position in the network. `genes` are positions of genes; `build` takes their values in this order."""

    name: str
    genes: tuple[int, ...]
    build: Callable[..., Op | None]


@dataclass(frozen=True)
class Preprocessing:
    """The normalisation of input images: pixels are scaled to `range`, then (x - mean) / std per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str = "RGB"
    range: tuple[float, float] = (0.0, 1.0)


class SearchSpace(ABC):
    """A family of networks. Every space is a frozen dataclass with genes and slots."""

    name: str
    #: Spaces of one family share ops, for example `mobilenetv3`.
    family: str
    n_classes: int
    preprocessing: Preprocessing
    #: The resolutions for sampling and search, in pixels; empty if the resolution is not a gene.
    resolutions: tuple[int, ...] = ()
    #: All resolutions that `with_resolutions` accepts: those for which the supernet is trained.
    valid_resolutions: tuple[int, ...] = ()

    @cached_property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """All open choices. Each gene comes after its switch. The choices of the resolution are `resolutions`."""

    @cached_property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """All positions in the network, in the order of execution."""

    @property
    def fixed(self) -> Mapping[str, float]:
        """Kind of choice -> its value in every block, for kinds that are not genes in this space."""
        return {}

    @property
    def unrestricted(self) -> SearchSpace:
        """The space with all options of its genes, at the same resolutions; see `narrowing.py`."""
        return self

    def widened(self, genomes: Genomes) -> Genomes:
        """Genomes of this space (N, G) -> those of the same networks in `unrestricted`."""
        return genomes

    @property
    def labels(self) -> tuple[tuple[Any, ...], ...]:
        """What the options of each gene are called."""
        return tuple(gene.choices for gene in self.genes)

    def with_resolutions(self, resolutions: Sequence[int]) -> SearchSpace:
        """The same space with other `resolutions`. Raises `UsageError` if they are not among `valid_resolutions`."""
        if not resolutions:
            raise UsageError(f"space {self.name}: at least one resolution is needed")
        for resolution in resolutions:
            self._check_resolution(resolution)
        return self._replaced(resolutions=tuple(sorted(set(resolutions))))

    def at(self, resolution: int | None) -> SearchSpace:
        """The same space at one resolution. Use None for a space without a choice of resolution."""
        if resolution is None and self.resolution_gene is None:
            return self
        self._check_resolution(resolution)
        return self._replaced(resolutions=(resolution,))

    def with_classes(self, n_classes: int) -> SearchSpace:
        """The same space with a classifier for `n_classes` classes."""
        return self._replaced(n_classes=n_classes)

    def named(self, name: str) -> SearchSpace:
        """The same space with another name."""
        return self._replaced(name=name)

    def _replaced(self, **changes: Any) -> SearchSpace:
        assert is_dataclass(self), "a space must be a frozen dataclass"
        return replace(self, **changes)

    # --- genes -----------------------------------------------------------------------------------

    @cached_property
    def resolution_gene(self) -> int | None:
        """The position of the resolution gene; None if the space has none."""
        return next((i for i, gene in enumerate(self.genes) if gene.kind == RESOLUTION), None)

    @cached_property
    def n_choices(self) -> NDArray[np.int64]:
        """Number of choices of each gene, (G,)."""
        return np.array([len(gene.choices) for gene in self.genes])

    def position(self, kind: str, *, stem: bool = False, stage: int | None = None, block: int | None = None) -> int:
        """The position of a gene, for `Slot.genes`. Raises `KeyError` if there is no such gene."""
        return self._positions[kind, stem, stage, block]

    @cached_property
    def _positions(self) -> dict[tuple[str, bool, int | None, int | None], int]:
        return {(gene.kind, gene.stem, gene.stage, gene.block): i for i, gene in enumerate(self.genes)}

    # --- architectures ---------------------------------------------------------------------------

    @cached_property
    def codec(self) -> Codec:
        """Converts architectures to genomes and back."""
        return Codec(self.name, self.genes, self.fixed)

    @cached_property
    def _at_all_resolutions(self) -> SearchSpace:
        return self if self.resolution_gene is None else self.with_resolutions(self.valid_resolutions)

    def validate(self, architecture: Architecture) -> None:
        """Raise `UsageError` unless `architecture` belongs to this space, at any of `valid_resolutions`."""
        codec = self._at_all_resolutions.codec
        try:
            codec.encode([architecture])
        except (KeyError, ValueError):
            if architecture.space == self.name and self.resolution_gene is not None:
                self._check_resolution(architecture.resolution)
            raise UsageError(next(codec.problems(architecture))) from None

    def _check_resolution(self, resolution: int | None) -> None:
        if self.resolution_gene is None:
            raise UsageError(f"space {self.name} has no choice of resolution")
        if resolution not in self.valid_resolutions:
            known = _range_text(self.valid_resolutions)
            raise UsageError(f"space {self.name} has no resolution {resolution}; choose from {known}")

    def encode(self, architectures: Iterable[Architecture]) -> Genomes:
        """Architectures -> canonical genomes (N, G). Raises `UsageError` for an architecture of another space."""
        architectures = list(architectures)
        try:
            return self.codec.encode(architectures)
        except (KeyError, ValueError):
            for architecture in architectures:
                self.validate(architecture)
                if self.resolution_gene is not None and architecture.resolution not in self.resolutions:
                    raise UsageError(
                        f"resolution {architecture.resolution} is not one of {list(self.resolutions)}, "
                        "to which the space is restricted"
                    ) from None
            raise

    def decode(self, genomes: Genomes) -> list[Architecture]:
        """Genomes (N, G) -> architectures."""
        return self.codec.decode(genomes)

    def from_values(self, values: Sequence[float]) -> Architecture:
        """The architecture with these values of all genes. Genes without effect also need a value."""
        return self.codec.from_values(values)

    def canonical(self, genomes: Genomes) -> Genomes:
        """Return a copy of genomes (N, G) in which the genes without effect are 0."""
        genomes = genomes.copy()
        for i, gene in enumerate(self.genes):
            if gene.switch is not None:
                genomes[genomes[:, gene.switch] < gene.switch_from, i] = 0
        return genomes

    def sample_genomes(self, rng: np.random.Generator, count: int) -> Genomes:
        """Draw `count` canonical genomes (count, G), each gene uniformly (as in section 3.2 of the paper)."""
        drawn = rng.integers(0, self.n_choices, size=(count, len(self.genes)))
        return self.canonical(drawn.astype(np.int8))

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw one architecture, each choice uniformly."""
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
        """The active slots of a network as (slot name, op), in the order of execution. Raises `UsageError`."""
        self.validate(architecture)
        space = self._at_all_resolutions
        values = [gene.choices[i] for gene, i in zip(space.genes, space.encode([architecture])[0], strict=True)]
        built = ((slot.name, slot.build(*(values[g] for g in slot.genes))) for slot in self.slots)
        return tuple((name, op) for name, op in built if op is not None)

    def ops(self, architecture: Architecture) -> tuple[Op, ...]:
        """The ops of a network, in the order of execution. Raises `UsageError`."""
        return tuple(op for _, op in self.layout(architecture))

    def unique_ops(self, resolutions: Sequence[int] | None = None) -> tuple[Op, ...]:
        """All distinct ops of all architectures at these resolutions (default: `self.resolutions`)."""
        space = self if resolutions is None else self.with_resolutions(resolutions)
        return tuple(dict.fromkeys(op for slot in space.slots for op in space.slot_ops(slot)))

    def slot_ops(self, slot: Slot) -> tuple[Op, ...]:
        """All distinct ops of this slot."""
        choices = (self.genes[g].choices for g in slot.genes)
        built = (slot.build(*values) for values in product(*choices))
        return tuple(dict.fromkeys(op for op in built if op is not None))

    def macs(self, architecture: Architecture) -> int:
        """Multiply-accumulates of the network for one image; see `Layer.macs`."""
        return sum(op.macs for op in self.ops(architecture))

    def params(self, architecture: Architecture) -> int:
        """Number of trainable parameters of the network."""
        return sum(op.params for op in self.ops(architecture))


def _range_text(values: tuple[int, ...]) -> str:
    if len(values) <= 5:
        return ", ".join(map(str, values))
    return f"{values[0]} to {values[-1]} in steps of {values[1] - values[0]}"
