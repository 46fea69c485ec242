"""The table of activations, with the names of each in all backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ofa_profiler.errors import UsageError


@dataclass(frozen=True)
class Activation:
    """An elementwise function.

    `gain`: the output has a mean square of about 1 if the input has this variance. `torch`: its module in `torch.nn`.
    `onnx`, `onnx_attributes`: its operator, "" if no node is needed. `tflite_fused`: its member in the schema's
    `ActivationFunctionType`, if the node before can include it. `tflite`: its operator otherwise.
    """

    name: str
    gain: float
    torch: str
    onnx: str
    onnx_attributes: Mapping[str, float] = field(default_factory=dict)
    tflite_fused: str | None = None
    tflite: str | None = None


#: Name -> activation. The name "" means no activation.
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
    """The activation of this name, "" for none. Raises `UsageError` for an unknown name."""
    try:
        return ACTIVATIONS[name]
    except KeyError:
        known = ", ".join(filter(None, ACTIVATIONS))
        raise UsageError(f"unknown activation {name!r}; choose from {known}") from None
