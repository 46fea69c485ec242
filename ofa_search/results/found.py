"""The document of `ofa-search --json`, and the files of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import replacing, write_text
from ofa_profiler.base.version import __version__
from ofa_profiler.export import export_network
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import runtimes
from ofa_profiler.spaces import get_space
from ofa_search.results.weight_source import WeightSource
from ofa_search.searching.api import SearchResult
from ofa_search.searching.objectives import Objective

SUMMARY = "search.json"
#: How training, recalibration and evaluation bring images to a resolution (`training/decoding.py`, `batches.py`).
_CROP, _RESIZE = "centred square", "bilinear, antialiased"


@dataclass(frozen=True)
class Found:
    """A search result, where its accuracy and its weights come from, and what became of it."""

    result: SearchResult
    objective: Objective
    source: WeightSource
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
            "weights": self.source.status,
            "accuracy": self.accuracy(),
            "preprocessing": preprocessing(result.architecture),
            "labels": self.labels(),
            "files": {kind: str(path) for kind, path in self.files.items()},
            "measured_latency_ms": None if self.measured_latency_ms is None else dict(self.measured_latency_ms),
        }

    def labels(self) -> list[str] | None:
        """The names of the classes, in order."""
        return None if self.source.labels is None else list(self.source.labels)

    def accuracy(self) -> dict[str, Any]:
        """The predicted accuracy, what it rests on, and what was measured on the supernet."""
        source = self.source
        return {
            "predicted": self.result.predicted_accuracy,
            "predictor": self.objective.about(),
            "supernet": None if source.supernet is None else {"name": source.supernet, "measured": source.accuracy},
        }

    def metadata(self) -> dict[str, str]:
        """What the model file says about itself; everything that is not a text is JSON."""
        result = self.result
        return {
            "space": result.architecture.space,
            "architecture": json.dumps(result.architecture.to_json()),
            "weights": self.source.status,
            "accuracy": json.dumps(self.accuracy()),
            "preprocessing": json.dumps(preprocessing(result.architecture)),
            "labels": json.dumps(self.labels()),
            "predicted_accuracy": json.dumps(result.predicted_accuracy),
            "latency_ms": json.dumps(dict(result.latency_ms)),
            "budget_ms": json.dumps(dict(result.budget_ms)),
            "tool": f"ofa-search {__version__}",
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
    """What an image goes through before it is an input: cut, resized, scaled to `range`, then (x - mean) / std."""
    steps = get_space(architecture.space).preprocessing
    return {
        "crop": _CROP,
        "resize": _RESIZE,
        "mean": list(steps.mean),
        "std": list(steps.std),
        "resolution": architecture.resolution,
        "channels": steps.channels,
        "range": list(steps.range),
    }


# --- files -------------------------------------------------------------------------------------------


def write_networks(out: Path, found: Sequence[Found], *, models: bool = True) -> list[Found]:
    """Write every architecture and, with `models`, a model for each runtime into `out`, named by budget.

    All of them or none. Returns `found` with the paths. Raises `UsageError` when they cannot be written.
    """
    written = []
    with ExitStack() as files:  # each file gets its name only when all are written
        for network, stem in zip(found, file_stems(found), strict=True):
            paths = {"architecture": out / f"{stem}.json"}
            text = json.dumps(network.result.architecture.to_json(), indent=2) + "\n"
            files.enter_context(replacing(paths["architecture"])).write_text(text, encoding="utf-8")
            for suffix, runtime in _formats().items() if models else ():
                kind = suffix.removeprefix(".")
                paths[kind] = out / f"{stem}{suffix}"
                export(network, files.enter_context(replacing(paths[kind])), Target(runtime))
            written.append(replace(network, files=paths))
    return written


def _formats() -> dict[str, str]:
    """The kinds of model file, as suffixes, and the runtime of each."""
    formats: dict[str, str] = {}
    for runtime in runtimes().values():
        formats.setdefault(runtime.suffix, runtime.name)
    return formats


def export(network: Found, path: Path, target: Target) -> Path:
    """Write the network as a model."""
    architecture, source = network.result.architecture, network.source
    weights = source.of(architecture)
    return export_network(source.space, architecture, weights, path, target, metadata=network.metadata())


def write_summary(out: Path, found: Sequence[Found]) -> None:
    """Write `search.json`."""
    write_text(out / SUMMARY, json.dumps(document(found), indent=2, allow_nan=False) + "\n")


def file_stems(found: Sequence[Found]) -> list[str]:
    """`ofa-mbv3-w1.2-25ms`: space and the first table's budget, with a number where that is not unique."""
    stems: list[str] = []
    for network in found:
        stem = f"{network.result.architecture.space}-{next(iter(network.result.budget_ms.values())):g}ms"
        stems.append(stem if stem not in stems else f"{stem}-{len(stems)}")
    return stems
