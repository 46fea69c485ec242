"""The accuracy predictor of the OFA paper (arXiv 1908.09791, section 3.4): a small MLP on one-hot features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import Genomes, SearchSpace, get_space
from ofa_profiler.spaces.genes import BITS
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.predictor.features import Features
from ofa_search.predictor.fit import fit_layers
from ofa_search.predictor.layers import PredictorData
from ofa_search.predictor.predictor_file import load_predictor, save_predictor
from ofa_search.predictor.relu_network import ReluNetwork
from ofa_search.predictor.transfer import add_bits, bits_of, fine_tuned, with_bits

#: The rows of a matrix product, padded up. With a few fixed shapes BLAS sums in a fixed order, whatever the number of
#: its threads, so a search has one outcome. Some kernels of OpenBLAS (those for Haswell) round differently by the
#: number of the row: there, the accuracies of a genome in two batches can differ by some 1e-7.
_BATCHES = (64, 128, 192, 256, 512)


class AccuracyPredictor(PredictorData):
    """From architectures to their top-1 accuracy; its fields are those of `PredictorData`."""

    @staticmethod
    def load(path: str | Path) -> AccuracyPredictor:
        """Read a predictor: a file of ours, or one that the OFA authors publish. Nothing in it is executed.

        Raises `InputFileError` when the file is missing, damaged or no such predictor.
        """
        return AccuracyPredictor(**vars(load_predictor(Path(path))))

    def save(self, path: str | Path, *, metadata: Mapping[str, Any] | None = None) -> Path:
        """Write `NAME.safetensors`, whole or not at all, and `NAME.json` beside it; returns the former.

        `metadata` is added to the JSON.
        """
        return save_predictor(self, Path(path), metadata or {})

    @staticmethod
    def fit(
        space: SearchSpace,
        architectures: Sequence[Architecture],
        accuracies: ArrayLike,
        *,
        seed: int = 0,
        hidden: Sequence[int] = (400, 400, 400),
        sample_weight: ArrayLike | None = None,
        name: str | None = None,
        accuracy_of: str | None = None,
    ) -> AccuracyPredictor:
        """Learn from architectures of `space` and their accuracies in [0, 1], both (N,).

        It knows the resolutions that `space` draws from. The same seed and samples give the same predictor
        on the same machine. `sample_weight` (N,) says how much each sample counts. Raises `UsageError`.
        """
        features = Features.of(space)
        genomes = space.encode(architectures)
        inputs = _one_hot(features.ones(space, genomes), features.count(space))
        layers = fit_layers(inputs, accuracies, seed=seed, hidden=hidden, sample_weight=sample_weight)
        return AccuracyPredictor(name or space.name, space.name, features, layers, space.n_classes, accuracy_of)

    def widened(self, space: SearchSpace) -> AccuracyPredictor:
        """The same predictor for `space`, one of mixed precision: it gives the same accuracy for all bits.

        Raises `UsageError` if this predictor is for other networks, or for mixed precision already.
        """
        if not isinstance(space, MixedSpace):
            raise UsageError(f"{space.name} is no space of mixed precision")
        if self.knows_bits:
            raise UsageError(f"the predictor {self.name} is for mixed precision already")
        self.resolutions_of(space.plain)
        layers = add_bits(self.layers, self.features, space)
        return replace(self, space=space.name, features=with_bits(self.features), layers=layers)

    def transferred(
        self, space: SearchSpace, architectures: Sequence[Architecture], accuracies: ArrayLike, *, seed: int = 0
    ) -> AccuracyPredictor:
        """Fine-tune this predictor on architectures of `space` and their accuracies in [0, 1], both (N,).

        See `predictor/transfer.py`. The same seed and samples give the same predictor on the same machine. The
        result has other errors than this predictor: its `metrics` are None. Raises `UsageError`.
        """
        self.resolutions_of(space)
        if not self.knows_bits:
            raise UsageError(f"the predictor {self.name} is for {self.space}, which has one precision")
        ones = self.features.ones(space, space.encode(architectures))
        inputs = _one_hot(ones, self.features.count(space))
        layers = fine_tuned(self.layers, inputs, accuracies, bits_of(self.features, space), seed=seed)
        return replace(self, layers=layers, metrics=None)

    @property
    def knows_bits(self) -> bool:
        """Whether it is for networks in mixed precision."""
        return BITS in self.features.kinds

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The resolutions that its features can express."""
        return self.features.resolutions

    def resolutions_of(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions of `space` that it can predict. Raises `UsageError` for a space of other blocks."""
        known, needed = self.layers[0].weight.shape[0], self.features.count(space)
        resolutions = self.features.resolutions_of(space)
        expressible = bool(resolutions) if space.resolution_gene is not None else not self.features.resolutions
        if known != needed or not expressible:
            why = f"{needed} features, not {known}" if known != needed else "other resolutions"
            raise UsageError(f"the predictor {self.name} is for {self.space}; {space.name} has {why}")
        return resolutions

    def predict(self, architectures: Iterable[Architecture]) -> NDArray[np.float64]:
        """Architectures -> top-1 accuracy in [0, 1], (N,).

        Raises `UsageError` for a resolution or a space that its features cannot express.
        """
        architectures = list(architectures)
        accuracies = np.empty(len(architectures))
        for name in {architecture.space for architecture in architectures}:
            mine = np.array([architecture.space == name for architecture in architectures])
            chosen = architectures if mine.all() else [a for a in architectures if a.space == name]
            resolutions = {architecture.resolution for architecture in chosen}
            space = _space(name, tuple(sorted(r for r in resolutions if r is not None)))
            accuracies[mine] = self.predict_genomes(space, space.encode(chosen))
        return accuracies

    def predict_genomes(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        """Genomes (N, G) of `space` -> top-1 accuracy in [0, 1], (N,). Raises `UsageError` as `predict` does."""
        self.resolutions_of(space)
        ones = self.features.ones(space, genomes)
        accuracies = np.empty(len(genomes))
        for start in range(0, len(genomes), _BATCHES[-1]):
            batch = ones[start : start + _BATCHES[-1]]
            accuracies[start : start + len(batch)] = self._forward(batch)
        return np.clip(accuracies, 0.0, 1.0)

    def gradients(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float32]:
        """Genomes (N, G) of `space` -> the value of each choice of each gene (N, sum of `n_choices`), gene by gene.

        These are derivatives of the accuracy by the features. Near a genome, its accuracy changes by about the
        difference of these values, those of genes without effect left out. Genes without features have zeros.
        """
        values = np.zeros((len(genomes), int(space.n_choices.sum())), dtype=np.float32)
        columns, features = self.features.columns(space)
        values[:, columns] = self._backward(self.features.ones(space, genomes))[:, features]
        return values

    def network(self, space: SearchSpace) -> ReluNetwork:
        """This predictor as a function of the choices of `space`. Raises `UsageError` as `predict` does."""
        self.resolutions_of(space)
        columns, features = self.features.columns(space)
        first, *others = self.layers
        weight = np.zeros((int(space.n_choices.sum()), first.weight.shape[1]), dtype=np.float32)
        weight[columns] = first.weight[features]
        layers = ((weight, first.bias), *((layer.weight, layer.bias) for layer in others))
        return ReluNetwork(space, layers, 0.0, 1.0)

    def _backward(self, ones: NDArray[np.intp]) -> NDArray[np.float32]:
        """The derivatives by the features (N, F)."""
        first = self.layers[0]
        values = _one_hot(ones, len(first.weight)) @ first.weight + first.bias
        positive = []
        for layer in self.layers[1:]:
            positive.append(values > 0)
            values = (values * positive[-1]) @ layer.weight + layer.bias
        slopes = np.ones_like(values)
        for layer, mask in zip(self.layers[:0:-1], reversed(positive), strict=True):
            slopes = (slopes @ layer.weight.T) * mask
        result: NDArray[np.float32] = slopes @ first.weight.T
        return result

    def _forward(self, ones: NDArray[np.intp]) -> NDArray[np.float32]:
        rows = next(size for size in _BATCHES if size >= len(ones))
        first = self.layers[0]
        values = _one_hot(ones, len(first.weight), rows) @ first.weight
        values += first.bias
        for layer in self.layers[1:]:
            np.maximum(values, 0, out=values)
            values = values @ layer.weight
            values += layer.bias
        return values[: len(ones), 0]


def _one_hot(ones: NDArray[np.intp], features: int, rows: int | None = None) -> NDArray[np.float32]:
    """Feature numbers (N, K) -> features (N or `rows`, F)."""
    # One column more than there are features: what marks "no feature" lands there and is cut off.
    hot = np.zeros((len(ones) if rows is None else rows, features + 1), dtype=np.float32)
    np.put_along_axis(hot[: len(ones)], ones, np.float32(1), axis=1)
    return hot[:, :-1]


@lru_cache(maxsize=64)
def _space(name: str, resolutions: tuple[int, ...]) -> SearchSpace:
    """One object per space and resolutions: its tables are made once."""
    space = get_space(name)
    return space.with_resolutions(resolutions) if resolutions else space
