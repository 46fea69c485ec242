"""TFLite models for LiteRT and its relatives, written node by node from the layers of `ops.py`.

The graph is what a converter makes of the torch module: BatchNorm is folded into the convolutions, and
activations are part of the node before them where TFLite has that. Its operators are those that XNNPACK
runs and other delegates know, all in their first versions.

Tensors are (N, H, W, C), weights (out, k, k, in), those of depthwise convolutions (1, k, k, channels).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.export.base import INPUT_NAME, Exporter
from ofa_profiler.export.tflite_file import Node, write_model
from ofa_profiler.networks.op import AvgPool, Conv, GlobalPool, Layer, Linear, MaxPool, Op, Shape, SqueezeExcite
from ofa_profiler.networks.parameters import Array, Layout, Weights, folded_conv, parameter_name

#: `ActivationFunctionType`, `Padding` and `MirrorPadMode` of the schema.
_FUSED = {"": 0, "relu": 1, "relu6": 3}
_SAME, _VALID = 0, 1
_REFLECT = 0


class TfliteExporter(Exporter):
    """Builds TFLite models: input (N, H, W, C), static batch, float32."""

    runtime = "litert"
    precisions = ("fp32",)
    suffix = ".tflite"
    version = 1

    def build(
        self,
        layout: Layout,
        weights: Weights,
        *,
        batch: int,
        precision: str,
        output_name: str,
        metadata: Mapping[str, str],
    ) -> bytes:
        if precision not in self.precisions:
            raise UsageError(f"no TFLite export at precision {precision}")
        graph = _Graph(weights, self.input_shape(layout, batch))
        tensor = INPUT_NAME
        for slot, op in layout:
            tensor = graph.add_op(slot, op, tensor)
        graph.rename_output(output_name)
        return write_model(
            graph.nodes,
            graph.shapes,
            graph.constants,
            inputs=[INPUT_NAME],
            outputs=[output_name],
            metadata=metadata,
        )

    def input_shape(self, layout: Layout, batch: int) -> Shape:
        return (batch, *layout[0][1].input_shape)


class _Graph:
    """Nodes and constants in the making. Every `add_*` takes a tensor's name and returns the result's."""

    def __init__(self, weights: Weights, input_shape: Shape) -> None:
        self.weights = weights
        self.nodes: list[Node] = []
        #: Of every tensor that is no constant.
        self.shapes: dict[str, Shape] = {INPUT_NAME: input_shape}
        self.constants: dict[str, Array] = {}

    def rename_output(self, name: str) -> None:
        last = self.nodes[-1]
        self.nodes[-1] = Node(last.operator, last.inputs, name, last.options)
        self.shapes[name] = self.shapes.pop(last.output)

    def add_op(self, slot: str, op: Op, tensor: str) -> str:
        source = tensor
        for layer in op.layers:
            tensor = self._add_layer(slot, op, layer, tensor)
        if op.skip and op.input_shape != op.output_shape:
            raise UsageError(f"op {op.key} cannot add its input to an output of another shape")
        if op.shortcut is not None:
            for layer in op.shortcut:
                source = self._add_layer(slot, op, layer, source)
            return self._add_active(
                "ADD", [tensor, source], parameter_name(slot, "shortcut"), self.shapes[tensor], op.final_activation
            )
        if op.final_activation:
            raise UsageError(f"the TFLite exporter knows no final activation without a shortcut, as in op {op.key}")
        return tensor

    def _add_layer(self, slot: str, op: Op, layer: Layer, tensor: str) -> str:
        name = parameter_name(slot, layer.name)
        match layer:
            case Conv():
                weight, bias = folded_conv(layer, slot, self.weights)
                if layer.groups not in (1, layer.out_channels) or layer.groups not in (1, layer.in_channels):
                    raise UsageError(f"the TFLite exporter does not know {layer.groups} groups, as in op {op.key}")
                return self._add_conv(name, tensor, weight, bias, layer.activation, layer.stride, layer.groups > 1)
            case SqueezeExcite():
                return self._add_squeeze_excite(name, tensor)
            case MaxPool():
                # Zeros could be the largest of a window. Its own values are no larger than its largest:
                # what is mirrored into a window over the edge is in that window already.
                padded = self._add_pad("MIRROR_PAD", tensor, f"{name}.pads", 1, Mode=_REFLECT)
                return self._add_pool("MAX_POOL_2D", padded, name, 3, _VALID)
            case AvgPool():
                return self._add_pool("AVERAGE_POOL_2D", tensor, name, 2, _SAME)
            case GlobalPool():
                return self._add_mean(name, tensor)
            case Linear():
                names = (f"{name}.weight", f"{name}.bias")
                constants = [self._add_constant(constant, self.weights[constant]) for constant in names]
                shape = (self.shapes[tensor][0], layer.out_features)
                return self._add_active("FULLY_CONNECTED", [tensor, *constants], name, shape)
        raise UsageError(f"the TFLite exporter does not know the layer {layer!r} of op {op.key}")

    def _add_squeeze_excite(self, name: str, tensor: str) -> str:
        def parameter(part: str, field: str) -> Array:
            return self.weights[f"{name}.{part}.{field}"]

        gate = self._add_mean(name, tensor)
        gate = self._add_conv(
            f"{name}.reduce", gate, parameter("reduce", "weight"), parameter("reduce", "bias"), "relu"
        )
        # TFLite has no hard sigmoid. It is relu6(x + 3) / 6, and adding 3 is the convolution's to do.
        shifted = parameter("expand", "bias") + np.float32(3)
        gate = self._add_conv(f"{name}.expand", gate, parameter("expand", "weight"), shifted, "relu6")
        sixth = self._add_constant("one_sixth", np.array(1 / 6, np.float32))
        gate = self._add_active("MUL", [gate, sixth], f"{name}.gate", self.shapes[gate])
        return self._add_active("MUL", [tensor, gate], name, self.shapes[tensor])

    def _add_conv(
        self,
        name: str,
        tensor: str,
        weight: Array,
        bias: Array | None,
        activation: str | None,
        stride: int = 1,
        is_depthwise: bool = False,
    ) -> str:
        channels, _, kernel_size, _ = weight.shape
        padding = _SAME
        if stride > 1 and kernel_size > 1:
            # There, TFLite's "same" padding of an even map is larger at the end than at the beginning.
            padding, tensor = _VALID, self._add_pad("PAD", tensor, f"{name}.pads", kernel_size // 2)
        # Not all delegates know convolutions without bias.
        bias = np.zeros(channels, np.float32) if bias is None else bias
        inputs = [
            tensor,
            self._add_constant(f"{name}.weight", weight.transpose((1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1))),
            self._add_constant(f"{name}.bias", bias),
        ]
        batch, height, width, _ = self.shapes[tensor]
        lost = 0 if padding == _SAME else kernel_size - 1
        shape = (batch, -(-(height - lost) // stride), -(-(width - lost) // stride), channels)
        options = {"Padding": padding, "StrideW": stride, "StrideH": stride}
        if is_depthwise:
            return self._add_active("DEPTHWISE_CONV_2D", inputs, name, shape, activation, DepthMultiplier=1, **options)
        return self._add_active("CONV_2D", inputs, name, shape, activation, **options)

    def _add_active(
        self,
        operator: str,
        inputs: list[str],
        name: str,
        shape: Shape,
        activation: str | None = None,
        /,
        **options: int,
    ) -> str:
        """A node with its activation, which may need a node of its own."""
        if activation == "h_swish":
            tensor = self._add_active(operator, inputs, name, shape, **options)
            return self._add_node("HARD_SWISH", [tensor], name, shape)
        if (activation or "") not in _FUSED:
            raise UsageError(f"the TFLite exporter does not know the activation {activation!r}, as in {name}")
        return self._add_node(
            operator, inputs, name, shape, FusedActivationFunction=_FUSED[activation or ""], **options
        )

    def _add_mean(self, name: str, tensor: str) -> str:
        batch, _, _, channels = self.shapes[tensor]
        axes = self._add_constant("height_and_width", np.array([1, 2], np.int32))
        return self._add_node("MEAN", [tensor, axes], name, (batch, 1, 1, channels), KeepDims=1)

    def _add_pad(self, operator: str, tensor: str, name: str, margin: int, **options: int) -> str:
        """Height and width become larger by `margin` at either end."""
        batch, height, width, channels = self.shapes[tensor]
        margins = np.array([[0, 0], [margin, margin], [margin, margin], [0, 0]], np.int32)
        inputs = [tensor, self._add_constant(f"margins_{margin}", margins)]
        shape = (batch, height + 2 * margin, width + 2 * margin, channels)
        return self._add_node(operator, inputs, name, shape, **options)

    def _add_pool(self, operator: str, tensor: str, name: str, size: int, padding: int) -> str:
        """Windows of `size` x `size`, stride 2; those over the edge count what is inside."""
        batch, height, width, channels = self.shapes[tensor]
        lost = 0 if padding == _SAME else size - 1
        return self._add_active(
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

    def _add_node(self, operator: str, inputs: list[str], name: str, shape: Shape, **options: int) -> str:
        name = f"{name}/{operator}"
        self.nodes.append(Node(operator, tuple(inputs), name, options))
        self.shapes[name] = shape
        return name

    def _add_constant(self, name: str, value: Array) -> str:
        self.constants[name] = value if value.dtype == np.int32 else np.asarray(value, np.float32)
        return name
