"""Operators that move elements: numpy does the same with labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ofa_search.pruning.graph.analysis import Analysis, Handler
from ofa_search.pruning.graph.calls import Call, values_in
from ofa_search.pruning.graph.classes import varies, varying
from ofa_search.pruning.graph.values import Array, Parameter, Value, reshaped

Given = Mapping[str, Any]


def reshape(analysis: Analysis, call: Call, given: Given) -> Value:
    """Views, and what splits or merges axes."""
    x = analysis.labelled(given["self"])
    moved = _move(analysis, call, x, lambda array: reshaped(array, x.shape, call.shape))
    _count_axes(analysis, call, moved)
    return moved


def permute(analysis: Analysis, call: Call, given: Given) -> Value:
    """Axes in another order. A parameter stays one."""
    x = given["self"]
    order = _order(call.operator, x.axes, given)
    if x.parameter is not None:
        own = Parameter(x.parameter.name, tuple(x.parameter.axes[axis] for axis in order))
        return Value(call.shape, x.labels.transpose(order), x.zero.transpose(order), own)
    return _move(analysis, call, analysis.labelled(x), lambda array: array.transpose(order))


def _order(operator: str, axes: int, given: Given) -> list[int]:
    order = list(range(axes))
    if operator == "permute":
        return [axis % axes for axis in given["dims"]]
    if operator in ("t", "numpy_T", "mT", "adjoint"):
        return order[::-1] if operator != "mT" else [*order[:-2], order[-1], order[-2]]
    if operator == "movedim":
        source, destination = given["source"], given["destination"]
        return list(
            np.moveaxis(np.empty([1] * axes + [0])[..., 0].reshape([1] * axes), source, destination).shape
        ) and [int(axis) for axis in _moved_axes(axes, source, destination)]
    first, second = (given[key] % axes for key in (("dim0", "dim1") if "dim0" in given else ("axis0", "axis1")))
    order[first], order[second] = order[second], order[first]
    return order


def _moved_axes(axes: int, source: Any, destination: Any) -> Sequence[int]:
    sizes = np.moveaxis(np.empty(range(1, axes + 1), np.bool_), source, destination).shape
    return [size - 1 for size in sizes]


def expand(analysis: Analysis, call: Call, given: Given) -> Value:
    """Copies along axes of size 1."""
    x = analysis.labelled(given["self"])
    more = (1,) * (len(call.shape) - x.axes)
    result = _move(analysis, call, x, lambda array: array.reshape(more + array.shape))
    _count_axes(analysis, call, result)
    return result


def repeat(analysis: Analysis, call: Call, given: Given) -> Value:
    """The whole several times."""
    x = analysis.labelled(given["self"])
    times = given.get("repeats", given.get("dims"))
    shape = (1,) * (len(times) - x.axes) + x.shape

    def move(array: Array) -> Array:
        array = array.reshape((1,) * (len(times) - x.axes) + array.shape)
        wide = [array.shape[axis] > 1 or size == 1 for axis, size in enumerate(shape)]
        return np.tile(array, [count if wide[axis] else 1 for axis, count in enumerate(times)])

    return _move(analysis, call, x, move)


def cat(analysis: Analysis, call: Call, given: Given) -> Value:
    """Several one after the other."""
    values = [analysis.labelled(value) for value in given["tensors"] if value.axes == len(call.shape)]
    axis = given["dim"] % len(call.shape)
    return _joined(analysis, call, values, axis)


def stack(analysis: Analysis, call: Call, given: Given) -> Value:
    """Several along a new axis."""
    axis = given["dim"] % len(call.shape)
    values = [analysis.labelled(value) for value in given["tensors"]]
    shape = values[0].shape[:axis] + (1,) + values[0].shape[axis:]
    widened = [Value(shape, *(np.expand_dims(a, axis) for a in (value.labels, value.zero))) for value in values]
    return _fixed(analysis, _joined(analysis, call, widened, axis), axis, call)


def _joined(analysis: Analysis, call: Call, values: Sequence[Value], axis: int) -> Value:
    """Labels along all axes along which any of them has some, and along `axis` in full."""
    sizes = np.array([np.broadcast_shapes(value.labels.shape, value.zero.shape) for value in values]).max(0)

    def whole(array: Array, value: Value) -> Array:
        size = [value.shape[i] if i == axis or sizes[i] > 1 else 1 for i in range(value.axes)]
        return np.broadcast_to(array, size)

    labels = np.concatenate([whole(value.labels, value) for value in values], axis)
    zero = np.concatenate([whole(value.zero, value) for value in values], axis)
    return analysis.value(call.shape, labels, zero)


def split(analysis: Analysis, call: Call, given: Given) -> list[Value]:
    """Parts along an axis: equal ones (then what is at the same place of each goes together), or of given sizes."""
    x = analysis.labelled(next(values_in(given)))
    axis = given["dim"] % x.axes
    sizes = [shape[axis] for shape in call.shapes]
    if len(sizes) > 1 and len(set(sizes)) == 1 and varies(x.labels, axis):
        x = _periodic(analysis, call, x, axis, sizes[0])
    ends = np.cumsum(sizes)
    results = []
    for i, (shape, end, size) in enumerate(zip(call.shapes, ends, sizes, strict=True)):
        part = slice(int(end) - size, int(end))
        results.append(_move(analysis, call, x, lambda array, part=part: _cut(array, axis, part), shape=shape))
        _count_along(analysis, call, results[-1], axis, sizes, i)
    _count_along(analysis, call, x, axis)
    return results


def unbind(analysis: Analysis, call: Call, given: Given) -> list[Value]:
    """All along an axis, which cannot be cut."""
    axis = given["dim"] % given["self"].axes
    x = _fixed(analysis, given["self"], axis, call)
    return [
        _move(analysis, call, x, lambda array, i=i: _take(array, axis, i), shape=shape)
        for i, shape in enumerate(call.shapes)
    ]


def select(analysis: Analysis, call: Call, given: Given) -> Value:
    """One along an axis, which cannot be cut."""
    axis = given["dim"] % given["self"].axes
    x = _fixed(analysis, given["self"], axis, call)
    return _move(analysis, call, x, lambda array: _take(array, axis, given["index"]))


def _take(array: Array, axis: int, index: int) -> Array:
    return np.take(array, index if array.shape[axis] > 1 else 0, axis)


def _cut(array: Array, axis: int, part: slice) -> Array:
    return array[(slice(None),) * axis + (part,)] if array.shape[axis] > 1 else array


def slice_(analysis: Analysis, call: Call, given: Given) -> Value:
    """A part along an axis."""
    x = analysis.labelled(given["self"])
    axis, step = given["dim"] % x.axes, given.get("step", 1)
    whole = x.shape[axis]
    start, end = given.get("start") or 0, given.get("end")
    part = slice(start, whole if end is None else end, step)
    size = call.shape[axis]
    if size < whole and varies(x.labels, axis):
        if step > 1 and whole % step == 0:
            x = _periodic(analysis, call, x, axis, step, along_parts=False)
        elif step == 1 and whole % size == 0 and part.indices(whole)[0] % size == 0:
            x = _periodic(analysis, call, x, axis, size)
    result = _move(analysis, call, x, lambda array: _cut(array, axis, part))
    for value in (result, x):
        _count_along(analysis, call, value, axis)
    return result


def narrow(analysis: Analysis, call: Call, given: Given) -> Value:
    """A part along an axis, by its length."""
    return slice_(analysis, call, {**given, "end": given["start"] + given["length"]})


def _periodic(analysis: Analysis, call: Call, x: Value, axis: int, size: int, *, along_parts: bool = True) -> Value:
    """An axis of equal parts, which must stay equal: elements at the same place of each part go together.

    Not along the parts, but within: then all elements of a part go together.
    """
    count = x.shape[axis] // size
    shape = (*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    apart = Value(shape, *(reshaped(array, x.shape, shape) for array in (x.labels, x.zero)))
    together = axis if along_parts else axis + 1
    analysis.merge_along(apart, [together], f"{call.operator} in {call.where} takes equal parts of it")
    return analysis.labelled(x)


def _fixed(analysis: Analysis, value: Value, axis: int, call: Call) -> Value:
    """The value, of which all along an axis go together, because the axis cannot be cut."""
    x = analysis.labelled(value)
    if not varies(x.labels, axis):
        return x
    if varying(x.labels) == [axis]:
        analysis.freeze(x, f"{call.operator} in {call.where} takes it by its place")
        return analysis.labelled(x)
    return analysis.merge_along(x, [axis], f"{call.operator} in {call.where} takes it by its place")


def flip(analysis: Analysis, call: Call, given: Given) -> Value:
    """The other way round."""
    x = analysis.labelled(given["self"])
    return _move(analysis, call, x, lambda array: np.flip(array, given["dims"]))


def roll(analysis: Analysis, call: Call, given: Given) -> Value:
    """A shift by a number of places, along axes that cannot be cut."""
    x = given["self"]
    for axis in given["dims"] or range(x.axes):
        x = _fixed(analysis, x, axis % x.axes, call)
    return analysis.labelled(x)


def pad(analysis: Analysis, call: Call, given: Given) -> Value:
    """A border. Where it is not zero, nothing else is either."""
    x = analysis.labelled(given["self"])
    sizes = given["pad"]
    zero = x.zero if given.get("mode", "constant") != "constant" or not given.get("value") else np.zeros_like(x.zero)
    widths = [(0, 0)] * x.axes
    for i in range(len(sizes) // 2):
        widths[-1 - i] = (sizes[2 * i], sizes[2 * i + 1])
    wanted = [widths[axis] if varies(x.labels, axis) else (0, 0) for axis in range(x.axes)]
    if any(min(width) < 0 for width in wanted):
        return analysis.unknown(call, [x], "cuts its border")  # type: ignore[no-any-return]
    labels = np.pad(x.labels, wanted, constant_values=-1)
    return analysis.value(call.shape, labels, np.pad(np.broadcast_to(zero, x.labels.shape), wanted))


def index(analysis: Analysis, call: Call, given: Given) -> Value:
    """Elements by their places, along axes that cannot be cut."""
    x = analysis.labelled(given["self"])
    places = given["indices"]
    axes = [axis for axis, place in enumerate(places) if place is not None]
    known = [place.constant for place in places if place is not None]
    if not varying(x.labels):
        return analysis.value(
            call.shape, *(a.reshape(-1)[:1].reshape((1,) * len(call.shape)) for a in (x.labels, x.zero))
        )
    if any(each is None for each in known):
        return analysis.unknown(call, [x], "takes elements by places that are computed")  # type: ignore[no-any-return]
    if x.parameter is None and given["self"].parameter is None:
        for axis in axes:
            x = _fixed(analysis, x, axis, call)
    chosen = tuple(slice(None) if place is None else place.constant.cpu().numpy() for place in places)

    def move(array: Array) -> Array:
        size = [x.shape[i] if i in axes else array.shape[i] for i in range(x.axes)]
        return np.asarray(np.broadcast_to(array, size)[chosen])

    return _move(analysis, call, x, move)


def index_select(analysis: Analysis, call: Call, given: Given) -> Value:
    """Elements by their places along one axis."""
    x = given["self"]
    axis = given["dim"] % x.axes
    return index(analysis, call, {"self": x, "indices": [None] * axis + [given["index"]]})


def shuffle(analysis: Analysis, call: Call, given: Given) -> Value:
    """Channels to pixels and back, and channels among each other, as views and permutations."""
    x = analysis.labelled(given["self"])
    *first, channels, height, width = x.shape
    kind = call.operator
    factor = given.get("upscale_factor") or given.get("downscale_factor") or given.get("groups")
    n = len(first)
    if kind == "pixel_shuffle":
        apart = (*first, channels // factor**2, factor, factor, height, width)
        order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    elif kind == "pixel_unshuffle":
        apart = (*first, channels, height // factor, factor, width // factor, factor)
        order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    else:
        apart = (*first, factor, channels // factor, height, width)
        order = [*range(n), n + 1, n, n + 2, n + 3]
    split_up = Value(apart, *(reshaped(array, x.shape, apart) for array in (x.labels, x.zero)))
    if kind != "pixel_unshuffle":  # only the channels can be cut, not the factor
        keep = n if kind == "pixel_shuffle" else n + 1
        others = [axis for axis in varying(split_up.labels) if axis != keep]
        split_up = analysis.merge_along(split_up, others, f"{kind} in {call.where} needs equal parts of it")
    ordered = tuple(apart[axis] for axis in order)
    arrays = (reshaped(array.transpose(order), ordered, call.shape) for array in (split_up.labels, split_up.zero))
    return analysis.value(call.shape, *arrays)


def patches(analysis: Analysis, call: Call, given: Given) -> Value:
    """Each channel becomes one for each place of a kernel, or the other way round."""
    x = analysis.labelled(given["self"])
    places = int(np.prod(given["kernel_size"]))
    if any(axis != x.axes - 2 for axis in varying(x.labels)) and call.operator == "col2im":
        return analysis.unknown(call, [x], "mixes them")  # type: ignore[no-any-return]
    channel = 1
    if any(axis != channel for axis in varying(x.labels)):
        return analysis.unknown(call, [x], "mixes them")  # type: ignore[no-any-return]
    one = [array.reshape(-1) for array in (x.labels, x.zero)]
    shape = [1] * len(call.shape)
    if call.operator == "im2col":
        one = [np.repeat(array, places) if len(array) > 1 else array for array in one]
    elif len(one[0]) > 1:
        parts = one[0].reshape(-1, places)
        analysis.merge(parts, parts[:, :1], f"{call.operator} in {call.where} needs all of a channel")
        one = [parts[:, 0], one[1].reshape(-1, places).all(1)]
    shape[channel] = len(one[0])
    return analysis.value(call.shape, *(array.reshape(shape) for array in one))


def _move(
    analysis: Analysis, call: Call, x: Value, move: Callable[[Array], Array], shape: tuple[int, ...] | None = None
) -> Value:
    return analysis.value(
        call.shape if shape is None else shape, move(x.labels), move(np.broadcast_to(x.zero, x.labels.shape))
    )


def _count_axes(analysis: Analysis, call: Call, value: Value) -> None:
    """Say that the sizes of the axes may be integers of the module in whose forward this is."""
    for axis in varying(value.labels):
        _count_along(analysis, call, value, axis)


def _count_along(
    analysis: Analysis, call: Call, value: Value, axis: int, among: Sequence[int] = (), position: int = 0
) -> None:
    if varies(value.labels, axis):
        first = tuple(slice(None) if other == axis else 0 for other in range(value.axes))
        analysis.count(call.module, "", value.labels[first], among, position)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(
        [
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
        ],
        reshape,
    ),
    **dict.fromkeys(["permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "numpy_T", "mT"], permute),
    **dict.fromkeys(["expand", "expand_as", "broadcast_to"], expand),
    **dict.fromkeys(["repeat", "tile"], repeat),
    **dict.fromkeys(["cat", "concat", "concatenate"], cat),
    **dict.fromkeys(["split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split"], split),
    **dict.fromkeys(["pad", "constant_pad_nd"], pad),
    **dict.fromkeys(["pixel_shuffle", "pixel_unshuffle", "channel_shuffle"], shuffle),
    **dict.fromkeys(["im2col", "col2im"], patches),
    "stack": stack,
    "unbind": unbind,
    "select": select,
    "slice": slice_,
    "narrow": narrow,
    "flip": flip,
    "roll": roll,
    "index": index,
    "index_select": index_select,
}
