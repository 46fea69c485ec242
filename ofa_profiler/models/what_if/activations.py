"""Activations that cost much -> ReLU. They are recognized by what they compute, however a file spells them.

Files spell hard-swish as one operator, as x * HardSigmoid(x), or with Add, Clip, Mul and Div. So a region of
elementwise operators with one input is computed at some points, and compared with the known functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import erf, pi, prod

import numpy as np

from ofa_profiler.models.base import Array
from ofa_profiler.models.what_if.base import Editor, Idea, Net, Node, Place

_POINTS = np.linspace(-8.0, 8.0, 161)
#: tanh and erf forms of gelu differ by 0.0005, hard-swish and swish by 0.14.
_TOLERANCE = 2e-3
_LARGEST_REGION = 10


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


#: The functions that are replaced.
FUNCTIONS = {
    "hard-swish": _POINTS * np.clip(_POINTS + 3.0, 0.0, 6.0) / 6.0,
    "swish": _POINTS * _sigmoid(_POINTS),
    "gelu": 0.5 * _POINTS * (1.0 + np.array([erf(x / 2**0.5) for x in _POINTS])),
    "quick gelu": _POINTS * _sigmoid(1.702 * _POINTS),
    "mish": _POINTS * np.tanh(np.log1p(np.exp(_POINTS))),
}


@dataclass(frozen=True, eq=False)
class Region:
    """Nodes, in order, that compute `y` from `x` alone."""

    nodes: tuple[Node, ...]
    x: str
    y: str


class ReluInstead(Idea):
    """hard-swish, swish, gelu and mish -> ReLU."""

    def places(self, net: Net) -> Iterator[Place]:
        taken: set[int] = set()
        for node in reversed(net.nodes):
            if node.index in taken or len(node.outputs) != 1:
                continue
            found = next(((r, name) for r in regions(net, node) if (name := activation(net, r)) is not None), None)
            if found is None:
                continue
            region, name = found
            taken.update(each.index for each in region.nodes)
            shape = net.shape(region.x)
            yield Place(
                f"{name} -> ReLU",
                node.name,
                (shape,),
                float(len(region.nodes) * prod(shape or (1,))),
                partial(_apply, region),
            )


def _apply(region: Region, editor: Editor) -> None:
    editor.replace_by_relu(region.nodes, region.x, region.y)


def regions(net: Net, last: Node) -> Iterator[Region]:
    """The regions with one input that end in a node, the smallest first. Nothing else reads what is inside."""
    inside: dict[int, Node] = {}
    inputs = [last.outputs[0]]
    while len(inside) < _LARGEST_REGION:
        # The latest tensor of all: what the others follow from may lie before it, and never after.
        made = [(net.maker[name].index, name) for name in inputs if name in net.maker]
        if not made:
            return
        _, name = max(made)
        node = net.maker[name]
        if net.function(node) is None or (inside and not _is_inside(net, name, inside)):
            return
        inside[node.index] = node
        inputs.remove(name)
        inputs += [given for given in node.given if _scalar(net, given) is None and given not in inputs]
        if len(inputs) == 1:
            yield Region(tuple(inside[i] for i in sorted(inside)), inputs[0], last.outputs[0])


def _is_inside(net: Net, name: str, inside: dict[int, Node]) -> bool:
    return name not in net.kept and all(user.index in inside for user in net.users.get(name, ()))


def _scalar(net: Net, name: str) -> float | None:
    values = net.constant(name)
    return float(values.reshape(-1)[0]) if values is not None and values.size == 1 else None


def activation(net: Net, region: Region) -> str | None:
    """The name of the function that a region computes; None for others."""
    values: dict[str, Array] = {region.x: _POINTS}
    with np.errstate(all="ignore"):
        for node in region.nodes:
            function = net.function(node)
            if function is None:
                return None
            try:
                values[node.outputs[0]] = np.asarray(function(*_arguments(net, node, values)), dtype=float)
            except (TypeError, ValueError, KeyError):  # other inputs than the function has
                return None
    result = values[region.y]
    if result.shape != _POINTS.shape or not np.isfinite(result).all():
        return None
    return next((name for name, wanted in FUNCTIONS.items() if np.abs(result - wanted).max() < _TOLERANCE), None)


def _arguments(net: Net, node: Node, values: dict[str, Array]) -> Sequence[Array | float | None]:
    return [values[name] if name in values else _scalar(net, name) if name else None for name in node.inputs]


def tanh_gelu(x: Array) -> Array:
    """The approximation of gelu by tanh."""
    return np.asarray(0.5 * x * (1.0 + np.tanh((2.0 / pi) ** 0.5 * (x + 0.044715 * x**3))))


def exact_gelu(x: Array) -> Array:
    """Gelu by its definition."""
    return np.asarray(0.5 * x * (1.0 + error_function(x / 2**0.5)))


def error_function(x: Array) -> Array:
    """erf, elementwise."""
    return np.vectorize(erf, otypes=[float])(x)  # type: ignore[no-any-return]
