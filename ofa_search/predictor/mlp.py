"""The accuracy predictor of the OFA paper (arXiv 1908.09791, section 3.4): a small MLP on one-hot features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.architecture import Architecture
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import Genomes, SearchSpace, get_space
from ofa_search.predictor.features import Features
from ofa_search.torch_file import read_state_dict

Array = NDArray[Any]

#: The rows of a matrix product, padded up. With a few fixed shapes BLAS sums in a fixed order, whatever
#: the number of its threads, so a genome has one accuracy and a search one outcome.
_BATCHES = (64, 1024)
_MAX_FILE_BYTES = 64 << 20

#: The files that the OFA authors publish hold weights only. What belongs to them is in their code:
#: the features, and the space whose supernet gave the accuracies.
_PUBLISHED_FEATURES = Features(("kernel_size", "expand_ratio"), tuple(range(112, 225, 16)))
_PUBLISHED_SPACE = "ofa-mbv3-w1.2"


@dataclass(frozen=True)
class Layer:
    """`x @ weight + bias`; weight (inputs, outputs), bias (outputs,), float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AccuracyPredictor:
    """Linear layers with ReLU between them; the last has one output, the top-1 accuracy.

    `space` names the search space whose accuracies it learned.
    """

    name: str
    space: str
    features: Features
    layers: tuple[Layer, ...]

    @staticmethod
    def load(path: str | Path) -> AccuracyPredictor:
        """Read a predictor; the OFA authors' `acc_predictor.pth` is one. Nothing in the file is executed.

        Raises `InputFileError` when the file is missing, damaged or no such predictor.
        """
        path = Path(path)
        layers = tuple(_layers(path, read_state_dict(path, max_bytes=_MAX_FILE_BYTES)))
        features, space = _PUBLISHED_FEATURES, get_space(_PUBLISHED_SPACE)
        inputs, expected = layers[0].weight.shape[0], features.count(space)
        if inputs != expected:
            raise InputFileError(path, f"takes {inputs} features; predictors of this format have {expected}")
        return AccuracyPredictor(path.stem, space.name, features, layers)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The resolutions that its features can express."""
        return self.features.resolutions

    def resolutions_of(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions of `space` that it can predict. Raises `UsageError` for a space of other blocks."""
        known, needed = self.layers[0].weight.shape[0], self.features.count(space)
        resolutions = self.features.resolutions_of(space)
        if known != needed or not resolutions:
            why = f"{needed} features, not {known}" if known != needed else "other resolutions"
            raise UsageError(f"the predictor {self.name} is for {self.space}; {space.name} has {why}")
        return resolutions

    def predict(self, architectures: Iterable[Architecture]) -> NDArray[np.float64]:
        """Architectures -> top-1 accuracy in [0, 1], (N,).

        Raises `UsageError` for a resolution or a space that its features cannot express.
        """
        architectures = list(architectures)
        accuracies = np.empty(len(architectures))
        members: dict[str, list[int]] = {}
        for i, architecture in enumerate(architectures):
            members.setdefault(architecture.space, []).append(i)
        for name, indices in members.items():
            resolutions = tuple(sorted({architectures[i].resolution for i in indices}))
            space = get_space(name).with_resolutions(resolutions)
            genomes = space.encode(architectures[i] for i in indices)
            accuracies[indices] = self.predict_genomes(space, genomes)
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

    def _forward(self, ones: NDArray[np.intp]) -> NDArray[np.float32]:
        rows = next(size for size in _BATCHES if size >= len(ones))
        first = self.layers[0]
        # One column more than there are features: what marks "no feature" lands there and is cut off.
        hot = np.zeros((rows, len(first.weight) + 1), dtype=np.float32)
        np.put_along_axis(hot[: len(ones)], ones, np.float32(1), axis=1)
        values = hot[:, :-1] @ first.weight
        values += first.bias
        for layer in self.layers[1:]:
            np.maximum(values, 0, out=values)
            values = values @ layer.weight
            values += layer.bias
        return values[: len(ones), 0]


def _layers(path: Path, arrays: Mapping[str, Array]) -> Iterator[Layer]:
    """The linear layers of a `torch.nn.Sequential` of Linear and ReLU: `0.weight`, `0.bias`, `2.weight`, …"""
    names = [f"{2 * i}" for i in range((len(arrays) + 1) // 2)]
    if set(arrays) != {f"{name}.{part}" for name in names for part in ("weight", "bias")}:
        listed = ", ".join(list(arrays)[:4])
        raise InputFileError(path, f"is not an accuracy predictor: it holds {listed!r} and so on")
    inputs: int | None = None
    for name in names:
        weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
        outputs = weight.shape[0] if weight.ndim == 2 else 0
        if not outputs or weight.shape[1] != (inputs or weight.shape[1]) or bias.shape != (outputs,):
            raise InputFileError(path, f"layer {name} has shapes that do not fit: {weight.shape}, {bias.shape}")
        if not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise InputFileError(path, f"layer {name} holds values that are not finite")
        inputs = outputs
        yield Layer(np.ascontiguousarray(weight.T, np.float32), np.ascontiguousarray(bias, np.float32))
    if inputs != 1:
        raise InputFileError(path, f"the last layer has {inputs} outputs; an accuracy predictor has one")
