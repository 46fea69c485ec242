"""Accuracy predictors on disk: our own files, and those that the OFA authors publish.

Ours is `NAME.safetensors`: the layers in float32 under the names that `torch.nn.Sequential` gives them, and
in the file's own metadata a JSON text that says what they are. `NAME.json` beside it is a copy of that text
for people and scripts; it is never read back, so the two cannot contradict each other.

    format        1
    space         the search space, and `n_classes` of its networks
    features      `kinds`, the genes that are one-hot, in order, and `resolutions`, the last features
    hidden        the widths of the hidden layers
    accuracy_of   what the accuracies were measured on, or null
    metrics       on architectures it was not fitted to: `rmse` in points, `kendall_tau`, `spearman`,
                  `samples`; or null
    offset        to be added for the accuracy on the test images, as a fraction
    transfer      of mixed precision only: `from`, the predictor of fp32, and its errors on the same architectures,
                  `metrics_before`
    tool_version  of this package

`ofa_predictors` reads the authors' files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import ofa_profiler
from ofa_profiler.base.files import replacing, write_text
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import SearchSpace, known_space
from ofa_profiler.spaces.genes import RESOLUTION
from ofa_search.artifacts.folders import refuse_folder
from ofa_search.predictor.features import Features
from ofa_search.predictor.layers import PredictorData, linear_layers
from ofa_search.predictor.ofa_predictors import MAX_BYTES, load_published
from ofa_search.predictor.quality import Metrics

Array = NDArray[Any]

FORMAT = 1
_METADATA_KEY = "accuracy_predictor"
_SUFFIX = ".safetensors"


def load_predictor(path: Path) -> PredictorData:
    """See `AccuracyPredictor.load`."""
    if path.suffix == ".json":
        path = path.with_suffix(_SUFFIX)
    refuse_folder(path)
    return _load_own(path) if path.suffix == _SUFFIX else load_published(path)


def save_predictor(predictor: PredictorData, path: Path, metadata: Mapping[str, Any]) -> Path:
    """See `AccuracyPredictor.save`."""
    if path.suffix != _SUFFIX:
        path = path.with_name(path.name + _SUFFIX)
    description = {
        "format": FORMAT,
        "space": predictor.space,
        "n_classes": predictor.n_classes,
        "features": {"kinds": list(predictor.features.kinds), "resolutions": list(predictor.features.resolutions)},
        "hidden": [len(layer.bias) for layer in predictor.layers[:-1]],
        "accuracy_of": predictor.accuracy_of,
        "metrics": predictor.metrics.to_json() if predictor.metrics is not None else None,
        "offset": predictor.offset,
        "tool_version": ofa_profiler.__version__,
        **metadata,
    }
    text = json.dumps(description, indent=2, allow_nan=False)
    tensors = {}
    for number, layer in enumerate(predictor.layers):
        tensors[f"{2 * number}.weight"] = np.ascontiguousarray(layer.weight.T)
        tensors[f"{2 * number}.bias"] = layer.bias
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_METADATA_KEY: text})
    write_text(path.with_suffix(".json"), text + "\n")
    return path


def _load_own(path: Path) -> PredictorData:
    description, arrays = _read_own(path)
    if description.get("format") != FORMAT:
        raise InputFileError(path, f"format {_short(description.get('format'))}, this version reads {FORMAT}")
    layers = linear_layers(path, arrays)
    try:
        space = known_space(_expect(description, "space", str))
        n_classes = _expect(description, "n_classes", int)
        if n_classes < 1:
            raise UsageError(f"'n_classes' is {n_classes}, not a positive number")
        features = _features(_expect(description, "features", dict), space)
        known, needed = len(layers[0].weight), features.count(space)
        if known != needed:
            raise UsageError(f"its first layer takes {known} features; its description gives {needed}")
        hidden = [len(layer.bias) for layer in layers[:-1]]
        if description.get("hidden") != hidden:
            raise UsageError(f"its hidden layers are {hidden}, not {_short(description.get('hidden'))}")
        accuracy_of = description.get("accuracy_of")
        return PredictorData(
            path.stem,
            space.name,
            features,
            layers,
            n_classes,
            accuracy_of=_expect(description, "accuracy_of", str) if accuracy_of is not None else None,
            metrics=_metrics(description.get("metrics")),
            offset=_number(description, "offset"),
        )
    except UsageError as error:
        raise InputFileError(path, str(error)) from None


def _read_own(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """The description and the arrays of a file that `save_predictor` wrote."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputFileError(path, f"larger than {MAX_BYTES >> 20} MiB, too large for a predictor")
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            if text is None:
                raise InputFileError(path, "a safetensors file, but not of an accuracy predictor")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except (SafetensorError, TypeError, AttributeError) as error:  # the latter two: types that numpy lacks
        raise InputFileError(path, f"not a safetensors file of numpy arrays, or cut short ({error})") from error
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise InputFileError(path, "its description is not a JSON object")
    return description, arrays


# --- the description ---------------------------------------------------------------------------------


def _features(data: Mapping[str, Any], space: SearchSpace) -> Features:
    kinds, resolutions = _expect(data, "kinds", list), _expect(data, "resolutions", list)
    known = {gene.kind for gene in space.genes} - {RESOLUTION}
    if not all(isinstance(kind, str) and kind in known for kind in kinds) or len(set(kinds)) != len(kinds):
        raise UsageError(f"its features are of the kinds {_short(kinds)}; {space.name} has {', '.join(sorted(known))}")
    valid = space.valid_resolutions
    if bool(resolutions) != bool(valid) or not all(type(r) is int and r in valid for r in resolutions):
        raise UsageError(f"its features are of the resolutions {_short(resolutions)}, which {space.name} has not")
    if sorted(set(resolutions)) != resolutions:
        raise UsageError(f"the resolutions of its features, {_short(resolutions)}, are not in ascending order")
    return Features(tuple(kinds), tuple(resolutions))


def _metrics(data: Any) -> Metrics | None:
    if data is None:
        return None
    if not isinstance(data, dict):
        raise UsageError(f"'metrics' is {_short(data)}, not an object")
    tau, rho = (math.nan if data.get(name) is None else _number(data, name) for name in ("kendall_tau", "spearman"))
    return Metrics(_number(data, "rmse"), tau, rho, _expect(data, "samples", int))


def _number(data: Mapping[str, Any], name: str) -> float:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:  # NaN is not below
        raise UsageError(f"{name!r} is {_short(value)}, not a finite number")
    return float(value)


def _expect(data: Mapping[str, Any], name: str, kind: type) -> Any:
    value = data.get(name)
    if type(value) is not kind:
        raise UsageError(f"{name!r} is {_short(value)}, not {_WORDS[kind]}")
    return value


_WORDS: Mapping[type, str] = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}


def _short(value: Any) -> str:
    return f"{value!r:.60}"
