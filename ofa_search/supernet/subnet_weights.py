"""Cuts the tensors of a subnet out of those of its supernet, for numpy arrays and torch tensors.

A subnet takes the first entries along each axis of a tensor of the supernet: the first channels. Only the kernel of a
convolution is cut differently: a smaller kernel is the centre of the next larger one, multiplied by a learned matrix,
7 -> 5 -> 3 (arXiv 1908.09791, section 3.3). The matrix from kernel size 7 to 5 is stored beside the `weight` as
`7to5_matrix`.

The elastic layers use `cut` in every forward pass, and the exporters get their weights from it. Therefore an exported
subnet computes the same as the subnet in the supernet.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeVar

from ofa_profiler.networks.blocks import Layout
from ofa_profiler.networks.parameters import parameter_shapes
from ofa_profiler.networks.tensors import Shape
from ofa_profiler.spaces import SearchSpace

#: `numpy.ndarray` or `torch.Tensor`: slices, `reshape`, `@` and `T` mean the same for both.
T = TypeVar("T", bound=Any)


def matrix_name(large: int, small: int) -> str:
    """Return the name of the matrix that makes kernels of size `small` from kernels of size `large`."""
    return f"{large}to{small}_matrix"


def cut(tensors: Mapping[str, T], name: str, shape: Shape) -> T:
    """Cut tensor `name` to a shape, as a view if possible. The kernel matrices must be in `tensors` too."""
    tensor = tensors[name]
    if len(shape) == 4 and tensor.shape[-1] > shape[-1]:
        return _with_kernel_size(tensors, name, shape)
    return tensor[tuple(map(slice, shape))]  # type: ignore[no-any-return]


def _with_kernel_size(tensors: Mapping[str, T], name: str, shape: Shape) -> T:
    prefix = name.removesuffix("weight")
    kernel = tensors[name][: shape[0], : shape[1]]
    while (large := kernel.shape[-1]) > shape[-1]:
        small = next(size for size in range(large - 1, 0, -1) if prefix + matrix_name(large, size) in tensors)
        border = (large - small) // 2
        centre = kernel[:, :, border : border + small, border : border + small].reshape(-1, small * small)
        matrix = tensors[prefix + matrix_name(large, small)]
        kernel = (centre @ matrix.T).reshape(*shape[:2], small, small)
    return kernel  # type: ignore[no-any-return]


def subnet_weights(layout: Layout, tensors: Mapping[str, T]) -> dict[str, T]:
    """Return weights and BatchNorm statistics of the subnet with this layout, named as in a static network."""
    return {name: cut(tensors, name, shape) for name, shape in parameter_shapes(layout).items()}


def supernet_shapes(space: SearchSpace) -> dict[str, Shape]:
    """Return name and shape of each tensor of a supernet: the largest of all choices, and the kernel matrices."""
    shapes: dict[str, Shape] = {}
    kernel_sizes: dict[str, set[int]] = {}
    for slot in space.slots:
        for op in space.slot_ops(slot):
            for name, shape in parameter_shapes([(slot.name, op)]).items():
                shapes[name] = tuple(map(max, shape, shapes.get(name, shape)))
                if len(shape) == 4:
                    kernel_sizes.setdefault(name, set()).add(shape[-1])
    for name, sizes in kernel_sizes.items():
        for large, small in pairwise(sorted(sizes, reverse=True)):
            shapes[name.removesuffix("weight") + matrix_name(large, small)] = (small**2, small**2)
    return shapes
