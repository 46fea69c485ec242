"""All units of a network in one row, and sums and products over the parameters of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa_profiler.errors import UsageError
from ofa_search.pruning.groups import Axis, Dependencies, Kept


@dataclass(frozen=True, eq=False)
class _Slices:
    """The slices of a tensor along an axis that units make."""

    tensor: Tensor
    axis: int
    #: For each index along the axis: its unit, or the number of all units where it is of none.
    units: Tensor
    #: The units (U,) that are here, each once, and for each the indices (U, M) that it has, padded with -1.
    present: Tensor
    indices: Tensor

    def sums(self, terms: Tensor) -> Tensor:
        """For each of the units that are here: the sum of the terms (of the shape of the tensor) in its slices.

        They are added up in a fixed order, so that the same numbers give the same sums on any device.
        """
        others = [dim for dim in range(terms.ndim) if dim != self.axis]
        along = terms.sum(others) if others else terms
        return torch.cat([along.float(), along.new_zeros(1).float()])[self.indices].sum(1)

    def spread(self, values: Tensor, otherwise: float) -> Tensor:
        """A value per unit -> one per index, in a shape that broadcasts to the tensor."""
        along = torch.cat([values, values.new_full((1,), otherwise)])[self.units]
        return along.view([-1 if dim == self.axis else 1 for dim in range(self.tensor.ndim)])


class Units:
    """The units of all groups: those of the first group come first. Values per unit are tensors (N,)."""

    def __init__(self, module: nn.Module, dependencies: Dependencies) -> None:
        self.names = [group.name for group in dependencies.groups]
        self.counts = [group.n_units for group in dependencies.groups]
        self.total = sum(self.counts)
        parameters = dict(module.named_parameters(remove_duplicate=False))
        buffers = dict(module.named_buffers(remove_duplicate=False))
        self.parameters: list[_Slices] = []
        self._buffers: list[_Slices] = []
        first = 0
        for group in dependencies.groups:
            for axis in group.made:
                if axis.tensor in parameters:
                    self.parameters.append(self._slices(parameters[axis.tensor], axis, first))
                elif axis.tensor in buffers:
                    self._buffers.append(self._slices(buffers[axis.tensor], axis, first))
                else:
                    raise UsageError(f"the group {group.name} is of another network: there is no {axis.tensor} here")
            first += group.n_units
        if not self.parameters:
            raise UsageError("nothing can be pruned: the network has no group of units")
        for slices in self.parameters:
            slices.tensor.requires_grad_(True)  # a frozen unit without gradients would seem to be worth nothing
        self.device = self.parameters[0].tensor.device
        self.sizes = self.sums(torch.ones_like)

    def _slices(self, tensor: Tensor, axis: Axis, first: int) -> _Slices:
        units = np.where(axis.units < 0, self.total, axis.units + first)
        if len(units) != tensor.shape[axis.axis]:
            raise UsageError(f"{axis.tensor} has the shape {tuple(tensor.shape)}: the groups are of another network")
        present, inverse, repeats = np.unique(units, return_inverse=True, return_counts=True)
        indices = np.full((len(present), repeats.max()), -1)
        order = np.argsort(inverse, kind="stable")
        places = np.arange(len(units)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        indices[inverse[order], places] = order
        some = present < self.total
        arrays = (units, present[some], indices[some])
        return _Slices(tensor, axis.axis, *(torch.from_numpy(array).to(tensor.device) for array in arrays))

    @torch.no_grad()
    def sums(self, terms: Callable[[Tensor], Tensor | None]) -> Tensor:
        """Sums over all parameters of each unit; `terms` gives those of a parameter, or None for zeros."""
        totals = torch.zeros(self.total, device=self.device)
        for slices in self.parameters:
            found = terms(slices.tensor)
            if found is not None:
                totals.index_add_(0, slices.present, slices.sums(found))
        return totals

    @torch.no_grad()
    def scale(self, factors: Tensor) -> None:
        """Multiply all parameters of each unit."""
        for slices in self.parameters:
            slices.tensor.mul_(slices.spread(factors, 1.0))

    @torch.no_grad()
    def erase(self, removed: Tensor) -> None:
        """Make the parameters and buffers of the `removed` units (N,) exactly zero."""
        for slices in self._all:
            slices.tensor.masked_fill_(slices.spread(removed, 0.0), 0)

    @torch.no_grad()
    def copied(self, which: Tensor, older: Sequence[Tensor] = ()) -> list[Tensor]:
        """All values of these units (N,), for `put_back`; those of other units are as in `older`, or zero."""
        tensors = [slices.tensor for slices in self._all]
        return [
            torch.where(slices.spread(which, 0.0), tensor, old)
            for slices, tensor, old in zip(self._all, tensors, older or map(torch.zeros_like, tensors), strict=True)
        ]

    @torch.no_grad()
    def put_back(self, which: Tensor, values: Sequence[Tensor]) -> None:
        """Give these units (N,) the values that were copied."""
        for slices, old in zip(self._all, values, strict=True):
            slices.tensor.copy_(torch.where(slices.spread(which, 0.0), old, slices.tensor))

    @property
    def _all(self) -> list[_Slices]:
        return [*self.parameters, *self._buffers]

    @torch.no_grad()
    def erase_gradients(self, removed: Tensor) -> None:
        """Make the gradients of the `removed` units exactly zero."""
        for slices in self.parameters:
            if slices.tensor.grad is not None:
                slices.tensor.grad.masked_fill_(slices.spread(removed, 0.0), 0)

    def by_group(self, values: Tensor) -> dict[str, NDArray[np.float64]]:
        """The values of each group, in double precision."""
        parts = torch.split(values.detach().cpu().to(torch.float64), self.counts)
        return {name: part.numpy() for name, part in zip(self.names, parts, strict=True)}

    def mask(self, kept: Kept) -> Tensor:
        """Whether each unit is kept. Raises `UsageError` for groups or units that do not exist."""
        if unknown := sorted(set(kept) - set(self.names)):
            raise UsageError(f"no group of units {unknown[0]!r}")
        parts = []
        for name, count in zip(self.names, self.counts, strict=True):
            part = np.ones(count, dtype=bool)
            if name in kept:
                units = np.asarray(kept[name], dtype=np.int64)
                if len(units) and not 0 <= units.min() <= units.max() < count:
                    raise UsageError(f"the group {name} has the units 0 to {count - 1}, not {units.max()}")
                part[:] = False
                part[units] = True
            parts.append(part)
        return torch.from_numpy(np.concatenate(parts)).to(self.device)

    def kept(self, mask: Tensor) -> dict[str, NDArray[np.int64]]:
        """The opposite of `mask`, with all groups."""
        parts = torch.split(mask.cpu(), self.counts)
        return {name: np.flatnonzero(part.numpy()) for name, part in zip(self.names, parts, strict=True)}
