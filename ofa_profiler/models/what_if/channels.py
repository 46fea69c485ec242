"""Channels whose number is no multiple of 8 -> the next multiple: more work, which can take less time.

A number of channels belongs to many tensors: that of a convolution is also that of the normalization after it, of a
residual sum, of the next convolution. Axes that must have the same size are united; a set changes as a whole, or not
at all if one of its axes must keep its size, such as those of inputs and outputs of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod

from ofa_profiler.models.what_if.base import Axis, Editor, Idea, Net, Node, Place

MULTIPLE = 8


class _Sets:
    """Disjoint sets of axes (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[Axis, Axis] = {}

    def root(self, axis: Axis) -> Axis:
        self._parents.setdefault(axis, axis)
        while self._parents[axis] != axis:
            self._parents[axis] = axis = self._parents[self._parents[axis]]
        return axis

    def unite(self, axes: Sequence[Axis]) -> None:
        for other in axes[1:]:
            self._parents[self.root(other)] = self.root(axes[0])

    def members(self) -> dict[Axis, list[Axis]]:
        found: dict[Axis, list[Axis]] = {}
        for axis in list(self._parents):
            found.setdefault(self.root(axis), []).append(axis)
        return found


class WholeChannels(Idea):
    """Numbers of channels that are multiples of 8."""

    def places(self, net: Net) -> Iterator[Place]:
        channels = {axis: node for node in net.nodes for axis in net.channel_axes(node)}
        for axes in free_sets(net):
            nodes = list({channels[axis].index: channels[axis] for axis in axes if axis in channels}.values())
            size = _size(net, axes)
            if not nodes or size is None or size < MULTIPLE // 2 or size % MULTIPLE == 0:
                continue
            wider = size + -size % MULTIPLE
            yield Place(
                f"{size} -> {wider} channels",
                min(nodes, key=lambda node: node.index).name,
                tuple(sorted(f"{net.shape(name)} {axis}" for name, axis in axes)),
                float(sum(_work(net, node) for node in nodes)),
                partial(_apply, tuple(axes), wider),
            )


def free_sets(net: Net) -> list[list[Axis]]:
    """The sets of axes that have one size, and that can get another."""
    sets = _Sets()
    kept = [axis for name in net.kept for axis in _axes(net, name)]
    for node in net.nodes:
        ties = net.ties(node)
        if ties is None:
            kept += [axis for name in (*node.given, *node.outputs) for axis in _axes(net, name)]
            continue
        kept += ties.kept
        for axes in ties.equal:
            sets.unite(axes)
    closed = {sets.root(axis) for axis in kept}
    return [axes for root, axes in sets.members().items() if root not in closed]


def _size(net: Net, axes: Sequence[Axis]) -> int | None:
    """The size that all axes have; None if it is unknown."""
    shapes = [(net.shape(name), axis) for name, axis in axes]
    sizes = {None if shape is None else shape[axis] for shape, axis in shapes}
    return sizes.pop() if len(sizes) == 1 else None


def _axes(net: Net, name: str) -> list[Axis]:
    shape = net.shape(name)
    # Without a known shape, as many axes as a tensor can have here.
    return [(name, i) for i in range(8 if shape is None else len(shape))]


def _work(net: Net, node: Node) -> int:
    return sum(prod(net.shape(name) or (1,)) for name in (*node.given, *node.outputs))


def _apply(axes: tuple[Axis, ...], size: int, editor: Editor) -> None:
    editor.resize(axes, size)
