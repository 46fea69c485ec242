"""What a search space is: genes, slots, and everything that follows from these two.

A **gene** is one open choice (a kernel size, a depth, the resolution). A **slot** is one place in the
network; it depends on a few genes only and yields an op, or none when the block is not active.
Whatever is a sum over ops (latency, MACs, parameters) is therefore a sum of small tables, one per
slot, which `costs.py` evaluates for thousands of architectures at once and minimises exactly.

A **genome** is a row of gene indices. Genes that say nothing (of a block that is not active) are 0 in
a canonical genome, so equal architectures have equal genomes.
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

Genomes = NDArray[np.int8]


@dataclass(frozen=True)
class Gene:
    """One choice. It matters only while gene `switch` has at least the index `switch_from`."""

    name: str
    choices: tuple[float, ...]
    switch: int | None = None
    switch_from: int = 0


@dataclass(frozen=True)
class Slot:
    """One place in the network. `build` takes the *values* of `genes`, in order."""

    name: str
    genes: tuple[int, ...]
    build: Callable[..., Op | None]


def indices_of(*choices: Sequence[float]) -> dict[tuple[float, ...], bytes]:
    """For genes with these choices: their values -> their indices, a byte each."""
    indices = product(*(range(len(values)) for values in choices))
    return dict(zip(product(*choices), map(bytes, indices), strict=True))


class StageCode(dict[tuple[tuple[int, ...], tuple[float, ...], "float | None"], bytes]):
    """A stage's (kernel_sizes, expand_ratios, width_mult) -> the indices of its genes; `KeyError` for one that
    the space does not have.

    `first` takes (depth, width_mult), `blocks` a block's (kernel_size, expand_ratio), `missing` the depth, for
    the blocks that are not there. Stages are remembered: there are some thousand, and architectures come by
    the ten thousand.
    """

    def __init__(self, first: Mapping[Any, bytes], blocks: Mapping[Any, bytes], missing: Mapping[int, bytes]) -> None:
        self.first, self.blocks, self.missing = first, blocks, missing

    def __missing__(self, stage: tuple[tuple[int, ...], tuple[float, ...], float | None]) -> bytes:
        kernel_sizes, expand_ratios, width_mult = stage
        depth = len(kernel_sizes)
        blocks = map(self.blocks.__getitem__, zip(kernel_sizes, expand_ratios, strict=True))
        indices = b"".join((self.first[depth, width_mult], *blocks, self.missing[depth]))
        self[stage] = indices
        return indices


@dataclass(frozen=True)
class Preprocessing:
    """What an image goes through before it is an input: scaled to `range`, then (x - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str = "RGB"
    range: tuple[float, float] = (0.0, 1.0)


class SearchSpace(ABC):
    """A family of networks. Instances are immutable and shared."""

    name: str
    n_classes: int
    preprocessing: Preprocessing
    #: The resolutions that `sample` and the search draw from.
    resolutions: tuple[int, ...]
    #: Every resolution that the supernet is trained for: all that `with_resolutions` takes.
    valid_resolutions: tuple[int, ...]

    @cached_property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """All open choices. Gene 0 is the resolution; a gene comes after its switch."""

    @cached_property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """All places of the network, in the order in which they run."""

    @abstractmethod
    def validate(self, architecture: Architecture) -> None:
        """Raise `UsageError` unless `architecture` is a point of this space (at any resolution)."""

    @cached_property
    @abstractmethod
    def codes(self) -> tuple[Mapping[Any, bytes], tuple[StageCode, ...]]:
        """How architectures are written as genomes: what comes before the stages, and each stage.

        The first takes (space, resolution, stem).
        """

    @abstractmethod
    def from_values(self, values: Sequence[float]) -> Architecture:
        """The architecture that these gene values (inactive ones included) stand for."""

    def with_resolutions(self, resolutions: Sequence[int]) -> SearchSpace:
        """The same space, drawing from other resolutions. Raises `UsageError` for impossible ones."""
        if not resolutions:
            raise UsageError(f"space {self.name}: no resolution given")
        for resolution in resolutions:
            self._check_resolution(resolution)
        return self._replaced(resolutions=tuple(sorted(set(resolutions))))

    def with_classes(self, n_classes: int) -> SearchSpace:
        """The same space with a classifier for `n_classes` classes."""
        return self._replaced(n_classes=n_classes)

    def _replaced(self, **changes: Any) -> SearchSpace:
        assert is_dataclass(self), "every space is a frozen dataclass"
        return replace(self, **changes)

    # --- what is allowed, for `validate` ---------------------------------------------------------

    def _check_name(self, architecture: Architecture) -> None:
        if architecture.space != self.name:
            raise UsageError(f"an architecture of space {architecture.space} was given where {self.name} is in use")

    def _check_resolution(self, resolution: int) -> None:
        if resolution not in self.valid_resolutions:
            raise UsageError(
                f"space {self.name} has no resolution {resolution}; it has {_spell_range(self.valid_resolutions)}"
            )

    def _check_stages(self, architecture: Architecture, depths: Sequence[tuple[int, ...]]) -> None:
        """The number of stages, and of each its depth and the lengths of its lists."""
        if len(architecture.stages) != len(depths):
            raise UsageError(f"space {self.name} has {len(depths)} stages, the architecture {len(architecture.stages)}")
        for i, (stage, allowed) in enumerate(zip(architecture.stages, depths, strict=True)):
            check_choices(f"stage {i}: depth", [stage.depth], allowed)
            if len(stage.expand_ratios) != stage.depth:
                raise UsageError(f"stage {i}: {stage.depth} kernel sizes but {len(stage.expand_ratios)} expand ratios")

    # --- genomes ---------------------------------------------------------------------------------

    @cached_property
    def _at_all_resolutions(self) -> SearchSpace:
        return self.with_resolutions(self.valid_resolutions)

    @cached_property
    def n_choices(self) -> NDArray[np.int64]:
        """Number of choices of each gene, (G,)."""
        return np.array([len(gene.choices) for gene in self.genes])

    def encode(self, architectures: Iterable[Architecture]) -> Genomes:
        """Architectures -> canonical genomes (N, G). Raises `UsageError` for one of another space."""
        architectures = list(architectures)
        first, stages = self.codes
        pieces: list[bytes] = []
        try:
            for architecture in architectures:
                pieces.append(first[architecture.space, architecture.resolution, architecture.stem])
                for stage, code in zip(architecture.stages, stages, strict=True):
                    pieces.append(code[stage.kernel_sizes, stage.expand_ratios, stage.width_mult])
        except (KeyError, ValueError):
            self.validate(architecture)  # says what is wrong, if it is not the resolution
            raise UsageError(
                f"resolution {architecture.resolution} is not among {list(self.resolutions)}, "
                "the resolutions in use here"
            ) from None
        return np.frombuffer(bytearray().join(pieces), dtype=np.int8).reshape(len(architectures), len(self.genes))

    def decode(self, genomes: Genomes) -> list[Architecture]:
        """Genomes (N, G) -> architectures."""
        return [self.from_values([gene.choices[i] for gene, i in zip(self.genes, row, strict=True)]) for row in genomes]

    def canonical(self, genomes: Genomes) -> Genomes:
        """A copy of (N, G) with the genes that say nothing set to 0."""
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


def check_choices(what: str, values: Sequence[float | None], allowed: Sequence[float]) -> None:
    """Raise `UsageError` for the first of `values` that is not allowed."""
    for value in values:
        if value not in allowed:
            raise UsageError(f"{what} {value} is not one of {list(allowed)}")


def _spell_range(values: tuple[int, ...]) -> str:
    if len(values) <= 5:
        return ", ".join(map(str, values))
    return f"{values[0]} to {values[-1]} in steps of {values[1] - values[0]}"


def strided(size: int, *strides: int) -> int:
    """Height (or width) after layers with "same" padding and these strides."""
    for stride in strides:
        size = (size - 1) // stride + 1
    return size
