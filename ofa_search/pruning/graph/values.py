"""What the analysis knows about the tensors between operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ofa_search.pruning.graph.classes import NONE, Labels

Array = NDArray[Any]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter or buffer as it is, or with its axes in another order. -1 is an axis of size 1 that it lacks."""

    name: str  # in the state dict
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor. `labels` and `zero` have its number of axes, with size 1 where all elements along an axis are alike."""

    shape: tuple[int, ...]
    labels: Labels
    #: Whether the elements are exactly zero if what makes their label is zero.
    zero: Flags
    parameter: Parameter | None = None
    #: Its elements, where no input and no parameter has a say in them; for buffers, which is which.
    constant: torch.Tensor | None = field(default=None, repr=False)
    #: Whether no input has a say in it.
    static: bool = False
    #: Axes along which it was just expanded from a size of 1.
    copies: tuple[int, ...] = ()

    @property
    def axes(self) -> int:
        return len(self.shape)


def plain(shape: Sequence[int], code: int = NONE) -> Value:
    """A value without labels."""
    ones = (1,) * len(shape)
    return Value(tuple(shape), np.full(ones, code, np.int64), np.zeros(ones, np.bool_))


def full(array: Array, shape: Sequence[int]) -> Array:
    """Labels or flags of the full size of the tensor."""
    return np.broadcast_to(array, tuple(shape))


def reshaped(array: Array, old: Sequence[int], new: Sequence[int]) -> Array:
    """Labels or flags for a tensor of shape `old` after it was viewed as `new`.

    Only axes that are split or merged and have labels are written out in full.
    """
    sizes: list[int] = []
    expanded: list[int] = []
    for old_axes, new_axes in blocks(old, new):
        mine = [array.shape[axis] for axis in old_axes]
        if prod(mine) == 1:
            expanded += [1] * len(old_axes)
            sizes += [1] * len(new_axes)
        else:
            expanded += [old[axis] for axis in old_axes]
            sizes += [new[axis] for axis in new_axes]
    return np.broadcast_to(array, expanded).reshape(sizes)


def blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes of two shapes that have the same number of elements."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = ([i] if i < len(old) else []), ([j] if j < len(new) else [])
        i, j = i + len(left), j + len(right)
        while prod(old[a] for a in left) != prod(new[a] for a in right):
            if prod(old[a] for a in left) < prod(new[a] for a in right):
                left.append(i)
                i += 1
            else:
                right.append(j)
                j += 1
        found.append((left, right))
    return found


def moved(value: Value, shape: Sequence[int], move: Callable[[Array], Array]) -> Value:
    """A value whose elements are those of another in another order, or a part of them."""
    return Value(tuple(shape), move(value.labels), move(value.zero))


def known(tensor: torch.Tensor) -> Value:
    """A value whose elements are known."""
    value = plain(tensor.shape)
    return Value(value.shape, value.labels, value.zero, constant=tensor, static=True)


def parameter(name: str, shape: Sequence[int], *, buffer: bool = False) -> Value:
    """A parameter as it is; a buffer has numbers that tell later where an element is used several times."""
    value = plain(shape)
    own = Parameter(name, tuple(range(len(shape))))
    places = torch.arange(prod(shape), dtype=torch.float64).reshape(tuple(shape)) if buffer else None
    return Value(value.shape, value.labels, value.zero, own, places, static=True)
