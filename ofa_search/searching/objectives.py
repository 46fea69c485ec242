"""What a search maximises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_search.predictor import AccuracyPredictor


class Objective(ABC):
    """A score of genomes; the higher, the better."""

    #: For people: "maximises ...".
    name: str

    def resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions of `space` that it can score."""
        return space.valid_resolutions

    @abstractmethod
    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        """Genomes (N, G) of `space` -> scores (N,)."""

    @abstractmethod
    def accuracy(self, score: float) -> float | None:
        """The top-1 accuracy in [0, 1] that a score stands for; None where it stands for none."""

    def about(self) -> dict[str, Any] | None:
        """Where that accuracy comes from, in JSON types; None where there is none."""
        return None


class PredictedAccuracy(Objective):
    """The accuracy that a predictor gives. Scores are its predictions; the accuracy adds its offset."""

    name = "predicted accuracy"

    def __init__(self, predictor: AccuracyPredictor) -> None:
        self.predictor = predictor

    def resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        return self.predictor.resolutions_of(space)

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        return self.predictor.predict_genomes(space, genomes)

    def accuracy(self, score: float) -> float | None:
        return min(max(score + self.predictor.offset, 0.0), 1.0)

    def about(self) -> dict[str, Any] | None:
        predictor = self.predictor
        return {
            "name": predictor.name,
            "space": predictor.space,
            "learned_from": predictor.accuracy_of,
            "metrics": predictor.metrics.to_json() if predictor.metrics is not None else None,
            "offset": predictor.offset,
        }


class Macs(Objective):
    """Multiply-accumulates: the stand-in for accuracy where no predictor was trained.

    Within one family of networks, more computation mostly means more accuracy.
    """

    name = "MACs"

    def __init__(self) -> None:
        self._cost: AdditiveCost | None = None

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        if self._cost is None or self._cost.space != space:
            self._cost = AdditiveCost.from_ops(space, lambda op: op.macs)
        return self._cost.evaluate(genomes)

    def accuracy(self, score: float) -> float | None:  # noqa: ARG002
        return None
