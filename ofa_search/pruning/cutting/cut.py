"""Removing units from a module, and doing the same to a fresh one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa_profiler.errors import UsageError
from ofa_search.pruning.cutting.attention import PrunedAttention
from ofa_search.pruning.cutting.record import Attribute, AttributeCut, CutRecord, TensorCut
from ofa_search.pruning.groups import Axis, Dependencies, Group, Kept

Removed = NDArray[np.bool_]


def cut(module: nn.Module, dependencies: Dependencies, kept: Kept) -> CutRecord:
    """Remove from the module, in place, the units that are not kept. Parameters stay the same objects.

    All groups are cut in one pass, and indices are those of the module as it is. A second cut needs the dependencies of
    what the first one left; the record of both is `first.then(second)`. Raises `UsageError` if a unit does not exist,
    if a group would become empty, or if the module is not the one whose dependencies these are.
    """
    removed: dict[tuple[str, int], Removed] = {}
    lost: dict[tuple[str, str, int | None], int] = {}
    for name, units in kept.items():
        group = dependencies.by_name.get(name)
        if group is None:
            raise UsageError(f"no group of the network is called {name!r:.80}")
        gone = _gone(group, units)
        for axis in (*group.made, *group.read):
            mask = removed.setdefault((axis.tensor, axis.axis), np.zeros(len(axis.units), np.bool_))
            mask |= _places(axis, gone)
        for size in group.sizes:
            key = (size.module, size.attribute, size.position)
            lost[key] = lost.get(key, 0) + int((gone[size.units] & (size.units >= 0)).sum())
    record = CutRecord(_tensor_cuts(module, removed), _attribute_cuts(module, lost))
    apply_record(module, record)
    _make_alike(module, dependencies)
    return record


def _make_alike(module: nn.Module, dependencies: Dependencies) -> None:
    """Replace attention that has kept all heads, too: torch exports its own with other operators."""
    for path in {size.module for group in dependencies.groups for size in group.sizes}:
        if type(owner := module.get_submodule(path)) is nn.MultiheadAttention:
            PrunedAttention.replace(owner)


def _gone(group: Group, units: NDArray[np.int64]) -> Removed:
    """Which units go. Raises `UsageError`."""
    units = np.asarray(units)
    ascending = len(units) > 0 and units.dtype.kind in "iu" and bool((np.diff(units) > 0).all())
    if not ascending or units[0] < 0 or units[-1] >= group.n_units:
        raise UsageError(f"{group.name}: the units that are kept are not ascending within 0 to {group.n_units - 1}")
    gone = np.ones(group.n_units, np.bool_)
    gone[units] = False
    return gone


def _places(axis: Axis, units: Removed) -> Removed:
    return np.asarray(units[axis.units] & (axis.units >= 0))


def _tensor_cuts(module: nn.Module, removed: Mapping[tuple[str, int], Removed]) -> tuple[TensorCut, ...]:
    """Under all names that a tensor has."""
    tensors = named_tensors(module)
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    found = []
    for (name, axis), mask in removed.items():
        if name not in tensors:
            raise UsageError(f"the network has no {name}: these are the groups of another one")
        if mask.any():
            indices = tuple(np.nonzero(~mask)[0].tolist())
            found += [TensorCut(each, axis, len(mask), indices) for each in names[id(tensors[name])]]
    return tuple(found)


def _attribute_cuts(module: nn.Module, lost: Mapping[tuple[str, str, int | None], int]) -> tuple[AttributeCut, ...]:
    values: dict[tuple[str, str], Attribute] = {}
    for (path, name, position), count in lost.items():
        before = values.get((path, name), getattr(module.get_submodule(path), name))
        if position is None:
            values[path, name] = before - count
        else:
            values[path, name] = tuple(size - count * (i == position) for i, size in enumerate(before))
    changed = {key: value for key, value in values.items() if value != getattr(module.get_submodule(key[0]), key[1])}
    return tuple(AttributeCut(*key, tuple(v) if isinstance(v, list) else v) for key, v in changed.items())


def apply_record(module: nn.Module, record: CutRecord) -> None:
    """Cut a module as another one was cut, in place. Its weights may be any.

    Raises `UsageError`, and leaves the module as it was, if it is not like the one that was cut.
    """
    tensors = named_tensors(module)
    for each in record.tensors:
        found = tensors.get(each.tensor)
        if found is None:
            raise UsageError(f"{type(module).__name__} has no {each.tensor}, which the record cuts")
        if each.axis >= found.dim() or found.shape[each.axis] != each.size:
            raise UsageError(
                f"{each.tensor} has shape {tuple(found.shape)}, and the record needs {each.size} along axis {each.axis}"
            )
    owners = [_owner(module, each) for each in record.attributes]
    done: set[tuple[int, int]] = set()
    for each in record.tensors:
        tensor = tensors[each.tensor]
        if (id(tensor), each.axis) not in done:  # some have several names
            done.add((id(tensor), each.axis))
            indices = torch.tensor(each.kept, device=tensor.device)
            tensor.data = tensor.data.index_select(each.axis, indices)
            tensor.grad = None
    for owner, change in zip(owners, record.attributes, strict=True):
        if isinstance(owner, nn.MultiheadAttention):
            PrunedAttention.replace(owner)
        as_list = isinstance(getattr(owner, change.attribute), list) and isinstance(change.value, tuple)
        setattr(owner, change.attribute, [*change.value] if as_list else change.value)  # type: ignore[misc]
    _forget(module)


def _forget(module: nn.Module) -> None:
    """Some modules keep results between calls in eval mode, like the biases of attention, until they train again."""
    before = [(each, each.training) for each in module.modules()]
    module.train()
    for each, training in before:
        each.training = training


def _owner(module: nn.Module, change: AttributeCut) -> nn.Module:
    try:
        owner = module.get_submodule(change.module)
    except AttributeError:
        raise UsageError(
            f"{type(module).__name__} has no module {change.module!r:.80}, which the record changes"
        ) from None
    held = vars(owner).get(change.attribute)
    wanted = tuple if isinstance(change.value, tuple) else int
    if type(held) is not int if wanted is int else not isinstance(held, list | tuple):
        raise UsageError(
            f"{change.module or 'the network'} has no {change.attribute!r:.80} that the record could change"
        )
    return owner


@torch.no_grad()
def zero_units(module: nn.Module, group: Group, units: NDArray[np.int64]) -> None:
    """Make the units contribute nothing, in place: a cut would not change what the network computes."""
    chosen = np.zeros(group.n_units, np.bool_)
    chosen[np.asarray(units)] = True
    tensors = named_tensors(module)
    for axis in group.made:
        tensor = tensors[axis.tensor]
        places = torch.from_numpy(np.nonzero(_places(axis, chosen))[0]).to(tensor.device)
        tensor.index_fill_(axis.axis, places, 0)


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, also those that have several names."""
    parameters, buffers = (get(remove_duplicate=False) for get in (module.named_parameters, module.named_buffers))
    return {**dict(parameters), **dict(buffers)}
