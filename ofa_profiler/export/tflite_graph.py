"""A TFLite graph in the making: nodes and constants, written one by one.

Maps are (N, H, W, C), weights (out, k, k, in), those of depthwise convolutions (1, k, k, channels).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.export.tflite_file import Node
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.parameters import Array, Weights
from ofa_profiler.networks.tensors import Shape

#: `ActivationFunctionType`, `Padding` and `MirrorPadMode` of the schema.
_FUSED = {"NONE": 0, "RELU": 1, "RELU6": 3}
SAME, VALID = 0, 1
REFLECT = 0


class TfliteGraph:
    """Every `add_*` takes the names of tensors and returns the name of the result."""

    def __init__(self, weights: Weights, inputs: dict[str, Shape]) -> None:
        self.weights = weights
        self.nodes: list[Node] = []
        #: Of every tensor that is no constant, with the batch.
        self.shapes: dict[str, Shape] = inputs
        self.constants: dict[str, Array] = {}

    def add_node(self, operator: str, inputs: list[str], name: str, shape: Shape, **options: int) -> str:
        """A node with one output of that shape."""
        name = f"{name}/{operator}"
        self.nodes.append(Node(operator, tuple(inputs), name, options))
        self.shapes[name] = shape
        return name

    def add_active(
        self, operator: str, inputs: list[str], name: str, shape: Shape, activation: str = "", /, **options: int
    ) -> str:
        """A node with its activation, which may need a node of its own."""
        how = get_activation(activation)
        if how.tflite_fused is not None:
            return self.add_node(
                operator, inputs, name, shape, FusedActivationFunction=_FUSED[how.tflite_fused], **options
            )
        if how.tflite is None:
            raise UsageError(f"the TFLite exporter does not know the activation {activation!r}, as in {name}")
        return self.add_node(how.tflite, [self.add_active(operator, inputs, name, shape, **options)], name, shape)

    def add_constant(self, name: str, value: Array) -> str:
        """A constant, int32 for whole numbers, else float32."""
        self.constants[name] = np.asarray(value, np.int32 if value.dtype.kind == "i" else np.float32)
        return name

    def add_parameter(self, name: str) -> str:
        """One of the weights, under its own name."""
        return self.add_constant(name, self.weights[name])

    def add_conv(
        self,
        name: str,
        tensor: str,
        weight: Array,
        bias: Array | None,
        activation: str = "",
        stride: int = 1,
        is_depthwise: bool = False,
    ) -> str:
        """A convolution with "same" padding, its weight as torch stores it."""
        channels, _, kernel_size, _ = weight.shape
        padding = SAME
        if stride > 1 and kernel_size > 1:
            # There, TFLite's "same" padding of an even map is larger at the end than at the beginning.
            padding, tensor = VALID, self.add_pad("PAD", tensor, f"{name}.pads", kernel_size // 2)
        # Not all delegates know convolutions without bias.
        bias = np.zeros(channels, np.float32) if bias is None else bias
        inputs = [
            tensor,
            self.add_constant(f"{name}.weight", weight.transpose((1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1))),
            self.add_constant(f"{name}.bias", bias),
        ]
        batch, height, width, _ = self.shapes[tensor]
        lost = 0 if padding == SAME else kernel_size - 1
        shape = (batch, -(-(height - lost) // stride), -(-(width - lost) // stride), channels)
        options = {"Padding": padding, "StrideW": stride, "StrideH": stride}
        if is_depthwise:
            return self.add_active("DEPTHWISE_CONV_2D", inputs, name, shape, activation, DepthMultiplier=1, **options)
        return self.add_active("CONV_2D", inputs, name, shape, activation, **options)

    def add_mean(self, name: str, tensor: str) -> str:
        """The mean of a map over height and width, kept as 1 x 1."""
        batch, _, _, channels = self.shapes[tensor]
        axes = self.add_constant("height_and_width", np.array([1, 2], np.int32))
        return self.add_node("MEAN", [tensor, axes], name, (batch, 1, 1, channels), KeepDims=1)

    def add_pad(self, operator: str, tensor: str, name: str, margin: int, **options: int) -> str:
        """Height and width become larger by `margin` at either end."""
        batch, height, width, channels = self.shapes[tensor]
        margins = np.array([[0, 0], [margin, margin], [margin, margin], [0, 0]], np.int32)
        inputs = [tensor, self.add_constant(f"margins_{margin}", margins)]
        shape = (batch, height + 2 * margin, width + 2 * margin, channels)
        return self.add_node(operator, inputs, name, shape, **options)

    def add_pool(self, operator: str, tensor: str, name: str, size: int, padding: int) -> str:
        """Windows of `size` x `size`, stride 2; those over the edge count what is inside."""
        batch, height, width, channels = self.shapes[tensor]
        lost = 0 if padding == SAME else size - 1
        return self.add_active(
            operator,
            [tensor],
            name,
            (batch, (height - lost + 1) // 2, (width - lost + 1) // 2, channels),
            Padding=padding,
            StrideW=2,
            StrideH=2,
            FilterWidth=size,
            FilterHeight=size,
        )

    def rename(self, old: str, new: str) -> None:
        """Give a tensor another name, wherever it is written or read."""
        for i, node in enumerate(self.nodes):
            inputs = tuple(new if name == old else name for name in node.inputs)
            self.nodes[i] = replace(node, inputs=inputs, output=new if node.output == old else node.output)
        self.shapes[new] = self.shapes.pop(old)
