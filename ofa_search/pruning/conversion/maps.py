"""Pooling, padding, and operators that move values, as layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any

import numpy as np

from ofa_profiler.networks.layers import (
    Affine,
    AsMap,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Flatten,
    Pad,
    WindowMax,
    WindowMean,
)
from ofa_profiler.networks.layers.any_conv import NO_MARGINS, Margins, Pair
from ofa_profiler.networks.layers.window import counted
from ofa_profiler.networks.tensors import Shape
from ofa_search.pruning.conversion.draft import Draft
from ofa_search.pruning.conversion.operators import operator
from ofa_search.pruning.conversion.steps import Pending, Step, Value

#: The axes of a tensor in torch.
_CHANNELS, _PIXELS = 1, (2, 3)


# --- pooling -----------------------------------------------------------------------------------------------


def _ends(step: Step, source: Shape, kernel: Pair, strides: Pair, before: Pair) -> Margins:
    """The margins, of which those at the end are as large as the windows of torch need them."""
    sizes = zip(source[2:], step.shape[2:], kernel, strides, before, strict=True)
    bottom, right = (
        max((windows - 1) * stride + size - given - first, 0) for given, windows, size, stride, first in sizes
    )
    return (*before, bottom, right)


def _geometry(step: Step) -> tuple[Pair, Pair]:
    """Kernel and strides of pooling; without strides, these are the kernel."""
    kernel = step.pair("kernel_size")
    return kernel, step.pair("stride") if step["stride"] else kernel


@operator("max_pool2d", "max_pool2d_with_indices")
def _max_pool(draft: Draft, step: Step) -> Any:
    given = step["self"]
    source, pads = (given.source, given.pads) if isinstance(given, Pending) and given.pads != NO_MARGINS else (
        step.source, NO_MARGINS
    )  # fmt: skip
    kernel, strides = _geometry(step)
    if step.pair("dilation") != (1, 1):
        step.refuse("its dilation is not 1")
    if pads == NO_MARGINS:
        pads = _ends(step, source.shape, kernel, strides, step.pair("padding"))
    elif step.pair("padding") != (0, 0) or step["ceil_mode"]:
        step.refuse("it is padded twice")
    value = draft.add(step, lambda name: WindowMax(name, kernel, strides, pads), source)
    return value if step.operator == "max_pool2d" else (value,)


@operator("avg_pool2d")
def _avg_pool(draft: Draft, step: Step) -> Value:
    kernel, strides = _geometry(step)
    if step["divisor_override"] is not None:
        step.refuse("its divisor is fixed")
    before = step.pair("padding")
    return _add_mean(draft, step, kernel, strides, before, before if step["count_include_pad"] else (0, 0))


def _add_mean(draft: Draft, step: Step, kernel: Pair, strides: Pair, before: Pair, extra: Pair) -> Value:
    """The mean of windows, where `extra` rows and columns around the map count."""
    source = step.source
    pads = _ends(step, source.shape, kernel, strides, before)
    rows, columns = (
        counted(source.shape[2 + i], kernel[i], strides[i], before[i], step.shape[2 + i], (extra[i], extra[i]))
        for i in range(2)
    )
    if {*rows} == {kernel[0]} and {*columns} == {kernel[1]}:
        rows = columns = ()
    return draft.add(step, lambda name: WindowMean(name, kernel, strides, pads, rows, columns), source)


@operator("adaptive_avg_pool2d")
def _adaptive_pool(draft: Draft, step: Step) -> Value:
    source, sizes = step.source, step.shape[2:]
    if sizes == source.shape[2:]:
        return source
    (height, width), (rows, columns) = source.shape[2:], sizes
    if height % rows or width % columns:
        step.refuse(f"a map of {height}x{width} does not divide into {rows}x{columns} windows")
    kernel = (height // rows, width // columns)
    return _add_mean(draft, step, kernel, kernel, (0, 0), (0, 0))


@operator("mean", "sum")
def _mean(draft: Draft, step: Step) -> Value | Pending:
    given = step["self"]
    is_flat = isinstance(given, Pending) and given.shape[:2] == given.source.shape[:2]  # (N, C, H W)
    source = given.source if is_flat else step.source
    rank = 3 if is_flat else len(source.shape)
    axes = {axis % rank for axis in step.arguments.get("dim") or ()}
    if len(source.shape) != 4 or not axes or not axes <= {*_PIXELS[: rank - 2]}:
        step.refuse("it is not over the pixels of a map")
    height, width = (
        size if is_flat or axis in axes else 1 for axis, size in zip(_PIXELS, source.shape[2:], strict=True)
    )
    rows, columns = source.shape[2] // height, source.shape[3] // width
    kernel = (height, width)
    pooled = (*source.shape[:2], rows, columns)
    value = draft.add(step, lambda name: WindowMean(name, kernel, kernel), source, shape=pooled)
    if step.operator == "sum":
        ones = np.ones(source.shape[1])
        value = draft.add(
            step, lambda name: Affine(name, len(ones)), value, shape=pooled, weight=height * width * ones, bias=0 * ones
        )
    return reshaped(draft, step, value, step.shape)


@operator("pad", "constant_pad_nd")
def _pad(draft: Draft, step: Step) -> Value | Pending:
    source, margins = step.source, list(step["pad"])
    if step.arguments.get("mode", "constant") != "constant" or len(source.shape) != 4 or any(margins[4:]):
        step.refuse("only constant margins of images")
    left, right, top, bottom = (*margins, 0, 0)[:4]
    pads = (top, left, bottom, right)
    value = step.arguments.get("value") or 0
    if min(pads) < 0 or value not in (0, -inf):
        step.refuse(f"margins {pads} of {value}")
    if value:
        return Pending(source, step.shape, pads=pads)
    return source if pads == NO_MARGINS else draft.add(step, lambda name: Pad(name, pads), source)


# --- shapes ------------------------------------------------------------------------------------------------


@operator("view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze")
def _reshape(draft: Draft, step: Step) -> Value | Pending:
    given = step["self"]
    if isinstance(given, Pending) and given.pads == NO_MARGINS:
        if not given.is_swapped:
            return reshaped(draft, step, given.source, step.shape)
        if step.shape == given.source.shape:
            groups = given.shape[2]
            return draft.add(step, lambda name: ChannelShuffle(name, groups), given.source)
    return reshaped(draft, step, step.source, step.shape)


def reshaped(draft: Draft, step: Step, source: Value, shape: Shape) -> Value | Pending:
    """A tensor in another shape. One that no layer has waits for the next operator."""
    if shape == source.shape:
        return source
    if len(source.shape) == 4 and shape == (source.shape[0], prod(source.shape[1:])):
        return draft.add(step, Flatten, source, shape=shape)
    if len(source.shape) == 2 and shape == (*source.shape, 1, 1):
        return draft.add(step, AsMap, source, shape=shape)
    return Pending(source, shape)


@operator("transpose", "permute")
def _transpose(_draft: Draft, step: Step) -> Pending:
    given = step["self"]
    if isinstance(given, Pending) and len(given.shape) == 5 and given.shape[3:] == given.source.shape[2:]:
        axes = step["dims"] if step.operator == "permute" else None
        swapped = (step["dim0"] % 5, step["dim1"] % 5) in ((1, 2), (2, 1)) if axes is None else axes == [0, 2, 1, 3, 4]
        if swapped and not given.is_swapped:
            return Pending(given.source, step.shape, is_swapped=True)
    return step.refuse("axes change places, and not to shuffle channels")


# --- channels ----------------------------------------------------------------------------------------------


def _is_channels(axis: int, shape: Shape) -> bool:
    return axis % len(shape) == _CHANNELS


@operator("cat")
def _concat(draft: Draft, step: Step) -> Value:
    values = step["tensors"]
    if not all(isinstance(value, Value) for value in values):
        step.refuse("not all of its inputs are maps or vectors")
    if not _is_channels(step["dim"], step.shape):
        step.refuse("only channels are joined")
    return values[0] if len(values) == 1 else draft.add(step, Concat, *values)


@operator("slice")
def _slice(draft: Draft, step: Step) -> Value:
    source = step.source
    if step.shape == source.shape:
        return source
    if not _is_channels(step["dim"], source.shape) or step["step"] != 1:
        step.refuse("only channels are selected")
    size = source.shape[_CHANNELS]
    start = slice(step["start"], None).indices(size)[0]
    return _add_slice(draft, step, source, start, step.shape)


def _add_slice(draft: Draft, step: Step, source: Value, start: int, shape: Shape) -> Value:
    stop = start + shape[_CHANNELS]
    return draft.add(step, lambda name: ChannelSlice(name, start, stop), source, shape=shape)


@operator("split", "split_with_sizes", "chunk")
def _split(draft: Draft, step: Step) -> Sequence[Value]:
    source = step.source
    if not _is_channels(step["dim"], source.shape):
        step.refuse("only channels are divided")
    values: list[Value] = []
    start = 0
    for shape in step.shapes:
        values.append(_add_slice(draft, step, source, start, shape))
        start += shape[_CHANNELS]
    return values
