"""What rounding explains, and what it does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa_search.pruning.conversion.rounding import TOLERANCE, tolerance_of


class Cancelling(nn.Linear):
    """A small result of large numbers, of which float32 keeps three digits."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) + 1e4) - 1e4


class InFloat32(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def test_a_network_that_rounding_changes_may_differ_more() -> None:
    torch.manual_seed(0)
    x = [torch.randn(1, 8)]
    assert tolerance_of(nn.Linear(8, 4), x) == TOLERANCE
    assert 1e-3 < tolerance_of(Cancelling(8, 4), x) <= 1e-2
    assert tolerance_of(InFloat32(8, 4), x) == TOLERANCE
