"""The parts of networks: layers one after the other, repeated, optional, chosen, side by side.

A part that is an op (`is_op`) is measured as one: a single layer, a `residual`, a `concat` or a `block`. All others
only say which ops there are, unless they are inside of one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.layers import Add, Concat, Conv
from ofa_profiler.networks.layers.conv import strided
from ofa_profiler.networks.tensors import Shape
from ofa_profiler.spaces.language.draft import BRANCHES, CHAIN, Draft
from ofa_profiler.spaces.language.values import Choice, Setting, Value, checked_name, choice, possible, value_at

#: More repetitions than this are a mistake.
_MOST_REPETITIONS = 1000


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a network. `name` is its place in the names of choices, ops and parameters."""

    _: KW_ONLY
    name: str | None = None
    is_op = False
    #: What it is called in messages, and in names where it has no other.
    word = "part"

    def __post_init__(self) -> None:
        if self.name is not None:
            checked_name(self.name, f"a {self.word}")

    def values(self) -> tuple[Any, ...]:
        """The values that it uses itself: choices, what depends on them, and constants."""
        return ()

    def children(self) -> tuple[Part, ...]:
        """The parts in it."""
        return ()

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        """Add its layers after `tensor` to an op, and return their output. Raises `UsageError`."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Sequence(Part):
    """Parts one after the other."""

    parts: tuple[Part, ...]
    word = "sequence"

    def children(self) -> tuple[Part, ...]:
        return self.parts

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        for part in self.parts:
            tensor = part.write(draft, tensor, setting)
        return tensor


@dataclass(frozen=True, eq=False)
class Block(Sequence):
    """Parts one after the other, as one op."""

    is_op = True
    word = "block"


@dataclass(frozen=True, eq=False)
class Repeat(Part):
    """The first `times` of the repetitions."""

    repetitions: tuple[Part, ...]
    times: Any
    word = "repeat"

    def values(self) -> tuple[Any, ...]:
        return (self.times,)

    def children(self) -> tuple[Part, ...]:
        return self.repetitions

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        for part in self.repetitions[: value_at(self.times, setting)]:
            tensor = part.write(draft, tensor, setting)
        return tensor


@dataclass(frozen=True, eq=False)
class Optional(Part):
    """A part or nothing."""

    part: Part
    condition: Any
    word = "optional"

    def values(self) -> tuple[Any, ...]:
        return (self.condition,)

    def children(self) -> tuple[Part, ...]:
        return (self.part,)

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        return self.part.write(draft, tensor, setting) if value_at(self.condition, setting) else tensor


@dataclass(frozen=True, eq=False)
class Alternatives(Part):
    """One of several parts. `number` is the choice of its position."""

    number: Choice
    parts: tuple[Part, ...]
    word = "choice"

    @property
    def is_op(self) -> bool:  # type: ignore[override]
        return all(part.is_op or part.children() == () for part in self.parts)

    def values(self) -> tuple[Any, ...]:
        return (self.number,)

    def children(self) -> tuple[Part, ...]:
        return self.parts

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        return self.parts[self.number.options.index(setting.options[self.number])].write(draft, tensor, setting)


@dataclass(frozen=True, eq=False)
class Residual(Part):
    """Parts, whose output is added to what comes in."""

    parts: tuple[Part, ...]
    project: bool
    activation: Any
    is_op = True
    word = "residual"

    def values(self) -> tuple[Any, ...]:
        return (self.activation,)

    def children(self) -> tuple[Part, ...]:
        return self.parts

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        output, words = draft.apart(lambda: Sequence(self.parts).write(draft, tensor, setting))
        before, after = draft.shapes[tensor], draft.shapes[output]
        if output == tensor:
            return tensor
        if before != after and not self.project:
            draft.words += words
            return output
        shortcut = tensor if before == after else _projected(draft, tensor, after)
        activation = str(value_at(self.activation, replace(setting, shape=after)) or "")
        draft.say(f"{self.word}({CHAIN.join(words)})", "" if shortcut == tensor else "project", activation)
        return draft.add("sum", lambda name: Add(name, activation), output, shortcut)


def _projected(draft: Draft, tensor: str, after: Shape) -> str:
    """The input of a residual in the shape of its output, by a 1 x 1 convolution."""
    before = draft.shapes[tensor]
    if len(before) == len(after) == 3:
        stride = next((s for s in range(1, before[0] + 1) if strided(before[0], s) == after[0]), 0)
        if stride:
            return draft.add("shortcut", lambda name: Conv(name, before[-1], after[-1], stride=stride), tensor)
    raise UsageError(f"residual cannot bring what comes in, {before}, into the shape of its output, {after}")


@dataclass(frozen=True, eq=False)
class Branches(Part):
    """Parts side by side, whose outputs are joined."""

    parts: tuple[Part, ...]
    is_op = True
    word = "concat"

    def children(self) -> tuple[Part, ...]:
        return self.parts

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        written = [draft.apart(lambda part=part: part.write(draft, tensor, setting)) for part in self.parts]  # type: ignore[misc]
        draft.say(f"{self.word}({BRANCHES.join(CHAIN.join(words) for _, words in written)})")
        return draft.add(self.word, Concat, *(output for output, _ in written))


# --- what users write -------------------------------------------------------------------------------------


def sequence(*parts: Any, name: str | None = None) -> Part:
    """These layers one after the other. With a name, the names of the choices in it begin with it."""
    return Sequence(_parts("sequence", parts), name=name)


def block(*parts: Any, name: str | None = None) -> Part:
    """These layers one after the other, measured as one op."""
    return Block(_parts("block", parts), name=name)


def residual(*parts: Any, project: bool = False, activation: Any = "", name: str | None = None) -> Part:
    """Layers whose output is added to what comes in, where both have the same shape.

    Where they differ, nothing is added; with `project`, a 1 x 1 convolution of what comes in is. `activation` follows.
    """
    return Residual(_parts("residual", parts), bool(project), activation, name=name)


def concat(*branches: Any, name: str | None = None) -> Part:
    """Branches with the same input side by side. Their channels are joined."""
    if len(branches) < 2:
        raise UsageError("concat takes two branches or more")
    return Branches(_parts("concat", branches), name=name)


def optional(part: Any, condition: Any, *, name: str | None = None) -> Part:
    """The layers or nothing. `condition` is the name of the choice, or a choice or what depends on some."""
    named = choice(condition, [False, True]) if isinstance(condition, str) else condition
    return Optional(as_part("optional", part), named, name=name)


def repeat(part: Any, times: Any, *, name: str | None = None) -> Part:
    """The layers several times, one after the other. `times` is a number, a choice, or what depends on choices.

    If `part` is a function, it is called for each repetition, with its number from 0 on, unless it takes no argument.
    """
    found = possible(times)
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in found):
        raise UsageError(f"repeat takes a whole number of times, or a choice of them, not {times!r:.120}")
    if not 1 <= (most := max(found)) <= _MOST_REPETITIONS:
        raise UsageError(f"repeat takes 1 to {_MOST_REPETITIONS} times, not {most}")
    return Repeat(tuple(_repetition(part, number) for number in range(most)), times, name=name)


def _repetition(part: Any, number: int) -> Part:
    if callable(part) and not isinstance(part, Part):
        made = part(number) if _takes_argument(part) else part()
        return as_part("the function of repeat", made, returned=True)
    return as_part("repeat", part)


def _takes_argument(function: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in kinds for each in inspect.signature(function).parameters.values())


def _parts(where: str, parts: tuple[Any, ...]) -> tuple[Part, ...]:
    if not parts:
        raise UsageError(f"{where} takes one layer or more")
    return tuple(as_part(where, part) for part in parts)


def as_part(where: str, given: Any, *, returned: bool = False) -> Part:
    """A part as users give it: None is no layer, and a choice can be one of layers. Raises `UsageError`."""
    if isinstance(given, Part):
        return given
    if given is None and not returned:
        return Sequence(())
    if isinstance(given, Choice) and not given.is_number and not given.is_text:
        return Alternatives(given, tuple(as_part(f"choice {given.name!r}", option) for option in given.options))
    hint = " (it is a function: call it)" if callable(given) and not isinstance(given, Value) else ""
    raise UsageError(f"{where} {'returns' if returned else 'takes'} layers, not {given!r:.80}{hint}")
