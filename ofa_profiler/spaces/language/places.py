"""Where the ops and the choices of a network stand, and on what it depends whether they are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.genes import RESOLUTION
from ofa_profiler.spaces.language.parts import Alternatives, Optional, Part, Repeat
from ofa_profiler.spaces.language.values import Choice, choices_of

Path = tuple[str, ...]


class Condition(NamedTuple):
    """Something is there if `holds` is true for the value."""

    value: Any
    holds: Callable[[Any], bool]


Conditions = tuple[Condition, ...]


class Place(NamedTuple):
    """An op of the network, if all conditions hold. `choices` are those inside of it."""

    name: str
    part: Part
    conditions: Conditions
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Places:
    """All ops in the order of execution, and all choices with the conditions under which each of their uses exists."""

    ops: list[Place] = field(default_factory=list)
    uses: dict[Choice, list[tuple[Path, Conditions]]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    @staticmethod
    def of(network: Part) -> Places:
        """Those of a network. Raises `UsageError` if it has no op."""
        places = Places()
        places._visit(network, (), ())
        if not places.ops:
            raise UsageError("the network has no layers")
        return places

    def names(self) -> dict[Choice, str]:
        """The name of each choice: where all of its uses are, and its own. Raises `UsageError` if two are equal."""
        found: dict[str, Choice] = {}
        for choice, uses in self.uses.items():
            name = ".".join((*_common([path for path, _ in uses]), choice.name))
            if name == RESOLUTION:
                raise UsageError(f"a choice cannot be called {RESOLUTION}: that is the size of the image")
            if name in found:
                raise UsageError(
                    f"two different choices are called {name}: give one another name, give the sequence or repeat "
                    "around it a name, or use the same object in both places"
                )
            found[name] = choice
        return {choice: name for name, choice in found.items()}

    def _visit(
        self, part: Part, path: Path, conditions: Conditions, *, inside: bool = False, repeated: bool = False
    ) -> tuple[Choice, ...]:
        """Add a part of the network that stands at `path`, and return the choices in it."""
        if isinstance(part, Repeat):
            path = (*path, part.name or self._unique("repeat", path, "."))
        elif part.name is not None:
            path = (*path, part.name)
        own = choices_of(*part.values())
        for choice in own:
            self.uses.setdefault(choice, []).append((path, conditions))
        position = len(self.ops)
        is_op = part.is_op and not inside
        name = self._unique_op(part, path, repeated) if is_op else ""
        within = [
            choice
            for child, child_path, more in _children(part, path)
            for choice in self._visit(
                child, child_path, (*conditions, *more), inside=inside or is_op, repeated=isinstance(part, Repeat)
            )
        ]
        choices = tuple(dict.fromkeys((*own, *within)))
        if is_op:
            self.ops.insert(position, Place(name, part, conditions, choices))
        return choices

    def _unique_op(self, part: Part, path: Path, repeated: bool) -> str:
        if part.name is not None or (repeated and path):
            return self._unique(path[-1], path[:-1], "_")
        return self._unique(part.number.name if isinstance(part, Alternatives) else part.word, path, "_")

    def _unique(self, label: str, path: Path, joined: str) -> str:
        """A label that is not taken at this path; for ops, the whole name."""
        whole = joined.join((*path, label))
        number = 1
        while f"{joined}{whole}{number if number > 1 else ''}" in self._taken:
            number += 1
        ending = str(number) if number > 1 else ""
        self._taken.add(f"{joined}{whole}{ending}")
        return (label if joined == "." else whole) + ending


def _children(part: Part, path: Path) -> list[tuple[Part, Path, Conditions]]:
    """The parts in a part, their paths, and the conditions that it adds."""
    children = list(enumerate(part.children()))
    if isinstance(part, Repeat):
        return [(child, (*path, f"block{i}"), (_more_than(i, part.times),)) for i, child in children]
    if isinstance(part, Optional):
        return [(child, path, (Condition(part.condition, bool),)) for _, child in children]
    if isinstance(part, Alternatives):
        options, number = part.number.options, part.number
        return [
            (child, path if child.name else (*path, f"{number.name}{i}"), (_chosen(number, options[i]),))
            for i, child in children
        ]
    return [(child, path, ()) for _, child in children]


def _more_than(number: int, times: Any) -> Condition:
    return Condition(times, lambda chosen: chosen > number)


def _chosen(choice: Choice, option: Any) -> Condition:
    return Condition(choice, lambda chosen: chosen is option)


def _common(paths: list[Path]) -> Path:
    """The beginning that all paths share."""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return tuple(shared)
