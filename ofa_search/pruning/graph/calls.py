"""The operators of a traced network in the order of execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ofa_search.pruning.graph.values import Value

_LARGEST_CONSTANT = 1 << 22


@dataclass(frozen=True)
class Name:
    """Stands for the result of another operator."""

    text: str


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operator. `arguments` has a `Name` where a tensor goes in."""

    name: str
    operator: str  # without its package, and without the _ of those that work in place
    target: Any
    arguments: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    gives_list: bool
    changed: str | None  # the tensor that it changes in place
    module: str  # the path of the module in whose forward it is
    where: str  # the same for readers

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the only result."""
        return self.shapes[0]

    def bind(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, with values for names."""
        return {key: _bound(argument, environment) for key, argument in self.arguments.items()}

    def evaluate(self, given: Mapping[str, Any]) -> torch.Tensor | None:
        """The result with constants, or None where there is none that could be of use."""
        if sum(torch.Size(shape).numel() for shape in self.shapes) > _LARGEST_CONSTANT or self.gives_list:
            return None
        try:
            with torch.no_grad():
                result = self.target(**{key: _constant(argument) for key, argument in given.items()})
        except Exception:  # whatever it is, it is then no constant
            return None
        return result if isinstance(result, torch.Tensor) else None


def values_in(argument: Any) -> Iterator[Value]:
    """All values in an argument, or in several."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, Mapping):
        yield from values_in(list(argument.values()))
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from values_in(each)


def arguments_of(node: torch.fx.Node) -> dict[str, Any]:
    """The arguments of a node by the names in the schema of its operator, with the defaults."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {**{str(i): _named(argument) for i, argument in enumerate(node.args)}, **_named(dict(node.kwargs))}
    found = {}
    for i, declared in enumerate(schema.arguments):
        if i < len(node.args) and not declared.kwarg_only:
            found[declared.name] = _named(node.args[i])
        elif declared.name in node.kwargs:
            found[declared.name] = _named(node.kwargs[declared.name])
        elif declared.has_default_value():
            found[declared.name] = declared.default_value
    return found


def _named(argument: Any) -> Any:
    if isinstance(argument, torch.fx.Node):
        return Name(argument.name)
    if isinstance(argument, Mapping):
        return {key: _named(each) for key, each in argument.items()}
    return (
        [_named(each) for each in argument]
        if isinstance(argument, Sequence) and not isinstance(argument, str)
        else argument
    )


def _bound(argument: Any, environment: Mapping[str, Any]) -> Any:
    if isinstance(argument, Name):
        return environment[argument.text]
    return [_bound(each, environment) for each in argument] if isinstance(argument, list) else argument


def _constant(argument: Any) -> Any:
    if isinstance(argument, Value):
        return argument.constant
    return [_constant(each) for each in argument] if isinstance(argument, list) else argument
