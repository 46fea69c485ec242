"""Picks the best architecture of a search space for a latency budget, and cuts it out of the supernet.

table, predictor = LatencyTable.load("note10/"), AccuracyPredictor.load("acc_predictor.pth")
result = search("ofa-mbv3-w1.2", [(table, 25.0)], predictor, seed=0)
result.architecture, result.predicted_accuracy, result.latency_ms

Or makes a trained network of your own as fast as a budget asks: `prune`, and `load_pruned` to use it again.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than everything else here
if TYPE_CHECKING:
    from typing import Any

    from ofa_search.predictor import AccuracyPredictor
    from ofa_search.prune_api import Pruned, prune
    from ofa_search.pruning.cutting import load_pruned
    from ofa_search.searching.api import SearchResult, search, search_each
    from ofa_search.searching.functions.calling import in_batches
    from ofa_search.searching.functions.objective import FunctionObjective
    from ofa_search.searching.objectives import Macs, Objective, PredictedAccuracy
    from ofa_search.supernet.supernet import Supernet

#: What needs torch.
_WITH_TORCH = ("Pruned", "Supernet", "load_pruned", "prune")
#: Imported on first use: commands start at once, and torch is needed for a part only.
_HOMES = {
    "AccuracyPredictor": "ofa_search.predictor",
    "FunctionObjective": "ofa_search.searching.functions.objective",
    "Macs": "ofa_search.searching.objectives",
    "Objective": "ofa_search.searching.objectives",
    "PredictedAccuracy": "ofa_search.searching.objectives",
    "Pruned": "ofa_search.prune_api",
    "SearchResult": "ofa_search.searching.api",
    "Supernet": "ofa_search.supernet.supernet",
    "load_pruned": "ofa_search.pruning.cutting",
    "in_batches": "ofa_search.searching.functions.calling",
    "prune": "ofa_search.prune_api",
    "search": "ofa_search.searching.api",
    "search_each": "ofa_search.searching.api",
}

__all__ = [
    "AccuracyPredictor",
    "FunctionObjective",
    "Macs",
    "Objective",
    "PredictedAccuracy",
    "Pruned",
    "SearchResult",
    "Supernet",
    "in_batches",
    "load_pruned",
    "prune",
    "search",
    "search_each",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in _WITH_TORCH:
        from ofa_profiler.base.extras import need

        need("torch", extra="train", purpose=name)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
