"""The networks of a search, and the document that `ofa-search --json` prints about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.results.deployments import Deployment
from ofa_search.results.model_card import ModelCard, SearchFacts
from ofa_search.results.weight_source import WeightSource
from ofa_search.searching.api import SearchResult
from ofa_search.searching.objectives import Objective

if TYPE_CHECKING:
    from ofa_search.searching.around import Change

#: The kind of the file that describes the architecture. All other files are models.
ARCHITECTURE = "architecture"


@dataclass(frozen=True)
class Found:
    """A search result, the origins of its accuracy and its weights, its files, and what was measured."""

    result: SearchResult
    objective: Objective
    source: WeightSource
    #: By runtime; models for other runtimes are plain.
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    precision: str = "fp32"
    files: Mapping[str, Path] = field(default_factory=dict)
    #: The memory in bytes that a model file takes when it runs, by its kind, such as `tflite` (`memory.py`), if known.
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    measured_latency_ms: Mapping[str, float] | None = None
    #: The mean relative difference between the even and the odd rounds of the session in which it was measured.
    noise: float = 0.0
    #: All networks that were measured for its budget, this one included.
    finalists: tuple[Found, ...] = ()
    #: Every change of one choice, if that is wanted.
    changes: tuple[Change, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """One of the `results` of the document."""
        result = self.result
        return {
            "architecture": result.architecture.to_json(),
            "predicted_accuracy": result.predicted_accuracy,
            "latency_ms": dict(result.latency_ms),
            "budget_ms": dict(result.budget_ms),
            "macs": result.macs,
            "params": result.params,
            **self.card().to_json(),
            "forms": {name: found.forms.to_json() for name, found in self.deployments.items() if found.forms},
            "files": {kind: str(path) for kind, path in self.files.items()},
            "latency_interval_ms": {name: ends and list(ends) for name, ends in result.latency_interval_ms.items()},
            "measured_latency_ms": None if self.measured_latency_ms is None else dict(self.measured_latency_ms),
            "precision": self.precision,
            "ranges": self.source.ranges if self.precision != "fp32" else None,
            "size_bytes": dict(self.size_bytes),
            "peak_memory_bytes": {kind: self.memory_bytes.get(kind) for kind in self.size_bytes},
            "precisions": self.precisions,
            "score": result.score,
            "gap": result.gap,
            "bound": result.bound if result.predicted_accuracy is None else self.accuracy_bound,
            "is_optimal": result.is_optimal,
            "changes": None if self.changes is None else [change.to_json() for change in self.changes],
        }

    @property
    def accuracy_bound(self) -> float | None:
        """The bound as an accuracy; None if there is no bound, or it bounds something else."""
        return None if self.result.bound is None else self.objective.accuracy(self.result.bound)

    @property
    def precisions(self) -> dict[str, str] | None:
        """The precision of each slot, in mixed precision."""
        space = self.source.space
        return space.precisions(self.result.architecture) if isinstance(space, MixedSpace) else None

    @property
    def size_bytes(self) -> dict[str, int]:
        """The bytes of each model file, by its kind."""
        return {kind: path.stat().st_size for kind, path in self.files.items() if kind != ARCHITECTURE}

    def card(self) -> ModelCard:
        """What its model files say."""
        result, source = self.result, self.source
        return ModelCard(
            tool="ofa-search",
            architecture=result.architecture,
            weights=source.status,
            accuracy={
                "predicted": result.predicted_accuracy,
                "predictor": self.objective.about(),
                "supernet": None if source.supernet is None else {"name": source.supernet, "measured": source.accuracy},
            },
            labels=source.labels,
            search=SearchFacts(result.predicted_accuracy, dict(result.latency_ms), dict(result.budget_ms)),
        )


def document(found: Sequence[Found]) -> dict[str, Any]:
    """What `ofa-search --json` prints and `search.json` holds."""
    first = found[0].result
    return {
        "space": first.architecture.space,
        "engine": first.engine,
        "seed": first.seed,
        "evaluations": sum(f.result.evaluations for f in found),
        "search_seconds": sum(f.result.search_seconds for f in found),
        "results": [f.to_json() for f in found],
    }
