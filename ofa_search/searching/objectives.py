"""What a search maximises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.mixed import PRECISIONS, MixedSpace
from ofa_search.predictor import AccuracyPredictor
from ofa_search.predictor.relu_network import ReluNetwork


class Objective(ABC):
    """A score of genomes; the higher, the better."""

    #: For people: "maximises ...".
    name: str
    #: How many architectures a search scores at most if no number is given; None: as many as its engine likes.
    #: An objective with a limit is expensive: it may use all cores, and has no gradients.
    default_evaluations: int | None = None
    #: The name of the engine that searches if none is named.
    default_engine: str = "evolutionary"

    def resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions of `space` that it can score."""
        return space.valid_resolutions

    @abstractmethod
    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        """Genomes (N, G) of `space` -> scores (N,)."""

    def gradients(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.floating[Any]] | None:  # noqa: ARG002
        """The value of each choice of each gene near genomes (N, G), as (N, sum of `n_choices`); None if unknown.

        A score changes by about the difference of these values, those of genes without effect left out. Engines find
        good changes by them.
        """
        return None

    def additive(self, space: SearchSpace) -> AdditiveCost | None:  # noqa: ARG002
        """The score as a finite sum over genes of `space`; None if it is none. Its maximum is found exactly."""
        return None

    def network(self, space: SearchSpace) -> ReluNetwork | None:  # noqa: ARG002
        """The score as a network of linear layers and ReLU; None if it is none. Such a score can be bounded.

        Its space has the genes of `space`, and may have more after them, which it holds.
        """
        return None

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

    def gradients(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.floating[Any]] | None:
        return self.predictor.gradients(space, genomes)

    def network(self, space: SearchSpace) -> ReluNetwork | None:
        return self.predictor.network(space)

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


class AccuracyInPrecision(PredictedAccuracy):
    """The accuracy of networks of a plain space in one precision, by a predictor of mixed precision.

    All slots have the same bits.
    """

    def __init__(self, predictor: AccuracyPredictor, precision: str) -> None:
        super().__init__(predictor)
        self._bits = list(PRECISIONS.values()).index(precision)

    def resolutions(self, space: SearchSpace) -> tuple[int, ...]:
        return self.predictor.resolutions_of(MixedSpace.of(space))

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        return super().scores(*self._mixed(space, genomes))

    def gradients(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.floating[Any]] | None:
        values = super().gradients(*self._mixed(space, genomes))
        # The genes of the bits come last.
        return None if values is None else values[:, : int(space.n_choices.sum())]

    def network(self, space: SearchSpace) -> ReluNetwork | None:
        mixed = MixedSpace.of(space)
        held = {mixed.bits_gene(slot): self._bits for slot in range(len(space.slots))}
        return replace(self.predictor.network(mixed), held=held)

    def _mixed(self, space: SearchSpace, genomes: Genomes) -> tuple[MixedSpace, Genomes]:
        mixed = MixedSpace.of(space)
        bits = np.full((len(genomes), len(space.slots)), self._bits, dtype=genomes.dtype)
        return mixed, mixed.canonical(np.hstack([genomes, bits]))


def predicted_accuracy(predictor: AccuracyPredictor, space: SearchSpace, precision: str) -> PredictedAccuracy:
    """The accuracy of networks of `space` in a precision: `fp32`, `int8`, or `mixed` for a space of mixed precision.

    A predictor of fp32 knows no bits: it gives all precisions of an architecture the accuracy of fp32. Raises
    `UsageError` for a predictor of other networks.
    """
    if isinstance(space, MixedSpace):
        predictor = predictor if predictor.knows_bits else predictor.widened(space)
        objective = PredictedAccuracy(predictor)
    elif predictor.knows_bits:
        objective = AccuracyInPrecision(predictor, precision)
    else:
        objective = PredictedAccuracy(predictor)
    objective.resolutions(space)  # raises if it is for other networks
    return objective


class Macs(Objective):
    """Multiply-accumulates: the stand-in for accuracy where no predictor was trained.

    Within one family of networks, more computation mostly means more accuracy.
    """

    name = "MACs"

    def __init__(self) -> None:
        self._cost: AdditiveCost | None = None

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        return self.additive(space).evaluate(genomes)

    def additive(self, space: SearchSpace) -> AdditiveCost:
        if self._cost is None or self._cost.space != space:
            self._cost = AdditiveCost.from_ops(space, lambda op: op.macs)
        return self._cost

    def accuracy(self, score: float) -> float | None:  # noqa: ARG002
        return None
