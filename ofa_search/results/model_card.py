"""The model card: what an exported model file says about itself, in its metadata.

    space               name of the search space
    architecture        JSON: the network, as `Architecture.from_json` reads it
    weights             `trained`, or `untrained` for made-up weights
    accuracy            JSON: what was predicted, or measured, and on which images
    preprocessing       JSON: how an image becomes the input
    labels              JSON: the names of the classes in order, or null
    tool                the command that wrote the file, and its version
    forms               JSON: how layers are written in this file, by group of layers; {} for all plain
    runtime_options     JSON: the settings of the runtime under which the latency table was measured, or null
    predicted_accuracy  JSON: top-1 in [0, 1], or null       (three fields of networks of a search)
    latency_ms          JSON: milliseconds by the name of the latency table
    budget_ms           JSON: the same, what the search was allowed
    precision           `int8` or `mixed`                   (three fields of such files, which `export_network` adds)
    ranges              where its ranges come from, one of `ofa_profiler.networks.ranges.SOURCES`
    precisions          JSON: block -> `fp32` or `int8`     (`mixed` only)

`examples/classify.py` reads these fields without this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ofa_profiler.base.version import __version__
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import get_space
from ofa_search.results.deployments import Deployment

TRAINED, UNTRAINED = "trained", "untrained"
#: How training, recalibration and evaluation bring images to a resolution (`data/decoding.py`, `data/batches.py`).
CROP, RESIZE = "centred square", "bilinear, antialiased"


@dataclass(frozen=True)
class SearchFacts:
    """The three fields that only the network of a search has. Milliseconds are by table name."""

    predicted_accuracy: float | None
    latency_ms: Mapping[str, float]
    budget_ms: Mapping[str, float]


@dataclass(frozen=True)
class ModelCard:
    """The fields above. `tool` is the command without its version."""

    tool: str
    architecture: Architecture
    weights: str
    accuracy: Mapping[str, Any]
    labels: tuple[str, ...] | None = None
    search: SearchFacts | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that the JSON document of a command has too."""
        return {
            "weights": self.weights,
            "accuracy": dict(self.accuracy),
            "preprocessing": self.preprocessing(),
            "labels": None if self.labels is None else list(self.labels),
        }

    def metadata(self, deployment: Deployment | None = None) -> dict[str, str]:
        """All fields, as they are stored in a model file."""
        deployment = deployment or Deployment()
        fields = {"architecture": self.architecture.to_json(), **self.to_json()}
        fields |= {"forms": deployment.forms.to_json(), "runtime_options": deployment.runtime_options}
        weights = fields.pop("weights")
        if self.search is not None:
            fields |= asdict(self.search)
        texts = {"space": self.architecture.space, "weights": weights, "tool": f"{self.tool} {__version__}"}
        return texts | {name: json.dumps(value) for name, value in fields.items()}

    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes the input: cropped, resized, scaled to `range`, then (x - mean) / std."""
        steps = get_space(self.architecture.space).preprocessing
        return {
            "crop": CROP,
            "resize": RESIZE,
            "mean": list(steps.mean),
            "std": list(steps.std),
            "resolution": self.architecture.resolution,
            "channels": steps.channels,
            "range": list(steps.range),
        }
