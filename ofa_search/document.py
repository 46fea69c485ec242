"""The document of `ofa-search --json`, and the files of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa_profiler import __version__
from ofa_profiler.architecture import Architecture
from ofa_profiler.files import replacing, write_text
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_search.api import SearchResult
from ofa_search.weights import WeightSource

SUMMARY = "search.json"


@dataclass(frozen=True)
class Found:
    """A search result with what became of it. `weights` is `trained` or `untrained`."""

    result: SearchResult
    weights: str
    files: Mapping[str, Path] = field(default_factory=dict)
    measured_latency_ms: Mapping[str, float] | None = None

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
            "weights": self.weights,
            "preprocessing": preprocessing(result.architecture),
            "labels": None,
            "files": {kind: str(path) for kind, path in self.files.items()},
            "measured_latency_ms": None if self.measured_latency_ms is None else dict(self.measured_latency_ms),
        }


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


def preprocessing(architecture: Architecture) -> dict[str, Any]:
    """What an image goes through before it is an input of this network."""
    steps = get_space(architecture.space).preprocessing
    return {
        "mean": list(steps.mean),
        "std": list(steps.std),
        "resolution": architecture.resolution,
        "channels": steps.channels,
        "range": list(steps.range),
    }


def model_metadata(result: SearchResult, weights: str) -> dict[str, str]:
    """What the model file says about itself; everything that is not a text is JSON."""
    return {
        "space": result.architecture.space,
        "architecture": json.dumps(result.architecture.to_json()),
        "weights": weights,
        "preprocessing": json.dumps(preprocessing(result.architecture)),
        "predicted_accuracy": json.dumps(result.predicted_accuracy),
        "latency_ms": json.dumps(dict(result.latency_ms)),
        "budget_ms": json.dumps(dict(result.budget_ms)),
        "tool": f"ofa-search {__version__}",
    }


# --- files -------------------------------------------------------------------------------------------


def write_networks(
    out: Path, results: Sequence[SearchResult], source: WeightSource, *, models: bool = True
) -> list[Found]:
    """Write every result's architecture and, with `models`, its ONNX model into `out`, named by budget.

    All of them or none. Raises `UsageError` when they cannot be written.
    """
    found = []
    with ExitStack() as files:  # each file gets its name only when all are written
        for result, stem in zip(results, file_stems(results), strict=True):
            paths = {"architecture": out / f"{stem}.json"}
            text = json.dumps(result.architecture.to_json(), indent=2) + "\n"
            files.enter_context(replacing(paths["architecture"])).write_text(text, encoding="utf-8")
            if models:
                paths["onnx"] = out / f"{stem}.onnx"
                export(result, source, files.enter_context(replacing(paths["onnx"])))
            found.append(Found(result, source.status, paths))
    return found


def export(result: SearchResult, source: WeightSource, path: Path, **how: Any) -> Path:
    """Write the network as a model; `how` goes to `export_network` (batch, precision, runtime)."""
    from ofa_profiler.export import export_network  # onnx is slow to import

    architecture = result.architecture
    metadata = model_metadata(result, source.status)
    space: SearchSpace = get_space(architecture.space)
    return export_network(space, architecture, source.of(architecture), path, metadata=metadata, **how)


def write_summary(out: Path, found: Sequence[Found]) -> None:
    """Write `search.json`."""
    write_text(out / SUMMARY, json.dumps(document(found), indent=2, allow_nan=False) + "\n")


def file_stems(results: Sequence[SearchResult]) -> list[str]:
    """`ofa-mbv3-w1.2-25ms`: space and the first table's budget, with a number where that is not unique."""
    stems: list[str] = []
    for result in results:
        stem = f"{result.architecture.space}-{next(iter(result.budget_ms.values())):g}ms"
        stems.append(stem if stem not in stems else f"{stem}-{len(stems)}")
    return stems
