"""onnxruntime: a scale and shift of each channel that no convolution can take becomes a depthwise 1x1 convolution.

On x86 onnxruntime keeps maps in a blocked layout, in which its Mul and Add have no broadcasting: a scalar costs two
changes of layout. A depthwise convolution stays in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ofa_profiler.models.rewriting.base import IMAGE_AXES, Pattern, Site
from ofa_profiler.models.rewriting.onnx_affine import Affine, affine_of
from ofa_profiler.models.rewriting.onnx_document import OnnxDocument

_KINDS = ("Mul", "Add", "Sub", "Div")
#: Operators whose results are in the blocked layout, and those that pass it on.
_BLOCKED = {"AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "MaxPool", "Resize"}
_PASSING = {"Clip", "Concat", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh", *_KINDS}


@dataclass(frozen=True, eq=False)
class _Site(Site):
    nodes: tuple[onnx.NodeProto, ...]
    tensor: str
    affine: Affine


class ChannelScale(Pattern[OnnxDocument, _Site]):
    """x * constant + constant of a map (N, C, H, W) behind a convolution, with at least one Mul or Div."""

    name, runtime, kinds = "scale and shift of channels", "onnxruntime", ("Mul", "Div")

    def site(self, document: OnnxDocument, operator: onnx.NodeProto) -> _Site | None:
        return _from(document, operator)

    def edit(self, document: OnnxDocument, site: _Site) -> None:
        channels = len(site.affine.scale)
        weight = site.affine.scale.astype(np.float32).reshape(channels, 1, 1, 1)
        constants = [
            document.constant_node(f"{site.place}_weight", weight),
            document.constant_node(f"{site.place}_bias", site.affine.shift.astype(np.float32)),
        ]
        inputs = [site.tensor, *(constant.output[0] for constant in constants)]
        name = site.place
        node = onnx.helper.make_node("Conv", inputs, [name], name=name, group=channels, kernel_shape=[1, 1])
        document.replace(site.nodes, [*constants, node])


def _from(document: OnnxDocument, first: onnx.NodeProto) -> _Site | None:
    variable = [name for name in first.input if document.constant(name) is None]
    shape = document.shape(variable[0]) if len(variable) == 1 else None
    if shape is None or len(shape) != IMAGE_AXES or not shape[1] or not document.is_float(variable[0]):
        return None
    if shape[2:] == (1, 1) or not _is_blocked(document, variable[0]):  # nothing to gain
        return None
    aligned = (1, shape[1], 1, 1)
    total = Affine.neutral(shape[1])
    nodes: list[onnx.NodeProto] = []
    node: onnx.NodeProto | None = first
    tensor = variable[0]
    while node is not None and node.op_type in _KINDS:
        try:
            total = total.then(affine_of(document, node, tensor, 1, aligned))
        except ValueError:
            break
        nodes.append(node)
        tensor = node.output[0]
        node = document.reader(tensor)
    return _Site(tensor, tuple(nodes), variable[0], total) if nodes and total.is_finite else None


def _is_blocked(document: OnnxDocument, tensor: str) -> bool:
    """Whether the tensor is, or follows from, the result of a convolution or pooling without a change of shape."""
    waiting, seen = [tensor], {tensor}
    while waiting:
        node = document.maker.get(waiting.pop())
        if node is None:
            continue
        if node.op_type in _BLOCKED:
            return True
        if node.op_type in _PASSING:
            waiting += [name for name in node.input if name not in seen]
            seen.update(node.input)
    return False
