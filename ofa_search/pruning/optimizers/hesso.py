"""HESSO: hybrid efficient structured sparse optimizer (Chen et al., arXiv 2409.09085)."""

from __future__ import annotations

from ofa_search.pruning.optimizers.base import PruningOptimizer


class HESSO(PruningOptimizer):
    """Units that leave are multiplied by (T - t - 1) / (T - t) after step t of T: in equal steps to exact zero."""

    name = "hesso"

    def _lead_to_zero(self) -> None:
        self._decay()
