"""Proof by trial: a network with units that are zero computes the same as one without them."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa_search.pruning.cutting.cut import cut, zero_units
from ofa_search.pruning.graph.tracing import Inputs, one_line, quiet
from ofa_search.pruning.groups import Dependencies, Group

#: A deviation relative to the largest output, in the precision of the trial: float64, where the network can do that.
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
_LARGEST_IN_FLOAT64 = 40_000_000  # parameters: larger networks would take twice the memory
_SHARE = 4  # one in so many units goes


@dataclass(frozen=True)
class Failure:
    """Why some units cannot be removed, and the path of the module in whose forward that was seen, if it was."""

    reason: str
    where: str | None = None

    def suspects(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that have parameters in that module, or in the smallest one around it that has any."""
        where = self.where
        while where:
            inside = f"{where}."
            found = [g for g in groups if any(axis.tensor.startswith(inside) for axis in (*g.made, *g.read))]
            if found:
                return found
            where = where.rpartition(".")[0]
        return []


@dataclass(frozen=True, eq=False)
class Trial:
    """A network with weights that hide nothing, and inputs."""

    module: nn.Module
    inputs: Inputs
    precision: torch.dtype

    def failure(self, dependencies: Dependencies, groups: Sequence[Group]) -> Failure | None:
        """Why units of these groups cannot be removed, or None if they can."""
        whole = copy.deepcopy(self.module)
        kept = {group.name: kept_units(group) for group in groups}
        for group in groups:
            zero_units(whole, group, np.setdiff1d(np.arange(group.n_units), kept[group.name]))
        smaller = copy.deepcopy(whole)
        entered = _watched(smaller)
        try:
            cut(smaller, dependencies, kept)
            found = run(smaller, self.inputs)
        except Exception as error:  # anything can happen in a user's code
            reason = f"its forward does not work without some of them: {one_line(error)}"
            return Failure(reason, entered[-1] if entered else None)
        expected = run(whole, self.inputs)
        if [tuple(each.shape) for each in found] != [tuple(each.shape) for each in expected]:
            return Failure("its outputs have another shape without some of them")
        return self._deviation(found, expected)

    def _deviation(self, found: Sequence[Tensor], expected: Sequence[Tensor]) -> Failure | None:
        for one, other in zip(found, expected, strict=True):
            scale = float(other.abs().max()) if other.numel() else 0.0
            worst = float((one - other).abs().max()) if other.numel() else 0.0
            if not worst <= _TOLERANCES[self.precision] * scale:
                share = worst / scale if scale else worst
                return Failure(f"its outputs change by {share:.1e} of the largest without some of them")
        return None


def _watched(module: nn.Module) -> list[str]:
    """The paths of the modules in whose forward it is, from the outer to the inner, while it runs."""
    inside: list[str] = []

    def leave(*_ignored: object) -> None:
        inside.pop()

    for path, each in module.named_modules():
        each.register_forward_pre_hook(lambda *_ignored, path=path: inside.append(path))
        each.register_forward_hook(leave)
    return inside


def kept_units(group: Group) -> NDArray[np.int64]:
    """The units that a trial keeps: about three quarters, always the same, another number in each group."""
    generator = np.random.default_rng(zlib.crc32(group.name.encode()))
    most = max(1, group.n_units // _SHARE)
    gone = int(generator.integers((most + 1) // 2, most, endpoint=True))
    return np.sort(generator.permutation(group.n_units)[gone:])


def proven(trial: Trial, dependencies: Dependencies) -> dict[str, str]:
    """The groups that fail, with the reason. The others pass together."""
    failed: dict[str, str] = {}
    waiting: list[list[Group]] = [list(dependencies.groups)] if dependencies.groups else []
    passed: list[Group] = []
    while waiting:
        groups = waiting.pop()
        failure = trial.failure(dependencies, [*passed, *groups])
        if failure is None:
            passed += groups
        elif len(groups) == 1:
            failed[groups[0].name] = failure.reason
        else:
            suspects = failure.suspects(groups)
            if not 0 < len(suspects) < len(groups):
                suspects = groups[len(groups) // 2 :]
            waiting += [suspects, [group for group in groups if group not in suspects]]
    return failed


def prepare(module: nn.Module, inputs: Inputs) -> Trial:
    """A trial with a copy of the module, whose constant parameters and statistics become random.

    Fresh networks have biases of zero, statistics of 0 and 1, and scales of 1: mistakes would not show. The batch has
    one more example if the network can do that, and numbers are float64 if it can do that.
    """
    module = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    _disturb(module, generator)
    more = _mapped(inputs, lambda tensor: _with_one_more(tensor, generator))
    for precision in _precisions(module):
        module = module.to(precision)
        for each in (more, inputs):
            trial = Trial(module, _mapped(each, partial(_as, precision=precision)), precision)
            if _works(trial):
                return trial
    return trial


def _precisions(module: nn.Module) -> list[torch.dtype]:
    size = sum(tensor.numel() for tensor in module.parameters())
    return [torch.float32] if size > _LARGEST_IN_FLOAT64 else [torch.float64, torch.float32]


def _works(trial: Trial) -> bool:
    try:
        outputs = run(trial.module, trial.inputs)
    except Exception:  # anything can happen in a user's code
        return False
    return bool(outputs) and all(bool(each.isfinite().all()) for each in outputs)


def run(module: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The outputs that are numbers, in any structure."""
    with torch.no_grad(), quiet():
        outputs = module(*inputs[0], **inputs[1])
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return [each.detach().clone() for each in leaves if isinstance(each, Tensor) and each.is_floating_point()]


@torch.no_grad()
def _disturb(module: nn.Module, generator: torch.Generator) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not tensor.is_floating_point() or tensor.numel() < 2 or bool((tensor != tensor.flatten()[0]).any()):
            continue
        noise = torch.rand(tensor.shape, generator=generator).to(tensor)
        low, high = (0.5, 1.5) if name.endswith("var") or float(tensor.flatten()[0]) != 0 else (-0.2, 0.2)
        tensor.copy_(low + (high - low) * noise)


def _with_one_more(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.dim():
        return tensor
    more = tensor[:1]
    if tensor.is_floating_point():
        more = more + torch.randn(more.shape, generator=generator).to(more)
    return torch.cat([tensor, more])


def _as(tensor: Tensor, *, precision: torch.dtype) -> Tensor:
    return tensor.to(precision) if tensor.is_floating_point() else tensor


def _mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return torch.utils._pytree.tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, inputs)  # type: ignore[no-any-return]
