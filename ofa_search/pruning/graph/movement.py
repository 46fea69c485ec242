"""Operators that move whole tensors or put them together: numpy does the same with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ofa_search.pruning.graph.analysis import Analysis, Handler
from ofa_search.pruning.graph.calls import Call
from ofa_search.pruning.graph.classes import varies, varying
from ofa_search.pruning.graph.values import Array, Parameter, Value, moved, reshaped

Given = Mapping[str, Any]


def reshape(analysis: Analysis, call: Call, given: Given) -> Value:
    """Views, and what splits or merges axes."""
    x = analysis.labelled(given["self"])
    result = analysis.labelled(moved(x, call.shape, lambda array: reshaped(array, x.shape, call.shape)))
    _count_axes(analysis, call, result)
    return result


def permute(analysis: Analysis, call: Call, given: Given) -> Value:
    """Axes in another order. A parameter stays one."""
    x: Value = given["self"]
    order = _order(call.operator, x.axes, given)
    if x.parameter is not None:
        own = Parameter(x.parameter.name, tuple(x.parameter.axes[axis] for axis in order))
        return Value(call.shape, x.labels.transpose(order), x.zero.transpose(order), own)
    return moved(analysis.labelled(x), call.shape, lambda array: array.transpose(order))


def _order(operator: str, axes: int, given: Given) -> list[int]:
    if operator == "permute":
        return [axis % axes for axis in given["dims"]]
    if operator in ("t", "numpy_T"):
        return list(range(axes))[::-1]
    if operator == "movedim":
        sizes = np.empty(range(1, axes + 1), np.bool_)  # each axis is known by its size
        return [size - 1 for size in np.moveaxis(sizes, given["source"], given["destination"]).shape]
    names = next(pair for pair in (("dim0", "dim1"), ("axis0", "axis1"), ("", "")) if pair[0] in given or not pair[0])
    first, second = (given[name] % axes if name else axes - 2 + i for i, name in enumerate(names))
    order = list(range(axes))
    order[first], order[second] = second, first
    return order


def expand(analysis: Analysis, call: Call, given: Given) -> Value:
    """Copies along axes of size 1."""
    x = analysis.labelled(given["self"])
    more = (1,) * (len(call.shape) - x.axes)
    result = moved(x, call.shape, lambda array: array.reshape(more + array.shape))
    _count_axes(analysis, call, result)
    copies = [i for i, (old, new) in enumerate(zip(more + x.shape, call.shape, strict=True)) if old == 1 < new]
    return replace(result, copies=tuple(copies))


def repeat(analysis: Analysis, call: Call, given: Given) -> Value:
    """The whole several times."""
    x = analysis.labelled(given["self"])
    times = given["repeats"] if "repeats" in given else given["dims"]
    times = [1] * (x.axes - len(times)) + list(times)
    more = (1,) * (len(times) - x.axes)
    shape = more + x.shape

    def move(array: Array) -> Array:
        array = array.reshape(more + array.shape)
        return np.tile(array, [n if array.shape[i] == shape[i] else 1 for i, n in enumerate(times)])

    return moved(x, call.shape, move)


def cat(analysis: Analysis, call: Call, given: Given) -> Value:
    """Several one after the other."""
    values = [analysis.labelled(value) for value in given["tensors"] if value.axes == len(call.shape)]
    return _joined(analysis, call, values, given["dim"] % len(call.shape))


def stack(analysis: Analysis, call: Call, given: Given) -> Value:
    """Several along a new axis."""
    axis = given["dim"] % len(call.shape)
    values = []
    for each in given["tensors"]:
        x = analysis.labelled(each)
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        values.append(moved(x, shape, lambda array: np.expand_dims(array, axis)))
    return fixed(analysis, _joined(analysis, call, values, axis), axis, call)


def _joined(analysis: Analysis, call: Call, values: Sequence[Value], axis: int) -> Value:
    """Labels along all axes along which any of them has some, and along `axis` in full."""
    sizes = np.array([value.labels.shape for value in values]).max(0)

    def whole(array: Array, value: Value) -> Array:
        size = [value.shape[i] if i == axis or sizes[i] > 1 else 1 for i in range(value.axes)]
        return np.broadcast_to(array, size)

    labels = np.concatenate([whole(value.labels, value) for value in values], axis)
    zero = np.concatenate([whole(value.zero, value) for value in values], axis)
    return analysis.value(call.shape, labels, zero)


def fixed(analysis: Analysis, value: Value, axis: int, call: Call) -> Value:
    """The value, of which all along an axis go together, because the axis cannot be cut."""
    x = analysis.labelled(value)
    if not varies(x.labels, axis):
        return x
    reason = f"{call.operator} in {call.where} takes it by its place"
    if varying(x.labels) == [axis]:
        analysis.freeze(x, reason)
        return analysis.labelled(x)
    return analysis.merge_along(x, [axis], reason)


def flip(analysis: Analysis, call: Call, given: Given) -> Value:
    """The other way round."""
    return moved(analysis.labelled(given["self"]), call.shape, lambda array: np.flip(array, given["dims"]))


def roll(analysis: Analysis, call: Call, given: Given) -> Value:
    """A shift by a number of places, along axes that cannot be cut."""
    x: Value = given["self"]
    for axis in given["dims"] or range(x.axes):
        x = fixed(analysis, x, axis % x.axes, call)
    return analysis.labelled(x)


def pad(analysis: Analysis, call: Call, given: Given) -> Value:
    """A border. Where it is not zero, nothing else is either."""
    x = analysis.labelled(given["self"])
    sizes, zeros = given["pad"], given.get("mode", "constant") != "constant" or not given.get("value")
    widths = [(0, 0)] * x.axes
    for i in range(len(sizes) // 2):
        widths[-1 - i] = (sizes[2 * i], sizes[2 * i + 1])
    wanted = [widths[axis] if varies(x.labels, axis) else (0, 0) for axis in range(x.axes)]
    if any(min(width) < 0 for width in wanted):
        result: Value = analysis.unknown(call, [x], "takes its border away")
        return result
    labels = np.pad(x.labels, wanted, constant_values=-1)
    return analysis.value(call.shape, labels, np.pad(x.zero & zeros, wanted))


def _count_axes(analysis: Analysis, call: Call, value: Value) -> None:
    for axis in varying(value.labels):
        count_along(analysis, call, value, axis)


def count_along(
    analysis: Analysis, call: Call, value: Value, axis: int, among: Sequence[int] = (), position: int = 0
) -> None:
    """Say that the size of an axis may be an integer of the module in whose forward this is."""
    if varies(value.labels, axis):
        first = tuple(slice(None) if other == axis else 0 for other in range(value.axes))
        analysis.count(call.module, "", value.labels[first], among, position)


_VIEWS = (
    "view",
    "reshape",
    "_unsafe_view",
    "view_as",
    "reshape_as",
    "flatten",
    "unflatten",
    "unsqueeze",
    "squeeze",
    "ravel",
    "_reshape_alias",
)

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_VIEWS, reshape),
    **dict.fromkeys(("permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "numpy_T", "mT"), permute),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    **dict.fromkeys(("repeat", "tile"), repeat),
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    "stack": stack,
    "flip": flip,
    "roll": roll,
}
