"""Multiply-accumulates and bytes of TFLite operators, from the shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from ofa_profiler.networks.tensors import Shape

#: Shapes of the inputs (None if left out), and of the first output -> multiply-accumulates.
Macs = Callable[[Sequence[Shape | None], Shape], int]


def _of(shape: Shape | None) -> Shape:
    return shape or ()


def _convolution(inputs: Sequence[Shape | None], output: Shape) -> int:
    """Weights are (out, height, width, in per group)."""
    return prod(output) * prod(_of(inputs[1])[1:])


def _depthwise(inputs: Sequence[Shape | None], output: Shape) -> int:
    """Weights are (1, height, width, channels)."""
    return prod(output) * prod(_of(inputs[1])[1:3])


def _transposed(inputs: Sequence[Shape | None], _output: Shape) -> int:
    """Inputs are the output's shape, the weights (out, height, width, in), and the tensor."""
    weights = _of(inputs[1])
    return prod(_of(inputs[2])) * prod(weights[:3])


def _convolution_3d(inputs: Sequence[Shape | None], output: Shape) -> int:
    """Weights are (depth, height, width, in, out)."""
    return prod(output) * prod(_of(inputs[1])[:4])


def _connected(inputs: Sequence[Shape | None], output: Shape) -> int:
    """Weights are (out, in)."""
    return prod(output) * (_of(inputs[1]) or (1,))[-1]


def _product(inputs: Sequence[Shape | None], output: Shape) -> int:
    """The first may be transposed, so the inner size follows from its number of elements."""
    rows = output[-2] if len(output) > 1 else 1
    return prod(output) * prod(_of(inputs[0])[-2:]) // max(rows, 1)


def _lstm(inputs: Sequence[Shape | None], _output: Shape) -> int:
    """Every step multiplies with all matrices: inputs 1 to 8 are the gates, and 16 the projection."""
    steps = prod(_of(inputs[0])[:-1])
    matrices = [shape for shape in (*inputs[1:9], *inputs[16:17]) if shape is not None and len(shape) == 2]
    return steps * sum(map(prod, matrices))


def _recurrent(inputs: Sequence[Shape | None], _output: Shape) -> int:
    """A plain recurrent layer: inputs 1 and 2 are its matrices."""
    return prod(_of(inputs[0])[:-1]) * sum(prod(_of(shape)) for shape in inputs[1:3])


_MACS: dict[str, Macs] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D": _convolution_3d,
    "FULLY_CONNECTED": _connected,
    "BATCH_MATMUL": _product,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
    "LSTM": _lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent,
    "RNN": _recurrent,
}


def operator_macs(kind: str, inputs: Sequence[Shape | None], output: Shape) -> int:
    """Multiply-accumulates of an operator: 0 for operators without any."""
    try:
        return _MACS[kind](inputs, output) if kind in _MACS else 0
    except IndexError:
        return 0  # an operator with too few inputs, which the runtime refuses
