"""Values that choices determine: the choices themselves, what depends on them, and the number of channels.

A `Choice` object is one choice, wherever it stands. `Setting` has what is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import add, floordiv, ge, gt, le, lt, mod, mul, sub, truediv
from typing import Any, NoReturn

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.blocks import make_divisible
from ofa_profiler.networks.tensors import Shape

_SIGNS = {add: "+", sub: "-", mul: "*", truediv: "/", floordiv: "//", mod: "%", lt: "<", le: "<=", gt: ">", ge: ">="}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Genomes are bytes.
_MOST_OPTIONS = 127
#: How many combinations of choices a number of repetitions may depend on.
_MOST_COMBINATIONS = 1 << 16


@dataclass(frozen=True)
class Setting:
    """What is chosen: an option of each choice. `shape` is that of the layer's input, None outside of layers."""

    options: Mapping[Choice, Any]
    classes: int
    shape: Shape | None = None


class Value:
    """A number or a text that choices determine."""

    def choices(self) -> tuple[Choice, ...]:
        """The choices on which it depends."""
        raise NotImplementedError

    def at(self, setting: Setting) -> Any:
        """What it is in this setting."""
        raise NotImplementedError

    def __add__(self, other: object) -> Value:
        return Dependent(add, (self, other))

    def __radd__(self, other: object) -> Value:
        return Dependent(add, (other, self))

    def __sub__(self, other: object) -> Value:
        return Dependent(sub, (self, other))

    def __rsub__(self, other: object) -> Value:
        return Dependent(sub, (other, self))

    def __mul__(self, other: object) -> Value:
        return Dependent(mul, (self, other))

    def __rmul__(self, other: object) -> Value:
        return Dependent(mul, (other, self))

    def __truediv__(self, other: object) -> Value:
        return Dependent(truediv, (self, other))

    def __floordiv__(self, other: object) -> Value:
        return Dependent(floordiv, (self, other))

    def __rtruediv__(self, other: object) -> Value:
        return Dependent(truediv, (other, self))

    def __rfloordiv__(self, other: object) -> Value:
        return Dependent(floordiv, (other, self))

    def __rmod__(self, other: object) -> Value:
        return Dependent(mod, (other, self))

    def __mod__(self, other: object) -> Value:
        return Dependent(mod, (self, other))

    def __lt__(self, other: object) -> Value:
        return Dependent(lt, (self, other))

    def __le__(self, other: object) -> Value:
        return Dependent(le, (self, other))

    def __gt__(self, other: object) -> Value:
        return Dependent(gt, (self, other))

    def __ge__(self, other: object) -> Value:
        return Dependent(ge, (self, other))

    def __bool__(self) -> NoReturn:
        raise UsageError(
            f"{self} has no value yet where the space is written: use optional(layers, condition), "
            "or dependent(function, …)"
        )


class Choice(Value):
    """One of several options: numbers, texts, or layers."""

    def __init__(self, name: str, options: Sequence[Any]) -> None:
        self.name = checked_name(name, "a choice")
        if isinstance(options, str | Value) or not isinstance(options, Sequence | range):
            raise UsageError(f"choice {name!r} takes a list of options, like [3, 5], not {options!r:.60}")
        if not 1 <= len(options) <= _MOST_OPTIONS:
            raise UsageError(f"choice {name!r} has {len(options)} options; it takes 1 to {_MOST_OPTIONS}")
        if any(isinstance(option, Value) for option in options):
            raise UsageError(f"choice {name!r} has an option that is a choice itself: use dependent(function, …)")
        self.is_number = all(isinstance(option, int | float) for option in options)
        self.is_text = all(isinstance(option, str) for option in options)
        self.options = tuple(sorted(options) if self.is_number else options)
        distinct = set(self.options) if self.is_number or self.is_text else {id(option) for option in self.options}
        if len(distinct) < len(self.options):
            raise UsageError(f"choice {name!r} has an option twice: {list(options)!r:.80}")

    def __repr__(self) -> str:
        return f"choice {self.name!r}"

    def choices(self) -> tuple[Choice, ...]:
        return (self,)

    def at(self, setting: Setting) -> Any:
        return setting.options[self]


class Dependent(Value):
    """What a function makes of other values."""

    def __init__(self, function: Callable[..., Any], values: Sequence[Any]) -> None:
        self.function, self.values = function, tuple(values)

    def __repr__(self) -> str:
        if self.function in _SIGNS:
            return f"({f' {_SIGNS[self.function]} '.join(map(repr, self.values))})"
        name = getattr(self.function, "__name__", "a function")
        return f"{name}({', '.join(map(repr, self.values))})"

    def choices(self) -> tuple[Choice, ...]:
        return choices_of(*self.values)

    def at(self, setting: Setting) -> Any:
        values = [value_at(value, setting) for value in self.values]
        try:
            found = self.function(*values)
        except UsageError:
            raise
        except Exception as error:  # of a user's function
            raise UsageError(f"{self!r:.120} fails for {values}: {type(error).__name__}: {error}") from None
        if isinstance(found, Value):
            raise UsageError(f"{self!r:.120} gives a choice; a function of choices gives a number or a text")
        return found


class _Inputs(Value):
    """The number of channels, or of values of a vector, that a layer gets."""

    def __repr__(self) -> str:
        return "inputs"

    def choices(self) -> tuple[Choice, ...]:
        return ()

    def at(self, setting: Setting) -> Any:
        if setting.shape is None:
            raise UsageError("inputs is what a layer gets: it cannot decide whether, or how often, there are layers")
        return setting.shape[-1]


inputs = _Inputs()


def choice(name: str, options: Sequence[Any]) -> Choice:
    """One of these options: numbers, texts, or layers (None: no layer)."""
    return Choice(name, options)


def dependent(function: Callable[..., Any], *values: Any) -> Value:
    """What `function` makes of the values of choices."""
    if not callable(function) or not values:
        raise UsageError("dependent(function, choice, …) takes a function, and the choices whose values it gets")
    return Dependent(function, values)


def rounded(value: Any, multiple: int = 8) -> Any:
    """The nearest multiple, by the rule of MobileNets: never more than 10% below `value`."""
    if isinstance(value, Value):
        return Dependent(rounded, (value, multiple))
    return make_divisible(value, multiple)


def checked_name(name: object, what: str) -> str:
    """A name for choices and places. Raises `UsageError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"the name of {what} is one word of letters, digits and _, not {name!r:.60}")
    return name


def choices_of(*values: Any) -> tuple[Choice, ...]:
    """The choices on which values depend, each once."""
    return tuple(dict.fromkeys(each for value in values if isinstance(value, Value) for each in value.choices()))


def value_at(value: Any, setting: Setting) -> Any:
    """What a value, or a constant, is in this setting."""
    return value.at(setting) if isinstance(value, Value) else value


def possible(value: Any) -> list[Any]:
    """All that a value can be. Raises `UsageError` if it depends on too much."""
    choices = choices_of(value)
    combinations = 1
    for each in choices:
        combinations *= len(each.options)
    if combinations > _MOST_COMBINATIONS:
        raise UsageError(f"{value!r:.120} depends on {combinations} combinations of choices, which is too many")
    settings = (
        Setting(dict(zip(choices, options, strict=True)), 0) for options in product(*(c.options for c in choices))
    )
    return [value_at(value, setting) for setting in settings]
