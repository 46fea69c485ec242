"""Kernels of depthwise convolutions: 7 -> 5, and 5 -> 3."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import prod

from ofa_profiler.models.what_if.base import Editor, Idea, Net, Node, Place

#: Sizes that lose a border of one.
_SIZES = (5, 7)


class SmallerKernels(Idea):
    """Smaller kernels of depthwise convolutions; outputs keep their shape."""

    def places(self, net: Net) -> Iterator[Place]:
        for node in net.nodes:
            found = net.depthwise(node)
            if found is None or found.kernel_size not in _SIZES or not _is_alone(net, found.weight):
                continue
            size, output = found.kernel_size, net.shape(node.outputs[0])
            yield Place(
                f"depthwise kernel {size} -> {size - 2}",
                node.name,
                (net.shape(node.inputs[0]), output, found.settings),
                float(prod(output or (1,)) * size**2),
                partial(_apply, node),
            )


def _apply(node: Node, editor: Editor) -> None:
    editor.shrink_kernel(node)


def _is_alone(net: Net, weight: str) -> bool:
    """Whether only one convolution uses the weights."""
    return weight not in net.kept and len(net.users.get(weight, ())) == 1
