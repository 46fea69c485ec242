"""What an accuracy predictor consists of: its layers, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError
from ofa_search.predictor.features import Features
from ofa_search.predictor.quality import Metrics


@dataclass(frozen=True)
class Layer:
    """`x @ weight + bias`; weight (inputs, outputs), bias (outputs,), float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PredictorData:
    """Linear layers with ReLU between them. The last one has one output, the top-1 accuracy.

    `space` names the search space whose accuracies it learned, of networks for `n_classes` classes;
    `accuracy_of` says on what they were measured, and `metrics` how well it predicted those of
    architectures that it had not seen. `offset` is what has to be added to a prediction to get the
    accuracy on the test images, which no predictor ever sees.
    """

    name: str
    space: str
    features: Features
    layers: tuple[Layer, ...]
    n_classes: int
    accuracy_of: str | None = None
    metrics: Metrics | None = None
    offset: float = 0.0


def linear_layers(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[Layer, ...]:
    """The linear layers of a `torch.nn.Sequential` of Linear and ReLU: `0.weight`, `0.bias`, `2.weight`, …

    Raises `InputFileError`; `path` names the file in the message.
    """
    names = [f"{2 * i}" for i in range((len(arrays) + 1) // 2)]
    if not names or set(arrays) != {f"{name}.{part}" for name in names for part in ("weight", "bias")}:
        listed = ", ".join(list(arrays)[:4])
        raise InputFileError(path, f"is not an accuracy predictor: it holds {listed!r} and so on")
    layers: list[Layer] = []
    inputs: int | None = None
    for name in names:
        with np.errstate(over="ignore"):  # infinite then, and refused below
            weight, bias = (np.asarray(arrays[f"{name}.{part}"], np.float32) for part in ("weight", "bias"))
        outputs = weight.shape[0] if weight.ndim == 2 else 0
        if not outputs or weight.shape[1] != (inputs or weight.shape[1]) or bias.shape != (outputs,):
            raise InputFileError(path, f"layer {name} has shapes that do not fit: {weight.shape}, {bias.shape}")
        if not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise InputFileError(path, f"layer {name} holds values that are not finite")
        inputs = outputs
        layers.append(Layer(np.ascontiguousarray(weight.T), bias))
    if inputs != 1:
        raise InputFileError(path, f"the last layer has {inputs} outputs; an accuracy predictor has one")
    return tuple(layers)
