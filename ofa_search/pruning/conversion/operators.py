"""Operators with weights, elementwise operators and activations as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ofa_profiler.networks.layers import Activate, Add, Affine, AnyConv, Gelu, Linear, Multiply, Softmax
from ofa_profiler.networks.parameters import Array
from ofa_search.pruning.conversion.draft import Draft
from ofa_search.pruning.conversion.steps import Step, Value

#: `convert(draft, step)`: adds the layers of an operator, and returns its output or outputs.
Converter = Callable[[Draft, Step], Any]
OPERATORS: dict[str, Converter] = {}


def operator(*names: str) -> Callable[[Converter], Converter]:
    """Decorator for what converts the operators of these names, without `aten::`."""

    def add(convert: Converter) -> Converter:
        OPERATORS.update(dict.fromkeys(names, convert))
        return convert

    return add


# --- operators with weights --------------------------------------------------------------------------------


@operator("conv2d")
def _conv2d(draft: Draft, step: Step) -> Value:
    source, weight, bias = step.source, step.constant("weight"), step.constant("bias")
    if weight is None or len(source.shape) != 4:
        step.refuse("only images with a batch")
    outputs, _, rows, columns = weight.shape
    groups = int(step["groups"])
    dilations = step.pair("dilation")
    if isinstance(step["padding"], str):
        totals = [
            step["padding"].strip() == "same" and d * (k - 1) for d, k in zip(dilations, (rows, columns), strict=True)
        ]
        top, left = (int(total) // 2 for total in totals)
        pads = (top, left, int(totals[0]) - top, int(totals[1]) - left)
    else:
        pads = step.pair("padding") * 2
    strides = step.pair("stride")

    def make(name: str) -> AnyConv:
        return AnyConv(name, source.shape[1], outputs, (rows, columns), strides, pads, dilations, groups)

    return draft.add(step, make, source, conv_weight=weight, conv_bias=np.zeros(outputs) if bias is None else bias)


@operator("linear")
def _linear(draft: Draft, step: Step) -> Value:
    source, weight, bias = step.source, step.constant("weight"), step.constant("bias")
    if weight is None or len(source.shape) != 2:
        step.refuse(f"it is applied along an axis of the shape {source.shape}, not to vectors")
    outputs, inputs = weight.shape
    bias = np.zeros(outputs) if bias is None else bias
    return draft.add(step, lambda name: Linear(name, inputs, outputs), source, weight=weight, bias=bias)


@operator("batch_norm", "_native_batch_norm_legit_no_training")
def _batch_norm(draft: Draft, step: Step) -> Any:
    mean, variance = step.constant("running_mean"), step.constant("running_var")
    if mean is None or variance is None or step.arguments.get("training"):
        step.refuse("it has no statistics of its own")
    weight, bias = step.constant("weight"), step.constant("bias")
    scale = (1.0 if weight is None else weight) / np.sqrt(variance + step["eps"])
    value = add_affine(draft, step, step.source, scale, (0.0 if bias is None else bias) - mean * scale)
    return value if step.operator == "batch_norm" else (value,)


def add_affine(draft: Draft, step: Step, source: Value, weight: Array, bias: Array) -> Value:
    """weight * x + bias, for two constants of a number per channel, or of one for all."""
    return draft.add(step, lambda name: Affine(name, source.shape[1]), source, weight=weight, bias=bias)


# --- two tensors, or one and a constant --------------------------------------------------------------------


def _per_channel(step: Step, name: str, source: Value) -> Array:
    """A constant as one number per channel. Raises `UsageError` if it is none."""
    constant = step.constant(name)
    assert constant is not None, "operators with two operands have both"
    shape = (1, source.shape[1], *[1] * (len(source.shape) - 2))
    try:
        return np.array(np.broadcast_to(constant, shape)).reshape(-1)
    except ValueError:
        return step.refuse(f"its constant of the shape {constant.shape} is not one number per channel")


def _operands(step: Step) -> tuple[str, str]:
    """The names of its operands, one that the network computes first."""
    return ("self", "other") if isinstance(step["self"], Value) else ("other", "self")


@operator("add")
def _add(draft: Draft, step: Step) -> Value:
    first, second = _operands(step)
    source = step.value(first)
    if step.arguments.get("alpha", 1) != 1:
        step.refuse("alpha is not 1")
    if not isinstance(step[second], Value):
        return add_affine(draft, step, source, np.ones(source.shape[1]), _per_channel(step, second, source))
    if source.shape != step[second].shape:
        step.refuse(f"it adds the different shapes {source.shape} and {step[second].shape}")
    return draft.add(step, Add, source, step[second])


@operator("sub", "rsub")
def _subtract(draft: Draft, step: Step) -> Value:
    first, second = _operands(step)
    source = step.value(first)
    if step.arguments.get("alpha", 1) != 1:
        step.refuse("alpha is not 1")
    if isinstance(step[second], Value):
        ones = np.ones(source.shape[1])
        negative = add_affine(draft, step, step[second], -ones, 0 * ones)
        return draft.add(step, Add, source, negative)
    sign = 1.0 if (first == "self") == (step.operator == "sub") else -1.0
    constant = _per_channel(step, second, source)
    return add_affine(draft, step, source, np.full(source.shape[1], sign), -sign * constant)


@operator("mul")
def _multiply(draft: Draft, step: Step) -> Value:
    first, second = _operands(step)
    source = step.value(first)
    if not isinstance(step[second], Value):
        return add_affine(draft, step, source, _per_channel(step, second, source), np.zeros(source.shape[1]))
    return draft.add(step, Multiply, source, step[second])


@operator("div")
def _divide(draft: Draft, step: Step) -> Value:
    source = step.value("self")
    if isinstance(step["other"], Value) or step.arguments.get("rounding_mode"):
        step.refuse("only divisions by constants")
    return add_affine(draft, step, source, 1 / _per_channel(step, "other", source), np.zeros(source.shape[1]))


# --- activations -------------------------------------------------------------------------------------------


def _add_activation(draft: Draft, step: Step, activation: str) -> Value:
    return draft.add(step, lambda name: Activate(name, activation), step.source)


_NAMES = {
    "relu": "relu",
    "relu6": "relu6",
    "hardswish": "h_swish",
    "hardsigmoid": "h_sigmoid",
    "sigmoid": "sigmoid",
    "silu": "silu",
}


@operator(*_NAMES)
def _activate(draft: Draft, step: Step) -> Value:
    return _add_activation(draft, step, _NAMES[step.operator])


@operator("hardtanh", "clamp", "clamp_min")
def _clip(draft: Draft, step: Step) -> Value:
    low, high = (step.arguments.get(name, step.arguments.get(f"{name}_val")) for name in ("min", "max"))
    if low == 0 and high in (None, 6):
        return _add_activation(draft, step, "relu" if high is None else "relu6")
    return step.refuse(f"its limits are {low} and {high}, not 0 and 6")


@operator("gelu")
def _gelu(draft: Draft, step: Step) -> Value:
    if step["approximate"] != "none":
        step.refuse("it is approximate")
    return draft.add(step, Gelu, step.source)


@operator("softmax")
def _softmax(draft: Draft, step: Step) -> Value:
    if len(step.source.shape) != 2 or step["dim"] not in (1, -1):
        step.refuse("only the softmax of vectors")
    return draft.add(step, Softmax, step.source)


@operator("dropout", "feature_dropout", "clone", "contiguous", "alias", "detach", "_assert_tensor_metadata", "identity")
def _unchanged(_draft: Draft, step: Step) -> Any:
    return next(iter(step.arguments.values()))
