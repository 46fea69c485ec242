"""What an accuracy predictor consists of: its layers, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
