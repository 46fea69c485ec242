"""A predictor as a function of the choices of a space: what bounds of its accuracies need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import SearchSpace


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """Linear layers with ReLU between them, and one output, clipped to `low` and `high`.

    The input has a number for each choice of each gene of `space`, gene by gene: 1 if it is chosen and has an effect,
    else 0. A layer has a weight (inputs, outputs) and a bias (outputs,). `held` genes always have this choice.
    """

    space: SearchSpace
    layers: tuple[tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]], ...]
    low: float = -np.inf
    high: float = np.inf
    held: Mapping[int, int] = field(default_factory=dict)
