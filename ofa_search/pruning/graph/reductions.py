"""Operators that mix elements along some axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ofa_search.pruning.graph.analysis import Analysis, Handler
from ofa_search.pruning.graph.calls import Call
from ofa_search.pruning.graph.classes import varies, varying
from ofa_search.pruning.graph.values import Value

Given = Mapping[str, Any]

#: What is zero adds nothing to these. To the others it does: to a mean by being counted.
_SUMS = {"sum", "linalg_vector_norm", "norm"}


def reduce(analysis: Analysis, call: Call, given: Given) -> Any:
    """One element for all along some axes."""
    x = analysis.labelled(given.get("self", given.get("input")))
    axes = _axes(given.get("dim"), x.axes)
    mixed = [axis for axis in varying(x.labels) if axis in axes]
    rest = [axis for axis in varying(x.labels) if axis not in axes]
    reason = f"{call.operator} in {call.where} needs all of them"
    if mixed and not rest:
        if call.operator not in _SUMS or not x.zero.all() or _order(given) <= 0:
            return analysis.unknown(call, [x], "needs all of them")
        return analysis.unlabelled(call)
    x = analysis.merge_along(x, mixed, reason)
    keep = len(call.shapes[0]) == x.axes
    drop = () if keep else tuple(axes)
    labels, zero = _firsts(x, axes)
    flags = zero & (call.operator not in ("logsumexp", "argmax", "argmin", "prod"))
    results = [analysis.value(shape, labels.squeeze(drop), flags.squeeze(drop)) for shape in call.shapes]
    return results if call.gives_list else results[0]


def _firsts(x: Value, axes: Sequence[int]) -> tuple[Any, Any]:
    places = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.axes))
    return x.labels[places], x.zero.all(tuple(axes), keepdims=True)


def _axes(dim: Any, axes: int) -> list[int]:
    if dim is None or dim == []:
        return list(range(axes))
    return [axis % axes for axis in (dim if isinstance(dim, list) else [dim])]


def _order(given: Given) -> float:
    order = given.get("ord", given.get("p", 2))
    return 2.0 if order is None else float(order)


def along(analysis: Analysis, call: Call, given: Given) -> Any:
    """As many elements, each of which depends on all along an axis."""
    x = analysis.labelled(given["self"])
    axis = given["dim"] % max(1, x.axes)
    if varies(x.labels, axis):
        if varying(x.labels) == [axis]:
            return analysis.unknown(call, [x], "needs all of them")
        x = analysis.merge_along(x, [axis], f"{call.operator} in {call.where} needs all of them")
    keeps = call.operator in ("cumsum", "flip")
    results = [analysis.value(shape, x.labels, x.zero & keeps) for shape in call.shapes]
    return results if call.gives_list else results[0]


def spatial(analysis: Analysis, call: Call, given: Given) -> Any:
    """Pools and resizing: they mix the last axes of each channel."""
    x = analysis.labelled(given.get("self", given.get("input")))
    count = 1 if "1d" in call.operator else 3 if "3d" in call.operator else 2
    mixed = [axis for axis in varying(x.labels) if axis >= x.axes - count]
    if mixed and mixed == varying(x.labels):
        return analysis.unknown(call, [x], "mixes them")
    x = analysis.merge_along(x, mixed, f"{call.operator} in {call.where} mixes them")
    results = [analysis.value(shape, x.labels, x.zero) for shape in call.shapes]
    return results if call.gives_list else results[0]


def glu(analysis: Analysis, call: Call, given: Given) -> Value:
    """The first half of the channels, each multiplied by a gate of the other half."""
    x = analysis.labelled(given["self"])
    axis = given["dim"] % x.axes
    half = x.shape[axis] // 2
    if not varies(x.labels, axis):
        return analysis.value(call.shape, x.labels, x.zero)
    first, second = (np.take(x.labels, range(start, start + half), axis) for start in (0, half))
    analysis.merge(first, second, f"glu in {call.where} needs equal halves of it")
    zero = np.broadcast_to(x.zero, x.labels.shape)
    return analysis.value(call.shape, first, np.take(zero, range(half), axis))


# fmt: off
_REDUCTIONS = (
    "amax", "amin", "argmax", "argmin", "linalg_vector_norm", "logsumexp", "max", "mean", "min", "norm", "std", "sum",
    "var",
)
_RESIZES = (
    "upsample_bicubic2d", "upsample_bilinear2d", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_trilinear3d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa",
)
# fmt: on
_POOLS = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp") for n in (1, 2, 3)]

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "cumsum"), along),
    **dict.fromkeys((*_POOLS, *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)), *_RESIZES), spatial),
    "glu": glu,
}
