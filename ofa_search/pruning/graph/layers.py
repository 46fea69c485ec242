"""Operators with weights: they read labels along one axis of their weights and make labels along another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ofa_search.pruning.graph.analysis import Analysis, Handler
from ofa_search.pruning.graph.calls import Call
from ofa_search.pruning.graph.classes import Labels, varies, varying
from ofa_search.pruning.graph.values import Flags, Value, full, plain

Given = Mapping[str, Any]


def conv(analysis: Analysis, call: Call, given: Given) -> Any:
    """A convolution, also one with groups: these go as a whole."""
    return _conv(analysis, call, given, transposed=bool(given.get("transposed", False)))


def conv_transpose(analysis: Analysis, call: Call, given: Given) -> Any:
    """A transposed convolution: its weights are (in, out / groups, …)."""
    return _conv(analysis, call, given, transposed=True)


def _conv(analysis: Analysis, call: Call, given: Given, *, transposed: bool) -> Any:
    x, weight, groups = given["input"], given["weight"], given["groups"]
    channels = x.axes - weight.axes + 1  # 1, or 0 without a batch
    x = _only_along(analysis, call, x, channels)
    own = weight.parameter
    if own is None or min(own.axes[:2]) < 0:
        return analysis.unknown(call, [x, weight], "has weights that are computed")
    in_axis, out_axis = (own.axes[0], own.axes[1]) if transposed else (own.axes[1], own.axes[0])
    labels, zero = _along(x, channels)
    module = own.name.rpartition(".")[0]
    if groups == 1:
        read = analysis.reader(own.name, in_axis, zero)
        analysis.merge(labels, read, f"is read by {call.where} with what is fixed")
        made = analysis.maker(own.name, out_axis)
    elif transposed:  # the axis of the inputs has all groups, that of the outputs has one
        made = np.repeat(analysis.maker(own.name, in_axis).reshape(groups, -1)[:, 0], call.shape[channels] // groups)
        _whole(analysis, call, groups, labels, analysis.axis(own.name, in_axis))
    else:
        made = analysis.maker(own.name, out_axis)
        _whole(analysis, call, groups, labels, made)
    if groups > 1:
        analysis.count(module, "groups", made.reshape(groups, -1)[:, 0])
    analysis.count(module, "in_channels", labels)
    analysis.count(module, "out_channels", made)
    return _made(analysis, call, channels, made, given["bias"])


def _whole(analysis: Analysis, call: Call, groups: int, labels: Labels, made: Labels) -> None:
    """All that a group of a convolution reads and makes goes together."""
    made = made.reshape(groups, -1)
    analysis.merge(made, made[:, :1], "")
    analysis.merge(labels.reshape(groups, -1), made[:, :1], f"is read by {call.where} with what is fixed")
    if made.shape[1] > 1:
        analysis.conv_groups.append(made)


def linear(analysis: Analysis, call: Call, given: Given) -> Any:
    """A linear layer over the last axis."""
    return _linear(analysis, call, given["input"], given["weight"], given.get("bias"))


def _linear(analysis: Analysis, call: Call, x: Value, weight: Value, bias: Value | None) -> Any:
    own = weight.parameter
    if own is None or min(own.axes) < 0:
        return analysis.unknown(call, [x, weight], "has weights that are computed")
    x = analysis.labelled(x)
    last = x.axes - 1
    labels, zero = _along(x, last)
    module = own.name.rpartition(".")[0]
    others = [axis for axis in varying(x.labels) if axis != last]
    read = analysis.reader(own.name, own.axes[1], zero)
    if varies(x.labels, last) or not others:
        shaped = np.moveaxis(x.labels, last, -1)
        analysis.merge(shaped, read, f"is read by {call.where} with what is fixed")
        made = analysis.maker(own.name, own.axes[0])
        analysis.count(module, "in_features", labels)
        analysis.count(module, "out_features", made)
        return _made(analysis, call, len(call.shape) - 1, made, bias)
    # The same weights work on each of what can be removed: heads, or channels where tokens are mixed.
    reason = f"{call.where} works on each of several parts that can be removed"
    analysis.conflict(read, reason)
    analysis.conflict(analysis.maker(own.name, own.axes[0]), reason)
    return analysis.value(call.shape, x.labels, x.zero & (bias is None))


def embedding(analysis: Analysis, call: Call, given: Given) -> Any:
    """Rows of a table."""
    own = given["weight"].parameter
    if own is None:
        return analysis.unknown(call, [given["weight"]], "has weights that are computed")
    made = analysis.maker(own.name, own.axes[1])
    analysis.count(own.name.rpartition(".")[0], "embedding_dim", made)
    return _made(analysis, call, len(call.shape) - 1, made, None)


def batch_norm(analysis: Analysis, call: Call, given: Given) -> Any:
    """A normalisation of each channel by itself."""
    x = analysis.labelled(given["input"])
    labels = _along(x, 1)[0]
    weights = [given.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    own = [value.parameter.name if value is not None and value.parameter else None for value in weights]
    if any(value is not None and name is None for value, name in zip(weights, own, strict=True)):
        return analysis.unknown(call, [x, *(value for value in weights if value)], "has weights that are computed")
    for i, name in enumerate(own):
        if name is not None:
            bound = analysis.follower(name, 0) if i == 3 else made_axis(analysis, name, 0)
            analysis.merge(_channels_last(x, 1), bound, f"is normalised by {call.where} with what is fixed")
            analysis.count(name.rpartition(".")[0], "num_features", labels)
    return analysis.value(call.shape, x.labels, np.ones((1,) * x.axes, np.bool_) if own[0] else x.zero)


def made_axis(analysis: Analysis, name: str, axis: int) -> Labels:
    """The labels along an axis by zeroing which the label becomes zero, as after a layer."""
    labels = analysis.axis(name, axis)
    analysis.made[name, axis] = np.ones(1, np.bool_)
    return labels


def group_norm(analysis: Analysis, call: Call, given: Given) -> Any:
    """A normalisation of groups of channels, which go as a whole."""
    x, groups = analysis.labelled(given["input"]), given["num_groups"]
    labels, _ = _along(x, 1)
    if groups == 1:
        return analysis.unknown(call, [x, *_given(given)], "normalises all of it together")
    parts = labels.reshape(groups, -1)
    analysis.merge(parts, parts[:, :1], f"{call.where} normalises it with what is fixed")
    affine = _given(given)
    result = Value(call.shape, x.labels, np.ones((1,) * x.axes, np.bool_) if affine else x.zero)
    for value in affine:
        if value.parameter is None:
            return analysis.unknown(call, [x, *affine], "has weights that are computed")
        analysis.merge(
            _channels_last(x, 1), made_axis(analysis, value.parameter.name, 0), "is normalised with a constant"
        )
        module = value.parameter.name.rpartition(".")[0]
        analysis.count(module, "num_channels", labels)
        analysis.count(module, "num_groups", parts[:, 0])
    return analysis.value(result.shape, result.labels, result.zero)


def layer_norm(analysis: Analysis, call: Call, given: Given) -> Any:
    """A normalisation over the last axes. The number of what is there counts, so none of it can be removed."""
    x = analysis.labelled(given["input"])
    normalised = range(x.axes - len(given["normalized_shape"]), x.axes)
    # Labels along other axes too, like heads, leave open along which they are cut.
    if varying(x.labels) and all(axis in normalised for axis in varying(x.labels)):
        return analysis.unknown(call, [x], "normalises all of it together")
    return analysis.value(call.shape, x.labels, x.zero & (given.get("bias") is None))


def prelu(analysis: Analysis, call: Call, given: Given) -> Any:
    """A slope for each channel, or one for all."""
    x, own = analysis.labelled(given["self"]), given["weight"].parameter
    if own is not None and prod(given["weight"].shape) > 1:
        analysis.merge(_channels_last(x, 1), analysis.follower(own.name, 0), "has a slope that is fixed")
        analysis.count(own.name.rpartition(".")[0], "num_parameters", _along(x, 1)[0])
    return analysis.value(call.shape, x.labels, x.zero)


def _given(given: Given) -> list[Value]:
    return [given[name] for name in ("weight", "bias") if given.get(name) is not None]


def _made(analysis: Analysis, call: Call, axis: int, made: Labels, bias: Value | None) -> Value:
    """A result with these labels along an axis: zero where weights and bias are."""
    shape = [1] * len(call.shape)
    shape[axis] = len(made)
    zero: Flags = np.ones(1, np.bool_)
    if bias is not None and bias.parameter is not None and len(bias.parameter.axes) == 1:
        analysis.merge(made, made_axis(analysis, bias.parameter.name, 0), "has a bias that is fixed")
    elif bias is not None:
        added = analysis.labelled(bias)
        analysis.merge(made, added.labels.reshape(-1), "has a bias that is computed")
        zero = added.zero.reshape(-1)
    return analysis.value(call.shape, made.reshape(shape), full(zero, made.shape).reshape(shape))


def _only_along(analysis: Analysis, call: Call, x: Value, axis: int) -> Value:
    """The value, without labels that it has along other axes, which are frozen."""
    x = analysis.labelled(x)
    others = [other for other in varying(x.labels) if other != axis]
    if not others:
        return x
    reason = f"{call.where} mixes them"
    if varies(x.labels, axis):
        return analysis.merge_along(x, others, reason)
    analysis.freeze(x, reason)
    return plain(x.shape, analysis.classes.code(reason))


def _along(x: Value, axis: int) -> tuple[Labels, Flags]:
    """Labels and flags along one axis, written out; those at the start of the others."""
    first = tuple(slice(None) if other == axis else 0 for other in range(x.axes))
    size = (x.shape[axis],)
    zero: Flags = np.asarray(np.moveaxis(x.zero, axis, 0).reshape(x.zero.shape[axis], -1).all(1))
    return full(x.labels[first], size), full(zero, size)


def _channels_last(x: Value, axis: int) -> Labels:
    return np.moveaxis(x.labels, axis, -1)


def _names(handler: Handler, names: Sequence[str]) -> dict[str, Handler]:
    return dict.fromkeys(names, handler)


HANDLERS: dict[str, Handler] = {
    **_names(conv, ["conv1d", "conv2d", "conv3d", "convolution"]),
    **_names(conv_transpose, ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]),
    "linear": linear,
    "embedding": embedding,
    "batch_norm": batch_norm,
    "instance_norm": batch_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "prelu": prelu,
}
