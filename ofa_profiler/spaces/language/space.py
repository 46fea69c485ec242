"""A search space of a user, written in the language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import MIXED, Architecture
from ofa_profiler.spaces.base import Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.codec import Codec
from ofa_profiler.spaces.genes import RESOLUTION, Gene, Genomes
from ofa_profiler.spaces.language.parts import Part, as_part
from ofa_profiler.spaces.language.program import Program, program_of
from ofa_profiler.spaces.mobilenet import IMAGENET
from ofa_profiler.spaces.registry import get_space

#: The family of all spaces of the language: their ops say their layers themselves.
FAMILY = "language"


@dataclass(frozen=True, kw_only=True)
class LanguageSpace(SearchSpace):
    """The networks of `network`. `name` is `package.module:NAME`, under which it was loaded."""

    network: Part
    name: str
    n_classes: int
    preprocessing: Preprocessing
    resolutions: tuple[int, ...]
    valid_resolutions: tuple[int, ...]
    family: str = FAMILY

    @property
    def program(self) -> Program:
        """Genes and slots at all of `valid_resolutions`."""
        return program_of(self.network, self.valid_resolutions, self.n_classes)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        return (Gene(RESOLUTION, self.resolutions), *self.program.genes[1:])

    @property
    def slots(self) -> tuple[Slot, ...]:
        return self.program.slots

    @property
    def labels(self) -> tuple[tuple[Any, ...], ...]:
        return (self.resolutions, *self.program.labels[1:])

    @cached_property
    def codec(self) -> Codec:
        return ChoiceCodec(self)

    def __reduce__(self) -> Any:
        """For other processes, which import the space: it has functions of its user, which cannot be sent."""
        return _reopened, (self.name, self.resolutions, self.n_classes)

    def canonical(self, genomes: Genomes) -> Genomes:
        return np.where(self.program.active(genomes), genomes, 0).astype(np.int8)


def _reopened(name: str, resolutions: tuple[int, ...], n_classes: int) -> SearchSpace:
    return get_space(name).with_resolutions(resolutions).with_classes(n_classes)


class ChoiceCodec(Codec):
    """Converts architectures with `choices` to genomes and back."""

    def __init__(self, space: LanguageSpace) -> None:
        self._of, self._program = space, space.program
        self._gene_names = [gene.name for gene in space.genes]
        self._labels = list(space.labels)
        self._indices = [{label: index for index, label in enumerate(labels)} for labels in self._labels]
        self._genes_by_name = {name: position for position, name in enumerate(self._gene_names) if position}

    def encode(self, architectures: Sequence[Architecture]) -> Genomes:
        genomes = np.zeros((len(architectures), len(self._gene_names)), dtype=np.int8)
        given = np.zeros(genomes.shape, dtype=np.bool_)
        given[:, 0] = True
        for row, named, architecture in zip(genomes, given, architectures, strict=True):
            if architecture.space != self._of.name or _foreign(architecture):
                raise KeyError(architecture.space)
            row[0] = self._indices[0][architecture.resolution]
            for name, value in architecture.choices:
                position = self._genes_by_name[name]
                row[position], named[position] = self._indices[position][value], True
        if (given != self._program.active(genomes)).any():
            raise ValueError("other choices")
        return genomes

    def decode(self, genomes: Genomes) -> list[Architecture]:
        order = sorted(self._genes_by_name.values(), key=self._gene_names.__getitem__)
        found = []
        for row, active in zip(genomes.tolist(), self._program.active(genomes), strict=True):
            choices = tuple((self._gene_names[i], self._labels[i][row[i]]) for i in order if active[i])
            found.append(Architecture(self._of.name, self._labels[0][row[0]], (), choices=choices))
        return found

    def from_values(self, values: Sequence[float]) -> Architecture:
        genes = self._of.genes
        genome = [gene.choices.index(value) for gene, value in zip(genes, values, strict=True)]
        return self.decode(np.array([genome], dtype=np.int8))[0]

    def problems(self, architecture: Architecture) -> Iterator[str]:
        name = self._of.name
        if architecture.space != name:
            yield f"the architecture belongs to space {architecture.space}, not to {name}"
        if architecture.bits:
            yield f"the architecture has bits, which belong to networks of {name}{MIXED}"
        if _foreign(architecture):
            yield f"space {name} has choices, but no stages and no stem"
        if architecture.resolution not in self._indices[0]:
            yield f"resolution {architecture.resolution} is not one of {list(self._labels[0])}"
        yield from self._wrong_choices(dict(architecture.choices))

    def _wrong_choices(self, given: Mapping[str, Any]) -> Iterator[str]:
        genome = np.zeros((1, len(self._gene_names)), dtype=np.int8)
        for each, value in given.items():
            position = self._genes_by_name.get(each)
            if position is None:
                yield f"space {self._of.name} has no choice {each!r}"
            elif value not in self._labels[position]:
                yield f"{each} {value!r} is not one of {list(self._labels[position])}"
            else:
                genome[0, position] = self._indices[position][value]
        active = self._program.active(genome)[0]
        for each, position in self._genes_by_name.items():
            if active[position] and each not in given:
                yield f"{each} is missing"
            elif each in given and not active[position]:
                yield f"{each} has no effect in this network: leave it out"


def _foreign(architecture: Architecture) -> bool:
    return bool(architecture.stages or architecture.bits or architecture.stem is not None)


def space(
    network: Any,
    *,
    resolutions: Sequence[int],
    classes: int,
    preprocessing: Preprocessing = IMAGENET,
) -> LanguageSpace:
    """The space of all networks that `network` describes, for square images of 3 channels and these sizes in pixels.

    Its name is that under which it is loaded, `package.module:NAME`. Raises `UsageError` if a network is impossible.
    """
    sizes = [resolutions] if isinstance(resolutions, int) else list(resolutions)
    for what, value in (("classes", classes), *(("resolutions", size) for size in sizes)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{what} of a space must be whole numbers from 1 on, not {value!r:.60}")
    if not 1 <= len(set(sizes)) <= 127:
        raise UsageError(f"a space takes 1 to 127 resolutions, not {len(set(sizes))}")
    found = tuple(sorted(set(sizes)))
    made = LanguageSpace(
        network=as_part("space", network),
        name="",
        n_classes=classes,
        preprocessing=preprocessing,
        resolutions=found,
        valid_resolutions=found,
    )
    _ = made.program  # raises
    return made
