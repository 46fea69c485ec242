"""The table of activations, with the names of each in all backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.tensors import Span

_ALL = Span(-inf, inf)
#: The name of the tensor before an activation, inside its layer.
LINEAR = "linear"


@dataclass(frozen=True)
class Activation:
    """An elementwise function.

    `gain`: the output has a mean square of about 1 if the input has this variance. `torch`: its module in `torch.nn`.
    `onnx`, `onnx_attributes`: its operator, "" if no node is needed. `tflite_fused`: its member in the schema's
    `ActivationFunctionType`, if the node before can include it. `tflite`: its operator otherwise, if one is enough.
    `clip`: the limits of the output, if the activation does nothing but clip. `relevant`: outside of it, the output is
    that of the nearer limit. `output_span`: from the span of the input to that of the output.
    """

    name: str
    gain: float
    torch: str
    onnx: str
    onnx_attributes: Mapping[str, float] = field(default_factory=dict)
    tflite_fused: str | None = None
    tflite: str | None = None
    clip: Span | None = None
    relevant: Span = _ALL
    output_span: Callable[[Span], Span] | None = None

    def spans(self, linear: Span) -> dict[str, Span]:
        """The spans of a layer that ends in this activation, as in `Layer.usual_spans`. `linear` is before it."""
        if self.clip is not None:
            return {"": linear.clipped(self.clip)}
        assert self.output_span is not None, "any activation but a clip has one"
        return {"": self.output_span(linear), LINEAR: linear}


#: Name -> activation. The name "" means no activation.
ACTIVATIONS = {
    activation.name: activation
    for activation in (
        Activation("", 1.0, "Identity", "", tflite_fused="NONE", clip=_ALL),
        Activation("relu", 2.0, "ReLU", "Relu", tflite_fused="RELU", clip=Span(0.0, inf)),
        Activation("relu6", 2.0, "ReLU6", "Clip", {"min": 0, "max": 6}, tflite_fused="RELU6", clip=Span(0.0, 6.0)),
        Activation(
            "h_swish",
            2.4,
            "Hardswish",
            "HardSwish",
            tflite="HARD_SWISH",
            relevant=Span(-3.0, inf),
            output_span=lambda linear: Span(-0.375, max(linear.high, 0.0)),  # its minimum is at -1.5
        ),
        Activation(
            "h_sigmoid",
            1.0,
            "Hardsigmoid",
            "HardSigmoid",
            {"alpha": 1 / 6, "beta": 0.5},
            relevant=Span(-3.0, 3.0),
            output_span=lambda _: Span(0.0, 1.0),
        ),
        Activation("sigmoid", 1.0, "Sigmoid", "Sigmoid", tflite="LOGISTIC", output_span=lambda _: Span(0.0, 1.0)),
        Activation(
            "silu",
            2.8,
            "SiLU",
            "Sigmoid",  # and a product
            output_span=lambda linear: Span(-0.279, max(linear.high, 0.0)),  # its minimum is at -1.28
        ),
    )
}


def get_activation(name: str) -> Activation:
    """The activation of this name, "" for none. Raises `UsageError` for an unknown name."""
    try:
        return ACTIVATIONS[name]
    except KeyError:
        known = ", ".join(filter(None, ACTIVATIONS))
        raise UsageError(f"unknown activation {name!r}; choose from {known}") from None
