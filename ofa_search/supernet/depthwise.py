"""Depthwise convolution for training on CPUs: the same result as torch, with a backward pass several times faster.

On x86, oneDNN has fast kernels for depthwise convolutions over channels-last maps, with one exception. For the
gradient of weights wider than 3, it uses code for dense convolutions, which is ten times slower. Here, this gradient
is composed of gradients of weights 3 wide:

- a tap at a distance of `d` columns reads the input like a central tap that reads the input moved by `d`;
- a convolution of stride 2 is four of stride 1, over the even and odd rows and columns of its input.

`benchmarks/train_step.py` measures the speed-up.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

#: An interval of offsets between an output and an input position, both ends included.
Offsets = tuple[int, int]

_X86_ONEDNN = platform.machine().lower() in ("x86_64", "amd64") and torch._C._has_mkldnn


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """`conv2d` of x (N, C, H, W) with weight (C, 1, k, k), k odd, "same" padding, stride 1 or 2.

    It is fastest if x is in channels-last format. Gradients of gradients are not supported.
    """
    kernel_size = weight.shape[-1]
    helps = _X86_ONEDNN and x.device.type == "cpu" and kernel_size > 3
    if helps and torch.is_grad_enabled() and weight.requires_grad:
        if torch.is_autocast_enabled("cpu"):
            x, weight = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (x, weight))
        y: Tensor = _DepthwiseConv2d.apply(x, weight, stride)  # type: ignore[no-untyped-call]
        return y
    return functional.conv2d(x, weight, stride=stride, padding=kernel_size // 2, groups=x.shape[1])


class DepthwiseConv2d(nn.Conv2d):
    """A plain depthwise convolution that trains with `depthwise_conv2d`. It shares the parameters of `conv`."""

    def __init__(self, conv: nn.Conv2d) -> None:
        size, stride = conv.kernel_size[0], conv.stride[0]
        groups = conv.in_channels
        super().__init__(groups, groups, size, stride, size // 2, groups=groups, bias=False, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Conv2d
        if not self.training:
            return super().forward(input)
        y = depthwise_conv2d(input, self.weight, self.stride[0])
        return y if self.bias is None else y + self.bias[:, None, None]


def _is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether `DepthwiseConv2d` computes the same, and nobody else listens to the module."""
    return (
        type(module) is nn.Conv2d
        and module.groups == module.in_channels == module.out_channels > 1
        and module.kernel_size[0] == module.kernel_size[1]
        and module.kernel_size[0] % 2 == 1
        and module.stride in ((1, 1), (2, 2))
        and module.dilation == (1, 1)
        and module.padding == (module.kernel_size[0] // 2,) * 2
        and module.padding_mode == "zeros"
        and not any(vars(module)[hooks] for hooks in vars(module) if hooks.endswith("_hooks"))
    )


Network = TypeVar("Network", bound=nn.Module)


def use_fast_depthwise(network: Network) -> Network:
    """Replace the depthwise convolutions of a network by `DepthwiseConv2d`; the names stay the same."""
    _replace(network)
    return network


@contextmanager
def fast_depthwise(network: nn.Module) -> Iterator[None]:
    """The same for a while; afterwards, the network consists of its own modules again."""
    replaced = _replace(network)
    try:
        yield
    finally:
        for parent, name, module in replaced:
            setattr(parent, name, module.train(getattr(parent, name).training))


def _replace(network: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    """Return what was replaced: the parent, the name in it, and the module that was there."""
    found = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if _is_depthwise(child)
    ]
    for parent, name, child in found:
        setattr(parent, name, DepthwiseConv2d(child))
    return found


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = (_channels_last(tensor) for tensor in ctx.saved_tensors)
        grad = _channels_last(grad)
        grad_x = _input_gradient(x, weight, grad, ctx.stride) if ctx.needs_input_grad[0] else None
        grad_weight = _weight_gradient(x, grad, weight.shape[-1], ctx.stride) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _input_gradient(x: Tensor, weight: Tensor, grad: Tensor, stride: int) -> Tensor:
    """Return the input gradient. At stride 1 it is a forward convolution with the flipped kernel."""
    padding = weight.shape[-1] // 2
    if stride == 1:
        return functional.conv2d(grad, weight.flip(2, 3), padding=padding, groups=x.shape[1])
    return _convolution_backward(x, weight, grad, stride, padding, padding, (True, False, False))[0]


def _weight_gradient(x: Tensor, grad: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Return the weight gradient (C, 1, k, k) for x (N, C, H, W) and the gradient of the output."""
    reach = kernel_size // 2
    if stride == 1:
        return _taps(x, grad, (-reach, reach), (-reach, reach))
    assert stride == 2, "convolutions of stride 1 or 2"
    height, width = grad.shape[2:]
    result = x.new_zeros(x.shape[1], 1, kernel_size, kernel_size)
    for row_parity in (0, 1):
        for column_parity in (0, 1):
            # Offset 2 i + parity of the whole input is offset i of its rows (or columns) of that parity.
            rows, columns = (
                (-((reach + parity) // 2), (reach - parity) // 2) for parity in (row_parity, column_parity)
            )
            part = x[:, :, row_parity::2, column_parity::2]
            part = functional.pad(part, (0, width - part.shape[3], 0, height - part.shape[2]))
            first_row, first_column = reach + 2 * rows[0] + row_parity, reach + 2 * columns[0] + column_parity
            result[:, :, first_row::2, first_column::2] = _taps(_channels_last(part), grad, rows, columns)
    return result


def _taps(x: Tensor, grad: Tensor, rows: Offsets, columns: Offsets) -> Tensor:
    """Return the weight gradient (C, 1, rows, columns) of the taps at these offsets, at stride 1."""
    height, width = x.shape[2:]
    result = x.new_zeros(x.shape[1], 1, rows[1] - rows[0] + 1, columns[1] - columns[0] + 1)
    # One pass computes all rows of taps if the map is at least as high as the kernel, as oneDNN requires.
    reach = max(-rows[0], rows[1])
    tall = 2 * reach + 1 <= height
    padding = reach if tall else 1
    for row_shift, (top, bottom) in [(0, rows)] if tall else _blocks(rows):
        for column_shift, (left, right) in _blocks(columns):
            if abs(row_shift) >= height or abs(column_shift) >= width:
                continue  # these taps read only padding
            # The moved copy has no name, so it is freed before the next one is made in the same memory.
            block = _block_gradient(_moved(x, row_shift, column_shift), grad, padding)
            y, z = padding - row_shift, 1 - column_shift
            block = block[:, :, y + top : y + bottom + 1, z + left : z + right + 1]
            result[:, :, top - rows[0] : bottom - rows[0] + 1, left - columns[0] : right - columns[0] + 1] = block
    return result


def _blocks(offsets: Offsets) -> list[tuple[int, Offsets]]:
    """Return (shift, offsets) of blocks 3 wide, moved by `shift`, that together cover `offsets`.

    Moving the input cuts off its far end, which makes the tap at that side of the block wrong. Therefore a moved block
    gives two taps, and the block that is not moved gives three.
    """
    first, last = offsets
    blocks = [(0, (max(first, -1), min(last, 1)))]
    blocks += [(shift, (shift, min(last, shift + 1))) for shift in range(2, last + 1, 2)]
    blocks += [(-shift, (max(first, -shift - 1), -shift)) for shift in range(2, -first + 1, 2)]
    return blocks


def _moved(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return x moved: place (i, j) has the value from (i + rows, j + columns), or zero outside of x."""
    if rows == columns == 0:
        return x
    return _channels_last(functional.pad(x, (-columns, columns, -rows, rows)))


def _block_gradient(x: Tensor, grad: Tensor, row_padding: int) -> Tensor:
    """Return the gradient of weights (C, 1, 2 row_padding + 1, 3)."""
    weight = x.new_empty(x.shape[1], 1, 2 * row_padding + 1, 3)
    return _convolution_backward(x, weight, grad, 1, row_padding, 1, (False, True, False))[1]


def _convolution_backward(
    x: Tensor,
    weight: Tensor,
    grad: Tensor,
    stride: int,
    row_padding: int,
    column_padding: int,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the `wanted` gradients of input, weight and bias of a depthwise convolution."""
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        [stride, stride],
        [row_padding, column_padding],
        [1, 1],
        False,
        [0, 0],
        x.shape[1],
        list(wanted),
    )
    return gradients
