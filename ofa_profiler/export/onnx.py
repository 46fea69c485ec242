"""ONNX models for onnxruntime, written node by node from the layers of `ops.py`.

The graph is the one that onnxruntime would make of the torch module: BatchNorm is folded into the
convolutions and activations are single operators, which its fusions recognise. A whole network is
the nodes of its ops one after the other, so both hold the same operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ofa_profiler.errors import UsageError
from ofa_profiler.export.base import INPUT_NAME, Exporter, nchw
from ofa_profiler.networks.op import AvgPool, Conv, GlobalPool, Layer, Linear, MaxPool, Op, SqueezeExcite
from ofa_profiler.networks.parameters import Array, Layout, Weights, folded_conv, parameter_name

#: The first opset and file version with all that is needed (HardSwish: opset 14), so that the old
#: onnxruntime of a board loads the models too (1.12 and later).
OPSET = 17
IR_VERSION = 8

_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "h_swish": ("HardSwish", {}),
    "h_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
}


class OnnxExporter(Exporter):
    """Builds ONNX models: input (N, C, H, W), static batch, float32."""

    runtime = "onnxruntime"
    precisions = ("fp32",)
    suffix = ".onnx"
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
            raise UsageError(f"no ONNX export at precision {precision}")
        graph = _Graph(weights)
        tensor = INPUT_NAME
        for slot, op in layout:
            tensor = graph.add_op(slot, op, tensor)
        graph.nodes[-1].output[0] = output_name
        first, last = layout[0][1], layout[-1][1]
        model = helper.make_model(
            helper.make_graph(
                graph.nodes,
                "ofa",
                [_value(INPUT_NAME, nchw(first.input_shape, batch))],
                [_value(output_name, nchw(last.output_shape, batch))],
                graph.initializers,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="ofa-profiler",
        )
        helper.set_model_props(model, dict(sorted(metadata.items())))
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants in the making. Every `add_*` takes a tensor's name and returns the result's."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add_op(self, slot: str, op: Op, tensor: str) -> str:
        source = tensor
        for layer in op.layers:
            tensor = self._add_layer(slot, op, layer, tensor)
        if op.skip and op.input_shape != op.output_shape:
            raise UsageError(f"op {op.key} cannot add its input to an output of another shape")
        name = parameter_name(slot, "shortcut")
        if op.shortcut is not None:
            for layer in op.shortcut:
                source = self._add_layer(slot, op, layer, source)
            tensor = self._add_node("Add", [tensor, source], name)
        return self._add_activation(name, op, op.final_activation, tensor)

    def _add_layer(self, slot: str, op: Op, layer: Layer, tensor: str) -> str:
        match layer:
            case Conv():
                weight, bias = folded_conv(layer, slot, self.weights)
                name = parameter_name(slot, layer.name)
                tensor = self._add_conv(name, tensor, weight, bias, layer.stride, layer.groups)
                return self._add_activation(name, op, layer.activation, tensor)
            case SqueezeExcite():
                return self._add_squeeze_excite(slot, op, layer, tensor)
            case MaxPool():
                name = parameter_name(slot, layer.name)
                return self._add_node("MaxPool", [tensor], name, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
            case AvgPool():
                name = parameter_name(slot, layer.name)
                return self._add_node("AveragePool", [tensor], name, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
            case GlobalPool():
                return self._add_node("GlobalAveragePool", [tensor], parameter_name(slot, layer.name))
            case Linear():
                name = parameter_name(slot, layer.name)
                flat = self._add_node("Flatten", [tensor], name, axis=1)
                names = (f"{name}.weight", f"{name}.bias")
                constants = [self._add_constant(constant, self.weights[constant]) for constant in names]
                return self._add_node("Gemm", [flat, *constants], name, transB=1)
        raise UsageError(f"the ONNX exporter does not know the layer {layer!r} of op {op.key}")

    def _add_squeeze_excite(self, slot: str, op: Op, layer: SqueezeExcite, tensor: str) -> str:
        name = parameter_name(slot, layer.name)
        gate = self._add_node("GlobalAveragePool", [tensor], name)
        for part, activation in (("reduce", "relu"), ("expand", "h_sigmoid")):
            weight, bias = (self.weights[f"{name}.{part}.{field}"] for field in ("weight", "bias"))
            gate = self._add_conv(f"{name}.{part}", gate, weight, bias)
            gate = self._add_activation(f"{name}.{part}", op, activation, gate)
        return self._add_node("Mul", [tensor, gate], name)

    def _add_conv(
        self, name: str, tensor: str, weight: Array, bias: Array | None, stride: int = 1, groups: int = 1
    ) -> str:
        inputs = [tensor, self._add_constant(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self._add_constant(f"{name}.bias", bias))
        kernel_size = weight.shape[-1]
        return self._add_node(
            "Conv",
            inputs,
            name,
            kernel_shape=[kernel_size, kernel_size],
            strides=[stride, stride],
            pads=[kernel_size // 2] * 4,
            group=groups,
        )

    def _add_activation(self, name: str, op: Op, activation: str | None, tensor: str) -> str:
        if not activation:
            return tensor
        if activation == "relu6":
            limits = [self._add_constant(f"{name}.{limit}", np.array(limit, np.float32)) for limit in (0, 6)]
            return self._add_node("Clip", [tensor, *limits], name)
        if activation not in _ACTIVATIONS:
            raise UsageError(f"the ONNX exporter does not know the activation {activation!r} of op {op.key}")
        op_type, attributes = _ACTIVATIONS[activation]
        return self._add_node(op_type, [tensor], name, **attributes)

    def _add_node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        name = f"{name}/{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def _add_constant(self, name: str, value: Array) -> str:
        # Raw bytes are little-endian by the ONNX specification.
        data = np.asarray(value, dtype="<f4", order="C")
        self.initializers.append(helper.make_tensor(name, TensorProto.FLOAT, data.shape, data.tobytes(), raw=True))
        return name


def _value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
