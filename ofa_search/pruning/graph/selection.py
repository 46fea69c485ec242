"""Operators that take parts of a tensor, or that take channels apart and put them together."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from ofa_search.pruning.graph.analysis import Analysis, Handler
from ofa_search.pruning.graph.calls import Call, values_in
from ofa_search.pruning.graph.classes import varies, varying
from ofa_search.pruning.graph.movement import count_along, fixed
from ofa_search.pruning.graph.values import Array, Value, moved, reshaped

Given = Mapping[str, Any]


def split(analysis: Analysis, call: Call, given: Given) -> list[Value]:
    """Parts along an axis: equal ones (then what is at the same place of each goes together), or of given sizes."""
    x = analysis.labelled(next(values_in(given)))
    axis = given["dim"] % x.axes
    sizes = [shape[axis] for shape in call.shapes]
    if len(sizes) > 1 and len(set(sizes)) == 1 and varies(x.labels, axis):
        x = _periodic(analysis, call, x, axis, sizes[0])
    results, start = [], 0
    for i, (shape, size) in enumerate(zip(call.shapes, sizes, strict=True)):
        results.append(_part(x, shape, axis, slice(start, start + size)))
        count_along(analysis, call, results[-1], axis, sizes, i)
        start += size
    count_along(analysis, call, x, axis)
    return results


def unbind(analysis: Analysis, call: Call, given: Given) -> list[Value]:
    """All along an axis, which cannot be cut."""
    axis = given["dim"] % given["self"].axes
    x = fixed(analysis, given["self"], axis, call)
    return [_one(x, shape, axis, i) for i, shape in enumerate(call.shapes)]


def select(analysis: Analysis, call: Call, given: Given) -> Value:
    """One along an axis, which cannot be cut."""
    axis = given["dim"] % given["self"].axes
    return _one(fixed(analysis, given["self"], axis, call), call.shape, axis, given["index"])


def _one(x: Value, shape: tuple[int, ...], axis: int, index: int) -> Value:
    return moved(x, shape, lambda array: np.take(array, index if array.shape[axis] > 1 else 0, axis))


def _part(x: Value, shape: tuple[int, ...], axis: int, part: slice) -> Value:
    places = (slice(None),) * axis + (part,)
    return moved(x, shape, lambda array: array[places] if array.shape[axis] > 1 else array)


def slice_(analysis: Analysis, call: Call, given: Given) -> Value:
    """A part along an axis."""
    x = analysis.labelled(given["self"])
    axis, step = given["dim"] % x.axes, given.get("step") or 1
    whole, size = x.shape[axis], call.shape[axis]
    part = slice(given.get("start"), given.get("end"), step)
    if size < whole and varies(x.labels, axis):
        if step > 1 and whole % step == 0:
            x = _periodic(analysis, call, x, axis, step, within=True)
        elif step == 1 and whole % size == 0 and part.indices(whole)[0] % size == 0:
            x = _periodic(analysis, call, x, axis, size)
    result = _part(x, call.shape, axis, part)
    for value in (result, x):
        count_along(analysis, call, value, axis)
    return result


def narrow(analysis: Analysis, call: Call, given: Given) -> Value:
    """A part along an axis, by its length."""
    start = given["start"] % given["self"].shape[given["dim"]]
    return slice_(analysis, call, {**given, "start": start, "end": start + given["length"]})


def _periodic(analysis: Analysis, call: Call, x: Value, axis: int, size: int, *, within: bool = False) -> Value:
    """An axis of equal parts, which must stay equal: elements at the same place of each part go together.

    If parts are taken by places `within` them, all elements of a part go together.
    """
    shape = (*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :])
    apart = moved(x, shape, lambda array: reshaped(array, x.shape, shape))
    reason = f"{call.operator} in {call.where} takes equal parts of it"
    analysis.merge_along(apart, [axis + 1 if within else axis], reason)
    return analysis.labelled(x)


def index(analysis: Analysis, call: Call, given: Given) -> Value:
    """Elements by their places, along axes that cannot be cut."""
    x, places = analysis.labelled(given["self"]), given["indices"]
    axes = [axis for axis, place in enumerate(places) if place is not None]
    if not varying(x.labels):
        return moved(x, call.shape, lambda array: array.reshape((1,) * len(call.shape)))
    if any(places[axis].constant is None for axis in axes):
        result: Value = analysis.unknown(call, [x], "takes elements by places that are computed")
        return result
    if given["self"].parameter is None:  # the axis of a table of parameters is no axis of channels
        for axis in axes:
            x = fixed(analysis, x, axis, call)
    chosen = tuple(slice(None) if place is None else place.constant.cpu().numpy() for place in places)

    def move(array: Array) -> Array:
        size = [x.shape[i] if i in axes else array.shape[i] for i in range(x.axes)]
        return np.asarray(np.broadcast_to(array, size)[chosen])

    return analysis.labelled(moved(x, call.shape, move))


def index_select(analysis: Analysis, call: Call, given: Given) -> Value:
    """Elements by their places along one axis."""
    x: Value = given["self"]
    axis = given["dim"] % x.axes
    return index(analysis, call, {"self": x, "indices": [None] * axis + [given["index"]]})


def shuffle(analysis: Analysis, call: Call, given: Given) -> Value:
    """Channels to pixels and back, and channels among each other, as views and permutations."""
    x, kind = analysis.labelled(given["self"]), call.operator
    *first, channels, height, width = x.shape
    n = len(first)
    if kind == "pixel_shuffle":
        factor = int(given["upscale_factor"])
        apart = (*first, channels // factor**2, factor, factor, height, width)
        order, cut_along = [*range(n), n, n + 3, n + 1, n + 4, n + 2], n
    elif kind == "pixel_unshuffle":
        factor = int(given["downscale_factor"])
        apart = (*first, channels, height // factor, factor, width // factor, factor)
        order, cut_along = [*range(n), n, n + 2, n + 4, n + 1, n + 3], n
    else:
        groups = int(given["groups"])
        apart = (*first, groups, channels // groups, height, width)
        order, cut_along = [*range(n), n + 1, n, n + 2, n + 3], n + 1
    pieces = moved(x, apart, lambda array: reshaped(array, x.shape, apart))
    others = [axis for axis in varying(pieces.labels) if axis != cut_along]
    pieces = analysis.merge_along(pieces, others, f"{kind} in {call.where} needs equal parts of it")
    ordered = tuple(apart[axis] for axis in order)
    return moved(pieces, call.shape, lambda array: reshaped(array.transpose(order), ordered, call.shape))


def patches(analysis: Analysis, call: Call, given: Given) -> Value:
    """Each channel becomes one for each place of a kernel, or the other way round."""
    x, places = analysis.labelled(given["self"]), prod(given["kernel_size"])
    channel = 1
    if any(axis != channel for axis in varying(x.labels)):
        result: Value = analysis.unknown(call, [x], "mixes them")
        return result
    if call.operator == "im2col":
        narrow_axes = (1,) * len(call.shape)
        if not varying(x.labels):
            return moved(x, call.shape, lambda array: array.reshape(narrow_axes))
        return moved(x, call.shape, lambda array: np.repeat(array.reshape(1, -1, 1), places, 1))
    apart = (*x.shape[:1], x.shape[1] // places, places, *x.shape[2:])
    pieces = moved(x, apart, lambda array: reshaped(array, x.shape, apart))
    pieces = analysis.merge_along(pieces, [2], f"{call.operator} in {call.where} needs all of a channel")
    return moved(pieces, call.shape, lambda array: array[:, :, :1])


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split"), split),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"), shuffle),
    **dict.fromkeys(("im2col", "col2im"), patches),
    "unbind": unbind,
    "select": select,
    "slice": slice_,
    "narrow": narrow,
    "index": index,
    "index_select": index_select,
}
