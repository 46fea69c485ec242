"""The codec between architectures and genomes. It also checks whether a space allows an architecture.

It is computed from the genes of a space and from the tables of `networks/architecture.py`, which map kinds of choices
to fields. So a space with a new kind of choice needs no new codec. For example, attention heads per block need

    heads: tuple[int, ...] = ()                   in `Stage`
    "heads": Field("heads", integer=True)         in `BLOCK_FIELDS`
    Gene("heads", (3, 6, 12), stage=0, block=1)   among the genes of the space, for every block

and the width of a whole network needs a number in `Architecture`, an entry in `NETWORK_FIELDS`, and one gene. JSON,
genomes, checks, sampling, costs, searches, features of predictors and training schedules follow from these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from operator import attrgetter, getitem
from typing import Any, TypeVar

import numpy as np

from ofa_profiler.networks.architecture import (
    BLOCK_FIELDS,
    MIXED,
    NETWORK_FIELDS,
    STAGE_FIELDS,
    STEM_FIELDS,
    Architecture,
    Field,
    Stage,
    Stem,
)
from ofa_profiler.spaces.genes import DEPTH, Gene, Genomes

K = TypeVar("K")
V = TypeVar("V")

#: Maximum number of entries of a cache. A space has a few thousand different stages.
_MAX_CACHED = 1 << 16
#: Number of bits for the length of a list within an integer.
_LENGTH_BITS = 32

#: The fields that determine the genes of each part, in the order of the arguments of `_Part.encode`.
_network_values = attrgetter("space", "stem", "bits", "choices", *(field.name for field in NETWORK_FIELDS.values()))
_stem_values = attrgetter(*(field.name for field in STEM_FIELDS.values()))
_stage_values = attrgetter(*(field.name for field in (*BLOCK_FIELDS.values(), *STAGE_FIELDS.values())))


class Codec:
    """Converts architectures of the space named `space` to genomes with these genes, and back.

    `fixed` maps kinds that are not genes to their value in every block.
    """

    def __init__(self, space: str, genes: Sequence[Gene], fixed: Mapping[str, float]) -> None:
        self._space = space
        n_stages = 1 + max((gene.stage for gene in genes if gene.stage is not None), default=-1)
        places = [(False, None), (True, None), *((False, stage) for stage in range(n_stages))]
        #: Positions of the genes of each part: the network, the stem, each stage.
        self._positions = [[i for i, gene in enumerate(genes) if (gene.stem, gene.stage) == place] for place in places]
        network, stem, *stages = (tuple(genes[i] for i in part) for part in self._positions)
        self._network = _Part(dict, network, NETWORK_FIELDS)
        self._stem = _Part(Stem, stem, STEM_FIELDS) if stem else None
        self._stages = [_stage_part(part, tuple(fixed.items())) for part in stages]
        self._head = _Cache(self._encode_head)
        #: The genes in the order of the parts, and the start of each part.
        self._order = [i for part in self._positions for i in part]
        self._starts = list(accumulate(map(len, self._positions), initial=0))
        self._in_order = self._order == list(range(len(genes)))
        if len(self._order) != len(genes):
            raise ValueError(f"space {space}: a gene belongs to both the stem and a stage")

    def encode(self, architectures: Sequence[Architecture]) -> Genomes:
        """Architectures -> canonical genomes (N, G). Raises `KeyError` or `ValueError` for one of another space."""
        head, stages = self._head, [part.encoded for part in self._stages]
        pieces: list[bytes] = []
        for architecture in architectures:
            if len(architecture.stages) != len(stages):
                raise ValueError("another number of stages")
            pieces.append(head[_network_values(architecture)])
            pieces.extend(map(getitem, stages, map(_stage_values, architecture.stages)))
        shape = len(architectures), len(self._order)
        genomes = np.frombuffer(bytearray().join(pieces), dtype=np.int8).reshape(shape)
        return genomes if self._in_order else genomes[:, np.argsort(self._order)]

    def _encode_head(self, values: tuple[Any, ...]) -> bytes:
        """Encode the parts before the stages: the network and the stem."""
        space, stem, bits, choices, *numbers = values
        if space != self._space or bits or choices or (stem is None) != (self._stem is None):
            raise KeyError(values)
        return self._network.encode(numbers) + (self._stem.encode(_stem_values(stem)) if self._stem else b"")

    def decode(self, genomes: Genomes) -> list[Architecture]:
        """Genomes (N, G) -> architectures."""
        parts = [self._network, self._stem, *self._stages]
        decoded = [part.decoded if part else {b"": None} for part in parts]
        architectures = []
        for row in genomes if self._in_order else genomes[:, self._order]:
            code = row.tobytes()
            pieces = (code[start:end] for start, end in pairwise(self._starts))
            architectures.append(self._joined(*(values[piece] for values, piece in zip(decoded, pieces, strict=True))))
        return architectures

    def from_values(self, values: Sequence[float]) -> Architecture:
        """The architecture with these values of all genes."""
        parts = [self._network, self._stem, *self._stages]
        chosen = ([values[i] for i in positions] for positions in self._positions)
        return self._joined(*(part.decode(each) if part else None for part, each in zip(parts, chosen, strict=True)))

    def _joined(self, network: Any, stem: Any, *stages: Any) -> Architecture:
        return Architecture(self._space, stages=stages, stem=stem, **network)

    def problems(self, architecture: Architecture) -> Iterator[str]:
        """The reasons why `architecture` does not belong to this space, as messages; empty if it does."""
        space, stages = self._space, architecture.stages
        if architecture.space != space:
            yield f"the architecture belongs to space {architecture.space}, not to {space}"
        if architecture.bits:
            yield f"the architecture has bits, which belong to networks of {space}{MIXED}"
        if architecture.choices:
            yield f"space {space} has stages, and no 'choices' by name"
        yield from self._network.problems(architecture, "")
        if (architecture.stem is None) != (self._stem is None):
            yield f"space {space} has no choice of stem" if architecture.stem else f"space {space} needs a 'stem'"
        if self._stem and architecture.stem:
            yield from self._stem.problems(architecture.stem, "stem: ")
        if len(stages) != len(self._stages):
            yield f"space {space} has {len(self._stages)} stages, but the architecture has {len(stages)}"
        for i, (part, stage) in enumerate(zip(self._stages, stages, strict=False)):
            yield from part.problems(stage, f"stage {i}: ")


class _Cache(dict[K, V]):
    """Caches `make(key)`."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make

    def __missing__(self, key: K) -> V:
        value = self._make(key)
        if len(self) < _MAX_CACHED:
            self[key] = value
        return value


