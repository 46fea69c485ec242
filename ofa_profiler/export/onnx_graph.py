"""An ONNX graph in the making: nodes and constants, written one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.parameters import Array, Weights
from ofa_profiler.networks.tensors import Shape

_ELEMENT_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


class OnnxGraph:
    """Every `add_*` takes the names of tensors and returns the name of the result.

    `shapes` has the shapes of the network's nodes and inputs as `layers/base.py` has them, without the batch.
    """

    def __init__(self, weights: Weights, shapes: dict[str, Shape], batch: int) -> None:
        self.weights, self.shapes, self.batch = weights, shapes, batch
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add_node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """A node with one output."""
        name = f"{name}/{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def add_constant(self, name: str, value: Array) -> str:
        """A constant, int64 for whole numbers, else float32."""
        dtype = np.dtype(np.int64 if value.dtype.kind == "i" else np.float32)
        # Raw bytes are little-endian by the ONNX specification.
        data = np.asarray(value, dtype=dtype.newbyteorder("<"), order="C")
        self.initializers.append(helper.make_tensor(name, _ELEMENT_TYPES[dtype], data.shape, data.tobytes(), raw=True))
        return name

    def add_parameter(self, name: str) -> str:
        """One of the weights, under its own name."""
        return self.add_constant(name, self.weights[name])

    def add_conv(
        self, name: str, tensor: str, weight: Array, bias: Array | None, stride: int = 1, groups: int = 1
    ) -> str:
        """A convolution with "same" padding."""
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
        """The activation of that name, "" for none."""
        how = get_activation(activation)
        if not how.onnx:
            return tensor
        if how.onnx == "Clip":  # takes its limits as tensors
            limits = [
                self.add_constant(f"{name}.{limit}", np.array(limit, np.float32))
                for limit in how.onnx_attributes.values()
            ]
            return self.add_node("Clip", [tensor, *limits], name)
        return self.add_node(how.onnx, [tensor], name, **how.onnx_attributes)

    def rename(self, old: str, new: str) -> None:
        """Give a tensor another name, wherever it is written or read."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
