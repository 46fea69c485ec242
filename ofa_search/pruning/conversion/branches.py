"""Merges convolutions that are added up into one, as RepVGG does after its training (arXiv 2101.03697, section 3.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ofa_profiler.networks.graph import Node
from ofa_profiler.networks.layers import Add, Affine, AnyConv
from ofa_profiler.networks.layers.any_conv import Margins
from ofa_profiler.networks.parameters import Array
from ofa_search.pruning.conversion.draft import Draft


class _Branch(NamedTuple):
    """A convolution with its weights."""

    layer: AnyConv
    weight: Array
    bias: Array


def merge_branches(draft: Draft, node: Node) -> None:
    """Replace an addition of two convolutions of the same input by one, if their windows lie on each other."""
    before = [draft.nodes.get(name) for name in node.inputs]
    first, second = before
    if first is None or second is None or first.name == second.name or first.inputs != second.inputs:
        return
    counts = draft.readers()
    layers = [branch.layer for branch in (first, second)]
    convs = [layer for layer in layers if isinstance(layer, AnyConv)]
    if not convs or not all(isinstance(layer, (Affine, AnyConv)) and not layer.activation for layer in layers):
        return
    if any(counts[branch.name] != 1 for branch in (first, second)):
        return
    merged = _sum(_branch(draft, first, convs[0]), _branch(draft, second, convs[0]))
    if merged is not None:
        _replace(draft, node, (first, second), merged)


def _branch(draft: Draft, node: Node, like: AnyConv) -> _Branch:
    """A layer as a convolution; a scale and shift is one of 1 x 1 with as many groups as `like`."""
    if isinstance(node.layer, AnyConv):
        return _Branch(node.layer, *(draft.weights[f"{node.name}.conv.{part}"] for part in ("weight", "bias")))
    scale, bias = (draft.weights[f"{node.name}.{part}"] for part in ("weight", "bias"))
    channels, width = len(scale), len(scale) // like.groups
    weight = np.zeros((channels, width, 1, 1))
    weight[np.arange(channels), np.arange(channels) % width, 0, 0] = scale
    return _Branch(AnyConv(node.name, channels, channels, (1, 1), groups=like.groups), weight, bias)


def _sum(first: _Branch, second: _Branch) -> _Branch | None:
    """Both as one convolution; None if strides, groups or windows differ."""
    a, b = first.layer, second.layer
    if (a.strides, a.groups, a.out_channels) != (b.strides, b.groups, b.out_channels):
        return None
    if {a.dilations, b.dilations} != {(1, 1)}:
        return None
    # Rows above, left, below and right of the pixel that the window belongs to.
    top, left, bottom, right = (max(sizes) for sizes in zip(_reach(a), _reach(b), strict=True))
    grown = [_grown(branch, (top, left, bottom, right)) for branch in (first, second)]
    if grown[0].layer.pads != grown[1].layer.pads:
        return None
    return _Branch(grown[0].layer, grown[0].weight + grown[1].weight, first.bias + second.bias)


def _reach(layer: AnyConv) -> Margins:
    top, left, _, _ = layer.pads
    return (top, left, layer.kernel[0] - 1 - top, layer.kernel[1] - 1 - left)


def _grown(branch: _Branch, reach: Margins) -> _Branch:
    """The same convolution with a larger window, whose new weights are zero."""
    layer = branch.layer
    more = tuple(new - old for new, old in zip(reach, _reach(layer), strict=True))
    top, left, bottom, right = (margin + extra for margin, extra in zip(layer.pads, more, strict=True))
    weight = np.pad(branch.weight, ((0, 0), (0, 0), (more[0], more[2]), (more[1], more[3])))
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    grown = replace(layer, kernel=kernel, pads=(top, left, bottom, right))
    return _Branch(grown, weight, branch.bias)


def _replace(draft: Draft, node: Node, branches: tuple[Node, Node], merged: _Branch) -> None:
    """Put the merged convolution in the place of the addition."""
    assert isinstance(node.layer, Add)
    for branch in branches:
        draft.remove(branch.name)
    layer = replace(merged.layer, name=node.name, activation=node.layer.activation)
    draft.nodes[node.name] = Node(node.name, layer, branches[0].inputs)
    draft.weights |= {f"{node.name}.conv.weight": merged.weight, f"{node.name}.conv.bias": merged.bias}
