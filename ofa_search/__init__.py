"""Picks the best architecture of a search space for a latency budget, and cuts it out of the supernet.

table, predictor = LatencyTable.load("note10/"), AccuracyPredictor.load("acc_predictor.pth")
result = search("ofa-mbv3-w1.2", [(table, 25.0)], predictor, seed=0)
result.architecture, result.predicted_accuracy, result.latency_ms
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ofa_profiler.base.extras import need
from ofa_search.predictor import AccuracyPredictor
from ofa_search.searching.api import SearchResult, search, search_each
from ofa_search.searching.objectives import Macs, Objective, PredictedAccuracy

if TYPE_CHECKING:
    from ofa_search.supernet.supernet import Supernet

__all__ = [
    "AccuracyPredictor",
    "Macs",
    "Objective",
    "PredictedAccuracy",
    "SearchResult",
    "Supernet",
    "search",
    "search_each",
]


def __getattr__(name: str) -> Any:
    """`Supernet` on first use: it needs torch, which no search needs."""
    if name == "Supernet":
        need("torch", extra="train", purpose="Supernet")
        from ofa_search.supernet.supernet import Supernet

        return Supernet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
