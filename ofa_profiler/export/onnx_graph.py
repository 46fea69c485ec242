"""A builder for the nodes and constants of an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ofa_profiler.export.marks import Marks
from ofa_profiler.networks.layers.activations import LINEAR, get_activation
from ofa_profiler.networks.parameters import Array, Weights
from ofa_profiler.networks.tensors import Shape

_ELEMENT_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
#: The opset that introduced the operator. onnxruntime itself runs it as the two nodes that an older opset gets.
HARD_SWISH_SINCE = 14


class OnnxGraph:
    """A graph under construction. Every `add_*` takes names of tensors and returns the name of the result.

    `shapes` are the shapes of the nodes and inputs of the network, without the batch, channels last. `opset` says
    which operators there are. `activations` has those that are written by a form, and can change from layer to layer.
    """

    def __init__(
        self,
        weights: Weights,
        shapes: dict[str, Shape],
        batch: int,
        opset: int,
    ) -> None:
        self.weights, self.shapes, self.batch, self.opset = weights, shapes, batch, opset
        self.activations: Mapping[str, Callable[..., str]] = {}
        self.nodes: list[onnx.NodeProto] = []
        #: The precision of each node, for networks with int8 parts.
        self.precisions: list[str] = []
        self.initializers: list[onnx.TensorProto] = []
        self.marks = Marks()

    def add_node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output."""
        name = f"{name}/{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def add_constant(self, name: str, value: Array) -> str:
        """Add a constant: int64 for integers, else float32."""
        dtype = np.dtype(np.int64 if value.dtype.kind == "i" else np.float32)
        # The ONNX specification requires little-endian raw bytes.
        data = np.asarray(value, dtype=dtype.newbyteorder("<"), order="C")
        self.initializers.append(helper.make_tensor(name, _ELEMENT_TYPES[dtype], data.shape, data.tobytes(), raw=True))
        return name

    def add_parameter(self, name: str) -> str:
        """Add the weight `name` as a constant."""
        return self.add_constant(name, self.weights[name])

    def add_conv(
        self, name: str, tensor: str, weight: Array, bias: Array | None, stride: int = 1, groups: int = 1
    ) -> str:
        """Add a convolution with "same" padding."""
        inputs = [tensor, self.add_constant(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.add_constant(f"{name}.bias", bias))
        kernel_size = weight.shape[-1]
        return self.add_node(
            "Conv",
            inputs,
            name,
            kernel_shape=[kernel_size, kernel_size],
            strides=[stride, stride],
            pads=[kernel_size // 2] * 4,
            group=groups,
        )

    def add_activation(self, name: str, activation: str, tensor: str) -> str:
        """Add an activation by its name, "" for none."""
        kind = get_activation(activation)
        if not kind.onnx:
            return tensor
        if kind.clip is None:
            self.marks.add(tensor, f"{name}.{LINEAR}", lambda span: span.clipped(kind.relevant))
        if write := self.activations.get(activation):
            return write(self, name, tensor)
        if kind.onnx == "Clip":  # its limits are tensors
            limits = [
                self.add_constant(f"{name}.{limit}", np.array(limit, np.float32))
                for limit in kind.onnx_attributes.values()
            ]
            return self.add_node("Clip", [tensor, *limits], name)
        if kind.onnx == "HardSwish" and self.opset < HARD_SWISH_SINCE:
            return self.add_gated(name, tensor)
        if activation == "silu":
            return self.add_node("Mul", [tensor, self.add_node("Sigmoid", [tensor], name)], name)
        return self.add_node(kind.onnx, [tensor], name, **kind.onnx_attributes)

    def add_gated(self, name: str, tensor: str) -> str:
        """Add a hard-swish as a product with a hard sigmoid."""
        gate = self.add_node("HardSigmoid", [tensor], name, alpha=1 / 6, beta=0.5)
        return self.add_node("Mul", [tensor, gate], name)

    def add_scalar(self, name: str, value: float) -> str:
        """Add a constant number."""
        return self.add_constant(name, np.array(value, np.float32))

    def part(self, nodes: list[onnx.NodeProto]) -> OnnxGraph:
        """The graph of some of its nodes."""
        part = copy(self)
        read = {name for node in nodes for name in node.input}
        part.nodes, part.initializers = nodes, [tensor for tensor in self.initializers if tensor.name in read]
        return part

    def rename(self, old: str, new: str) -> None:
        """Rename a tensor in all nodes."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
        self.marks.rename(old, new)