class _Part:
    """The genes of one part of an architecture (network, stem or stage), and the fields that store their values.

    If a field is not a choice of the space, it stores constants. A constant is treated like a gene with one choice.
    Constants come after the genes of the part, and genomes do not contain them.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        genes: Sequence[Gene],
        numbers: Mapping[str, Field],
        lists: Mapping[str, Field] | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        """`make` takes the fields: `numbers` store one choice of a kind, `lists` store one choice per block."""
        self._make, self._n_genes = make, len(genes)
        self._choices: list[tuple[Any, ...]] = [gene.choices for gene in genes]
        self._kinds = {field.name: kind for fields in (lists or {}, numbers) for kind, field in fields.items()}
        #: Name of a field -> the positions of its genes or constants.
        self._lists: dict[str, list[int]] = {}
        self._numbers: dict[str, int] = {}
        open_genes = {(gene.kind, gene.block): position for position, gene in enumerate(genes)}

        def position(kind: str, block: int | None, constant: float | None) -> int:
            found = open_genes.pop((kind, block), len(self._choices))
            if found == len(self._choices):
                self._choices.append((constant,))
            return found

        if lists is not None:
            depths = [gene.choices for gene in genes if gene.kind == DEPTH]
            blocks = range(int(max(depths[0])) if depths else len({gene.block for gene in genes} - {None}))
            for kind, field in lists.items():
                constant = (fixed or {}).get(kind)
                known = constant is not None or any((kind, block) in open_genes for block in blocks)
                self._lists[field.name] = [position(kind, block, constant) for block in blocks] if known else []
            self._depth = position(DEPTH, None, len(blocks))
        for kind, field in numbers.items():
            self._numbers[field.name] = position(kind, None, None)
        for unknown in open_genes.values():
            raise ValueError(f"gene {genes[unknown].name}: no field of an architecture stores this kind of choice")
        self._constants = [choices[0] for choices in self._choices[len(genes) :]]
        self._prepare()

    def _prepare(self) -> None:
        """Build the tables of `encode`, which adds integers: one byte per gene, then the lengths of the lists."""
        #: For each gene and constant: value -> index, shifted to the byte of the gene.
        self._codes = [
            {value: index << 8 * position for index, value in enumerate(choices)}
            for position, choices in enumerate(self._choices)
        ]
        #: The same for each field, lists first.
        self._fields: list[Mapping[Any, int]] = [
            *(_Cache(partial(self._encode_list, number)) for number in range(len(self._lists))),
            *(self._codes[position] for position in self._numbers.values()),
        ]
        #: Lengths of the lists -> index of the depth. Lists without choices are empty.
        self._lengths = {0: 0}
        if self._lists:
            filled = [number for number, positions in enumerate(self._lists.values()) if positions]
            self._lengths = {
                sum(depth << _LENGTH_BITS * number for number in filled): code
                for depth, code in self._codes[self._depth].items()
            }
        self.encoded: Mapping[tuple[Any, ...], bytes] = _Cache(self.encode)
        self.decoded: Mapping[bytes, Any] = _Cache(self._decode_indices)

    def encode(self, values: Sequence[Any]) -> bytes:
        """Values of the fields, lists first -> indices of the genes. Raises `KeyError` for an invalid value."""
        code = sum(map(getitem, self._fields, values))
        code += self._lengths[code >> 8 * self._n_genes]
        return (code & ((1 << 8 * self._n_genes) - 1)).to_bytes(self._n_genes, "little")

    def _encode_list(self, number: int, values: Sequence[float]) -> int:
        positions = list(self._lists.values())[number]
        code = sum(self._codes[position][value] for position, value in zip(positions, values, strict=False))
        return code + (len(values) << 8 * self._n_genes + _LENGTH_BITS * number)

    def decode(self, values: Sequence[float]) -> Any:
        """Values of the genes -> the part."""
        values = [*values, *self._constants]
        fields: dict[str, Any] = {name: values[position] for name, position in self._numbers.items()}
        if self._lists:
            depth = int(values[self._depth])
            for name, positions in self._lists.items():
                fields[name] = tuple([values[position] for position in positions[:depth]])
        return self._make(**fields)

    def _decode_indices(self, code: bytes) -> Any:
        return self.decode([choices[index] for choices, index in zip(self._choices, code, strict=False)])

    def problems(self, part: Any, where: str) -> Iterator[str]:
        """The reasons why the fields of `part` are not choices of this space, as messages."""
        held = [(name, position, getattr(part, name)) for name, position in self._numbers.items()]
        if self._lists:
            held.insert(0, (DEPTH, self._depth, part.depth))
            yield from self._unequal(part, where)
        for name, positions in self._lists.items():
            held += [(name, position, v) for position, v in zip(positions, getattr(part, name), strict=False)]
        for name, position, value in held:
            choices = self._choices[position]
            if choices == (None,) and value is not None:
                yield f"{where}this space has no choice of {name!r}"
            elif value not in choices:
                yield f"{where}{_words(self._kinds.get(name, name))} {value} is not one of {list(choices)}"

    def _unequal(self, part: Any, where: str) -> Iterator[str]:
        """Report lists that this space does not have, and lists of different lengths."""
        lengths = {name: len(getattr(part, name)) for name, positions in self._lists.items() if positions}
        yield from (
            f"{where}this space has no choice of {name!r}"
            for name in self._lists
            if name not in lengths and getattr(part, name)
        )
        if len(set(lengths.values())) > 1:
            yield where + " but ".join(f"{length} {_words(name)}" for name, length in lengths.items())


@lru_cache(maxsize=256)
def _stage_part(genes: tuple[Gene, ...], fixed: tuple[tuple[str, float], ...]) -> _Part:
    """One object, with its caches, for all spaces that have this stage, at any resolution."""
    return _Part(Stage, genes, STAGE_FIELDS, BLOCK_FIELDS, dict(fixed))


def _words(name: str) -> str:
    return name.replace("_", " ")
