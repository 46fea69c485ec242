"""How far a file may be from the module that it was written from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ofa_profiler.models.torch_export import evaluated

if TYPE_CHECKING:
    import torch

#: The largest difference between outputs, as a fraction of the largest output.
TOLERANCE = 1e-4
#: Two ways to add up in float32 are apart by so many times what torch's own way is off, at most.
_TIMES_ROUNDING = 10.0
_MOST = 1e-2


def tolerance_of(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> float:
    """`TOLERANCE`, or more for a network in which rounding makes large differences, like one that was hardly trained.

    What rounding does is told by its outputs in float64.
    """
    import torch

    with evaluated(module), torch.no_grad():
        found = _tensors(module(*inputs))
        try:
            exact = _tensors(copy.deepcopy(module).double()(*(tensor.double() for tensor in inputs)))
        except Exception:  # code of users may need float32
            return TOLERANCE
    off = [float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) for a, b in zip(found, exact, strict=True)]
    return min(max(TOLERANCE, _TIMES_ROUNDING * max(off)), _MOST)


def _tensors(outputs: object) -> list[torch.Tensor]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]  # type: ignore[list-item]
