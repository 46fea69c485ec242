"""Merges layers into those that can include them: BatchNorm, activations, margins, flattening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ofa_profiler.networks.graph import Node
from ofa_profiler.networks.layers import (
    Activate,
    Add,
    Affine,
    AnyConv,
    ChannelSlice,
    Concat,
    Conv,
    Flatten,
    GlobalPool,
    Linear,
    Pad,
    WindowMax,
    WindowMean,
)
from ofa_profiler.networks.layers.any_conv import NO_MARGINS, Margins
from ofa_search.pruning.conversion.branches import merge_branches
from ofa_search.pruning.conversion.draft import Draft

_NONNEGATIVE = ("relu", "relu6", "sigmoid", "h_sigmoid")


def merge(draft: Draft) -> None:
    """Merge all layers that can be. The function of the network stays the same."""
    draft.remove_unread()
    for name in list(draft.nodes):
        if (node := draft.nodes.get(name)) is None:
            continue
        if isinstance(node.layer, Add):
            merge_branches(draft, node)
            continue
        before = draft.nodes.get(node.inputs[0])
        rule = _RULES.get(type(node.layer))
        if rule is not None and before is not None and draft.readers()[before.name] == 1:
            rule(draft, before, node)
    for node in list(draft.nodes.values()):
        if isinstance(node.layer, AnyConv):
            draft.replace(node.name, _simplest(node.layer))
        elif isinstance(node.layer, WindowMean):
            _simplify_mean(draft, node, node.layer)
        elif isinstance(node.layer, WindowMax):
            draft.replace(node.name, replace(node.layer, nonnegative=_is_nonnegative(draft, node.inputs[0])))


def _merge_affine(draft: Draft, before: Node, node: Node) -> None:
    if not isinstance(before.layer, (Affine, AnyConv, Linear)) or _activation(before):
        return
    prefix = "conv." if isinstance(before.layer, AnyConv) else ""
    scale, shift = (draft.weights[f"{node.name}.{part}"] for part in ("weight", "bias"))
    weight, bias = (f"{before.name}.{prefix}{part}" for part in ("weight", "bias"))
    draft.weights[weight] = draft.weights[weight] * scale.reshape(-1, *[1] * (draft.weights[weight].ndim - 1))
    draft.weights[bias] = draft.weights[bias] * scale + shift
    draft.drop(node.name)
    # Such as a sum that is divided by the number of its terms.
    is_identity = np.allclose(draft.weights[weight], 1, rtol=0, atol=1e-12) and not draft.weights[bias].any()
    if is_identity and isinstance(before.layer, Affine):
        draft.drop(before.name)


def _merge_activation(draft: Draft, before: Node, node: Node) -> None:
    assert isinstance(node.layer, Activate)
    if isinstance(before.layer, (Add, Affine, AnyConv)) and not before.layer.activation:
        draft.replace(before.name, replace(before.layer, activation=node.layer.activation))
        draft.drop(node.name)


def _merge_flatten(draft: Draft, before: Node, _node: Node) -> None:
    if isinstance(before.layer, Flatten):
        draft.drop(before.name)


def _merge_means(draft: Draft, before: Node, node: Node) -> None:
    """The mean of means of windows side by side, such as of all columns and then of all rows."""
    assert isinstance(node.layer, WindowMean)
    if isinstance(before.layer, WindowMean) and all(_is_side_by_side(each) for each in (before.layer, node.layer)):
        first, second = before.layer.kernel, node.layer.kernel
        kernel = (first[0] * second[0], first[1] * second[1])
        draft.replace(node.name, replace(node.layer, kernel=kernel, strides=kernel))
        draft.drop(before.name)


def _is_side_by_side(layer: WindowMean) -> bool:
    return layer.kernel == layer.strides and layer.pads == NO_MARGINS and not layer.rows


def _simplify_mean(draft: Draft, node: Node, layer: WindowMean) -> None:
    """A mean of the whole map is the pooling of the search spaces."""
    if layer.kernel == draft.shapes[node.inputs[0]][:2] and layer.pads == NO_MARGINS:
        draft.replace(node.name, GlobalPool(node.name))


def _merge_margins(draft: Draft, before: Node, node: Node) -> None:
    assert isinstance(node.layer, AnyConv)
    if isinstance(before.layer, Pad):
        draft.replace(node.name, replace(node.layer, pads=_sum(node.layer.pads, before.layer.pads)))
        draft.drop(before.name)


def _sum(first: Margins, second: Margins) -> Margins:
    top, left, bottom, right = (a + b for a, b in zip(first, second, strict=True))
    return top, left, bottom, right


#: Type of a layer -> what to do with it and the layer before it, whose output nothing else reads.
_RULES: dict[type, Callable[[Draft, Node, Node], None]] = {
    Activate: _merge_activation,
    Affine: _merge_affine,
    AnyConv: _merge_margins,
    Linear: _merge_flatten,
    WindowMean: _merge_means,
}


def _simplest(layer: AnyConv) -> AnyConv | Conv:
    """The convolution of the search spaces, if its geometry is one of theirs."""
    size, stride = layer.kernel[0], layer.strides[0]
    is_plain = layer.groups == 1 or layer.groups == layer.in_channels == layer.out_channels
    if not is_plain or size % 2 == 0 or layer.dilations != (1, 1):
        return layer
    if (layer.kernel, layer.strides, layer.pads) != ((size, size), (stride, stride), (size // 2,) * 4):
        return layer
    return Conv(
        layer.name,
        layer.in_channels,
        layer.out_channels,
        size,
        stride,
        layer.groups,
        bias=True,
        batch_norm=False,
        activation=layer.activation,
    )


def _is_nonnegative(draft: Draft, name: str) -> bool:
    """Whether no value of a tensor is negative."""
    node = draft.nodes.get(name)
    if node is None:
        return False
    if isinstance(node.layer, (ChannelSlice, Concat, WindowMax)):
        return all(_is_nonnegative(draft, source) for source in node.inputs)
    return _activation(node) in _NONNEGATIVE


def _activation(node: Node) -> str:
    """The activation that a layer ends in, "" for none."""
    return str(getattr(node.layer, "activation", ""))
