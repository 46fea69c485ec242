"""From a network in the language to genes and slots.

The shape of what an op gets follows from the choices before it. Size and channels are tables over the genes on which
they depend, and each op makes new ones: so a slot depends on no more genes than it must.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import INPUT
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import Shape
from ofa_profiler.spaces.base import Slot
from ofa_profiler.spaces.genes import RESOLUTION, Gene, Genomes
from ofa_profiler.spaces.language.draft import Draft
from ofa_profiler.spaces.language.parts import Part
from ofa_profiler.spaces.language.places import Condition, Conditions, Place, Places
from ofa_profiler.spaces.language.tables import Table, combinations
from ofa_profiler.spaces.language.values import Choice, Setting, choices_of, value_at

#: How many combinations of choices one op may depend on: each is built.
_MOST_COMBINATIONS = 200_000
#: The channels of an image.
_COLOURS = 3


@dataclass(frozen=True, eq=False)
class Program:
    """The genes and slots of a network, at all resolutions.

    `labels` are the options of each gene in JSON. A gene has an effect if all tables of one of its `activities` are
    true.
    """

    genes: tuple[Gene, ...]
    slots: tuple[Slot, ...]
    labels: tuple[tuple[Any, ...], ...]
    activities: tuple[tuple[tuple[Table, ...], ...], ...]

    def active(self, genomes: Genomes) -> NDArray[np.bool_]:
        """Genomes (N, G) -> which genes have an effect (N, G)."""
        active = np.zeros(genomes.shape, dtype=np.bool_)
        for gene, uses in enumerate(self.activities):
            for tables in uses:
                holds = np.ones(len(genomes), dtype=np.bool_)
                for table in tables:
                    holds &= table.of_genomes(genomes)
                active[:, gene] |= holds
        return active


@lru_cache(maxsize=64)
def program_of(network: Part, resolutions: tuple[int, ...], classes: int) -> Program:
    """The program of a network for images of these resolutions. Raises `UsageError`."""
    return _Compiler(network, resolutions, classes).program()


class _State(NamedTuple):
    """Of what comes in: height and width, 0 for a vector; the number of channels or values."""

    size: Table
    channels: Table


@dataclass(frozen=True)
class _Built:
    """The distinct ops of one place, their numbers by key, and what was made of each input and its choices."""

    ops: list[Op] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    known: dict[tuple[Any, ...], Op | None] = field(default_factory=dict)

    def add(self, op: Op) -> Op:
        """The op, or the equal one that is there already."""
        if op.key not in self.numbers:
            self.numbers[op.key] = len(self.ops)
            self.ops.append(op)
        return self.ops[self.numbers[op.key]]


class _Compiler:
    def __init__(self, network: Part, resolutions: tuple[int, ...], classes: int) -> None:
        self._places, self._resolutions, self._classes = Places.of(network), resolutions, classes
        self._names = self._places.names()
        #: The first gene is the resolution.
        self._position = {choice: 1 + number for number, choice in enumerate(self._names)}
        self._choices = list(self._names)
        self._sizes = [len(resolutions), *(len(choice.options) for choice in self._choices)]
        self._conditions: dict[Condition, Table] = {}

    def program(self) -> Program:
        activities: list[tuple[tuple[Table, ...], ...]] = [((),), *map(self._activity, self._choices)]
        genes = [Gene(RESOLUTION, self._resolutions), *map(self._gene, self._choices)]
        genes = [_switched(gene, uses) for gene, uses in zip(genes, activities, strict=True)]
        labels: list[tuple[Any, ...]] = [self._resolutions, *map(_labels, self._choices)]
        slots = self._slots(genes)
        return Program(tuple(genes), slots, tuple(labels), tuple(activities))

    def _gene(self, choice: Choice) -> Gene:
        values = choice.options if choice.is_number else range(len(choice.options))
        return Gene(self._names[choice], tuple(values))

    # --- conditions ------------------------------------------------------------------------------------

    def _activity(self, choice: Choice) -> tuple[tuple[Table, ...], ...]:
        return tuple(self._tables(conditions) for _, conditions in self._places.uses[choice])

    def _tables(self, conditions: Conditions) -> tuple[Table, ...]:
        """Conditions as tables, without those that always hold."""
        for condition in conditions:
            if condition not in self._conditions:
                self._conditions[condition] = self._table(condition)
        tables = [self._conditions[condition] for condition in conditions]
        return tuple(table for table in tables if table.genes or not table.values)

    def _table(self, condition: Condition) -> Table:
        choices = sorted(choices_of(condition.value), key=self._position.__getitem__)
        genes = [self._position[choice] for choice in choices]

        def holds(index: tuple[int, ...]) -> bool:
            options = {choice: choice.options[i] for choice, i in zip(choices, index, strict=True)}
            return bool(condition.holds(value_at(condition.value, Setting(options, self._classes))))

        return Table.of(genes, [self._sizes[gene] for gene in genes], holds).reduced()

    # --- slots -----------------------------------------------------------------------------------------

    def _slots(self, genes: Sequence[Gene]) -> tuple[Slot, ...]:
        state = _State(Table((0,), np.array(self._resolutions)), Table.constant(_COLOURS))
        slots, always = [], False
        for place in self._places.ops:
            numbers, ops, state = self._follow(place, state)
            always = always or bool((numbers.values >= 0).all())
            slots.append(Slot(place.name, numbers.genes, _builder(numbers, ops, genes)))
        if not always:
            raise UsageError("all layers of the network are optional: at least one must always be there")
        return tuple(slots)

    def _follow(self, place: Place, state: _State) -> tuple[Table, list[Op], _State]:
        """The numbers of the ops of a place (-1: none), these ops, and the state after it."""
        conditions = self._tables(place.conditions)
        own = [self._position[choice] for choice in place.choices]
        genes = sorted({*own, *(gene for table in (*conditions, *state) for gene in table.genes)})
        sizes = [self._sizes[gene] for gene in genes]
        if (count := combinations(sizes)) > _MOST_COMBINATIONS:
            names = ", ".join(self._names[self._choices[gene - 1]] for gene in genes if gene)
            raise UsageError(f"{place.name} depends on {count} combinations of choices, too many to measure: {names}")
        built = _Built()
        numbers, after = np.full(count, -1), np.zeros((count, 2), dtype=np.int64)
        for row, index in enumerate(np.ndindex(*sizes)):
            at = dict(zip(genes, index, strict=True))
            size, channels = (int(table.at(at)) for table in state)
            after[row] = size, channels
            if all(table.at(at) for table in conditions):
                op = self._op(place, (size, size, channels) if size else (channels,), at, built)
                if op is not None:
                    numbers[row] = built.numbers[op.key]
                    after[row] = op.output_shape[0] if len(op.output_shape) == 3 else 0, op.output_shape[-1]
        tables = (Table(tuple(genes), values.reshape(sizes)).reduced() for values in (numbers, *after.T))
        found, *new = tables
        return found, built.ops, _State(*new)

    def _op(self, place: Place, shape: Shape, at: dict[int, int], built: _Built) -> Op | None:
        """The op of a place for an input of this shape, None if it has no layers there. Raises `UsageError`."""
        chosen = {choice: choice.options[at[self._position[choice]]] for choice in place.choices}
        identity = (shape, *(at[self._position[choice]] for choice in place.choices))
        if identity not in built.known:
            draft = Draft(shape)
            try:
                output = place.part.write(draft, INPUT, Setting(chosen, self._classes))
            except UsageError as error:
                raise UsageError(f"{place.name}: {error}{self._where(shape, chosen)}") from None
            op = None if output == INPUT else draft.op(output)
            built.known[identity] = None if op is None else built.add(op)
        return built.known[identity]

    def _where(self, shape: Shape, chosen: dict[Choice, Any]) -> str:
        said = [f"{self._names[choice]} = {_labels(choice)[choice.options.index(o)]}" for choice, o in chosen.items()]
        return f" (input {' x '.join(map(str, shape))}{''.join(f', {each}' for each in said)})"


def _builder(numbers: Table, ops: list[Op], genes: Sequence[Gene]) -> Callable[..., Op | None]:
    """The function of a slot: from the values of its genes to its op."""
    choices = [genes[gene].choices for gene in numbers.genes]
    table = {
        tuple(values[i] for values, i in zip(choices, index, strict=True)): None if number < 0 else ops[number]
        for index, number in np.ndenumerate(numbers.values)
    }
    return lambda *values: table[values]


def _labels(choice: Choice) -> tuple[Any, ...]:
    """The options of a choice in JSON: layers by their names, or what they are, else by their numbers."""
    if choice.is_number or choice.is_text:
        return choice.options
    words = tuple(
        "none" if option is None else option.name or option.word if isinstance(option, Part) else "choice"
        for option in choice.options
    )
    return words if len(set(words)) == len(words) else tuple(range(len(words)))


def _switched(gene: Gene, uses: Sequence[tuple[Table, ...]]) -> Gene:
    """The gene with its switch, if one is enough to say when it has an effect."""
    tables = {table.genes: table for use in uses for table in use}
    if len(uses) != 1 or len(tables) != 1 or len(uses[0]) != 1:
        return gene
    (table,) = tables.values()
    first = int(table.values.argmax())
    if len(table.genes) == 1 and table.values[first:].all():
        return replace(gene, switch=table.genes[0], switch_from=first)
    return gene
