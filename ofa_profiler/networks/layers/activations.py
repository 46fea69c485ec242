"""The one table of activations: what each is called by every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ofa_profiler.errors import UsageError


@dataclass(frozen=True)
class Activation:
    """An elementwise function.

    `gain` is the variance of its input for which its output has a mean square of about 1. `torch` is the module
    of `torch.nn`, `onnx` the operator with its attributes. `tflite_fused` is the member of the schema's
    `ActivationFunctionType` with which it is part of the node before it, `tflite` the operator of its own where
    there is no such member.
    """

    name: str
    gain: float
    torch: str
    onnx: str
    onnx_attributes: Mapping[str, float] = field(default_factory=dict)
    tflite_fused: str | None = None
    tflite: str | None = None


#: `onnx` is empty where no node is needed.
ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("", 1.0, "Identity", "", tflite_fused="NONE"),
        Activation("relu", 2.0, "ReLU", "Relu", tflite_fused="RELU"),
        Activation("relu6", 2.0, "ReLU6", "Clip", {"min": 0, "max": 6}, tflite_fused="RELU6"),
        Activation("h_swish", 2.4, "Hardswish", "HardSwish", tflite="HARD_SWISH"),
    )
}


def get_activation(name: str) -> Activation:
    """The activation of that name, "" for none. Raises `UsageError` with the known names."""
    try:
        return ACTIVATIONS[name]
    except KeyError:
        known = ", ".join(filter(None, ACTIVATIONS))
        raise UsageError(f"unknown activation {name!r}; known are {known}") from None
