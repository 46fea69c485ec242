"""A builder for the nodes and constants of a float32 TFLite graph. `tflite_int8.py` quantizes it.

Maps are (N, H, W, C). Weights are (out, k, k, in); those of depthwise convolutions are (1, k, k, channels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.export.marks import Marks
from ofa_profiler.export.tflite_file import Node, Tensor
from ofa_profiler.networks.layers.activations import LINEAR, get_activation
from ofa_profiler.networks.layers.any_conv import Margins
from ofa_profiler.networks.parameters import Array, Weights
from ofa_profiler.networks.tensors import Shape

#: `ActivationFunctionType`, `Padding` and `MirrorPadMode` of the schema.
FUSED = {"NONE": 0, "RELU": 1, "RELU6": 3}
SAME, VALID = 0, 1
REFLECT = 0


#: `write(graph, name, tensor)`: adds an activation that cannot be fused.
ActivationWriter = Callable[["TfliteGraph", str, str], str]


class TfliteGraph:
    """A graph under construction. Every `add_*` takes names of tensors and returns the name of the result.

    `activations` has the activations that are not written as TFLite's own operator. It can change from layer to layer.
    """

    def __init__(self, weights: Weights, inputs: dict[str, Shape]) -> None:
        self.weights = weights
        self.activations: Mapping[str, ActivationWriter] = {}
        self.nodes: list[Node] = []
        #: The shapes of all tensors except constants, with the batch.
        self.shapes: dict[str, Shape] = inputs
        self.constants: dict[str, Array] = {}
        self.marks = Marks()

    def add_node(self, operator: str, inputs: list[str], name: str, shape: Shape, **options: int) -> str:
        """Add a node with one output of this shape."""
        name = f"{name}/{operator}"
        self.nodes.append(Node(operator, tuple(inputs), name, options))
        self.shapes[name] = shape
        return name

    def add_active(
        self, operator: str, inputs: list[str], name: str, shape: Shape, activation: str = "", /, **options: int
    ) -> str:
        """Add a node with an activation. If it cannot be fused, the activation is written after it."""
        kind = get_activation(activation)
        if kind.tflite_fused is not None:
            return self.add_node(
                operator, inputs, name, shape, FusedActivationFunction=FUSED[kind.tflite_fused], **options
            )
        linear = self.add_active(operator, inputs, name, shape, **options)
        return self.add_activation(activation, name, linear)

    def add_activation(self, activation: str, name: str, tensor: str) -> str:
        """Add an activation that no node before it includes."""
        kind = get_activation(activation)
        self.marks.add(tensor, f"{name}.{LINEAR}", lambda span: span.clipped(kind.relevant))
        if write := self.activations.get(activation) or COMPOSED.get(activation):
            return write(self, name, tensor)
        if kind.tflite is None:
            raise UsageError(f"{name}: the TFLite exporter does not support the activation {activation!r}")
        return self.add_node(kind.tflite, [tensor], name, self.shapes[tensor])

    def add_constant(self, name: str, value: Array) -> str:
        """Add a constant: int32 for integers, else float32."""
        self.constants[name] = np.asarray(value, np.int32 if value.dtype.kind == "i" else np.float32)
        return name

    def add_parameter(self, name: str) -> str:
        """Add the weight `name` as a constant."""
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
        """Add a convolution with "same" padding. `weight` has torch's layout (out, in / groups, k, k)."""
        channels, _, kernel_size, _ = weight.shape
        padding = SAME
        if stride > 1 and kernel_size > 1:
            # TFLite's "same" padding of an even map is larger at the end than at the beginning, unlike torch's.
            padding, tensor = VALID, self.add_pad("PAD", tensor, f"{name}.pads", kernel_size // 2, kernel_size // 2)
        # Some delegates do not support convolutions without bias.
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
        """Add the mean of a map over height and width: (N, H, W, C) -> (N, 1, 1, C)."""
        batch, _, _, channels = self.shapes[tensor]
        axes = self.add_constant("height_and_width", np.array([1, 2], np.int32))
        return self.add_node("MEAN", [tensor, axes], name, (batch, 1, 1, channels), KeepDims=1)

    def add_pad(self, operator: str, tensor: str, name: str, rows: int, columns: int, **options: int) -> str:
        """Pad with `rows` rows above and below, and `columns` columns left and right."""
        return self.add_margins(operator, tensor, name, (rows, columns, rows, columns), **options)

    def add_margins(self, operator: str, tensor: str, name: str, pads: Margins, *more: str, **options: int) -> str:
        """Pad a map. `more` are further inputs of the operator."""
        batch, height, width, channels = self.shapes[tensor]
        top, left, bottom, right = pads
        margins = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        sizes = pads if pads[:2] != pads[2:] else pads[:1] if top == left else pads[:2]
        inputs = [tensor, self.add_constant("_".join(map(str, ("margins", *sizes))), margins), *more]
        shape = (batch, height + top + bottom, width + left + right, channels)
        return self.add_node(operator, inputs, name, shape, **options)

    def add_pool(self, operator: str, tensor: str, name: str, size: int, padding: int) -> str:
        """Add pooling of `size` x `size` windows with stride 2. Windows at the edge use only pixels inside the map."""
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

    def part(self, nodes: list[Node]) -> TfliteGraph:
        """The graph of some of its nodes."""
        part = copy(self)
        names = {name for node in nodes for name in (*node.inputs, node.output)}
        part.nodes = nodes
        part.shapes = {name: shape for name, shape in self.shapes.items() if name in names}
        part.constants = {name: value for name, value in self.constants.items() if name in names}
        return part

    def tensors(self, dtypes: Mapping[str, str]) -> dict[str, Tensor]:
        """All tensors of the float32 graph. `dtypes` are those of the inputs."""
        tensors = {name: Tensor(shape, dtypes.get(name, "float32")) for name, shape in self.shapes.items()}
        return {**tensors, **{name: Tensor.constant(value) for name, value in self.constants.items()}}

    def rename(self, old: str, new: str) -> None:
        """Rename a tensor in all nodes."""
        for i, node in enumerate(self.nodes):
            inputs = tuple(new if name == old else name for name in node.inputs)
            self.nodes[i] = replace(node, inputs=inputs, output=new if node.output == old else node.output)
        self.shapes[new] = self.shapes.pop(old)
        self.marks.rename(old, new)


def _hard_sigmoid(graph: TfliteGraph, name: str, tensor: str) -> str:
    """relu6(x + 3) / 6: TFLite has no such operator."""
    shape = graph.shapes[tensor]
    three = graph.add_constant("three", np.array(3, np.float32))
    shifted = graph.add_active("ADD", [tensor, three], f"{name}.shifted", shape, "relu6")
    sixth = graph.add_constant("one_sixth", np.array(1 / 6, np.float32))
    return graph.add_active("MUL", [shifted, sixth], f"{name}.gate", shape)


def _silu(graph: TfliteGraph, name: str, tensor: str) -> str:
    gate = graph.add_node("LOGISTIC", [tensor], name, graph.shapes[tensor])
    return graph.add_active("MUL", [tensor, gate], f"{name}.gated", graph.shapes[tensor])


#: The activations of several operators.
COMPOSED: Mapping[str, ActivationWriter] = {"h_sigmoid": _hard_sigmoid, "silu": _silu}
