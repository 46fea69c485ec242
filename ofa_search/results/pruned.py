"""What `ofa-prune` found: the network before and after, as one JSON document, and the card in its model files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.files import write_text
from ofa_profiler.base.version import __version__
from ofa_profiler.models.image_input import ImageInput
from ofa_search.pruning.groups import Unprunable
from ofa_search.results.model_card import CROP, RESIZE, TRAINED

if TYPE_CHECKING:
    from torch import nn

TOOL = "ofa-prune"
#: A list of numbers in JSON with a line for each: indices fill most of a document.
_NUMBERS = re.compile(r"\[[-+.eE\d,\s]+\]")


@dataclass(frozen=True)
class NetworkFacts:
    """A network, before or after. Milliseconds that are not known are None; accuracies are by kind of images."""

    accuracy: Mapping[str, Any]
    measured_ms: float | None
    predicted_ms: float | None
    macs: int
    params: int
    size_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerChannels:
    """Output and input channels of a layer, before and after."""

    layer: str
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True)
class GroupUnits:
    """Units of a group, before and after."""

    group: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True)
class Latency:
    """Where the milliseconds come from: a table by its name, and the settings of its measurement."""

    table: str
    device: str
    settings: Mapping[str, Any]
    budget_ms: float
    #: Points that the table lacks and that were therefore not used; 0 where the device was there to measure them.
    missing_points: int = 0


@dataclass(frozen=True, eq=False)
class CutNetwork:
    """The pruned network, how it was cut out of the whole one (for `load_pruned`), and what is left."""

    module: nn.Module
    record: Mapping[str, Any]
    groups: tuple[GroupUnits, ...]
    layers: tuple[LayerChannels, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of the document about it."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "groups": [asdict(group) for group in self.groups],
            "record": dict(self.record),
        }


@dataclass(frozen=True)
class PrunedResult:
    """All of it. `tflite_reason` says why there is no TFLite file."""

    model: str
    image_input: ImageInput
    labels: tuple[str, ...]
    method: str
    pruned: CutNetwork
    before: NetworkFacts
    after: NetworkFacts
    unprunable: Sequence[Unprunable]
    latency: Latency
    training: Mapping[str, Any] | None
    files: Mapping[str, Path]
    tflite_reason: str | None = None

    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes the input, as in the card of other networks."""
        return preprocessing(self.image_input)

    def to_json(self) -> dict[str, Any]:
        """The document `NAME.json`."""
        return {
            "tool": f"{TOOL} {__version__}",
            "model": self.model,
            "input": list(self.image_input.shape),
            "method": self.method,
            "weights": TRAINED,
            "accuracy": dict(self.after.accuracy),
            "preprocessing": self.preprocessing(),
            "labels": list(self.labels),
            "budget_ms": self.latency.budget_ms,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "latency": {name: value for name, value in asdict(self.latency).items() if name != "budget_ms"},
            "unprunable": [asdict(each) for each in self.unprunable],
            "training": self.training,
            "files": {kind: path.name for kind, path in self.files.items()},
            "tflite_reason": self.tflite_reason,
            **self.pruned.to_json(),
        }


def write_document(result: PrunedResult, path: Path, report: Path | None) -> PrunedResult:
    """Write `NAME.json`, which names the report, and return the result with both files."""
    result = replace(result, files={**result.files, **({} if report is None else {"report": report})})
    text = json.dumps(result.to_json(), indent=2, allow_nan=False)
    write_text(path, _NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")
    return result


def preprocessing(image_input: ImageInput) -> dict[str, Any]:
    """How an image becomes the input: cropped, resized, scaled to `range`, then (x - mean) / std."""
    steps = image_input.preprocessing
    return {
        "crop": CROP,
        "resize": RESIZE,
        "mean": list(steps.mean),
        "std": list(steps.std),
        "resolution": image_input.resolution,
        "channels": steps.channels,
        "range": list(steps.range),
    }


def card(
    model: str,
    image_input: ImageInput,
    labels: Sequence[str],
    accuracy: Mapping[str, Any],
    latency: Latency,
    predicted_ms: float | None,
) -> dict[str, str]:
    """The metadata of the model files. The fields are those of `model_card.py`; `model` is the user's function."""
    texts = {"model": model, "weights": TRAINED, "tool": f"{TOOL} {__version__}"}
    fields = {
        "accuracy": dict(accuracy),
        "preprocessing": preprocessing(image_input),
        "labels": list(labels),
        "forms": {},
        "runtime_options": latency.settings.get("runtime_options"),
        "latency_ms": {latency.table: predicted_ms},
        "budget_ms": {latency.table: latency.budget_ms},
    }
    return texts | {name: json.dumps(value) for name, value in fields.items()}
