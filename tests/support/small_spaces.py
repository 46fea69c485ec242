"""Spaces of which all networks can be listed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.mobilenetv3 import CIFAR_MBV3
from ofa_search.predictor import AccuracyPredictor, Features
from ofa_search.predictor.layers import Layer

#: Two stages of `cifar-mbv3` with fewer choices: 1568 networks.
TINY = replace(
    CIFAR_MBV3,
    name="tiny",
    resolutions=(24, 32),
    stage_widths=(16, 24),
    stage_strides=(2, 2),
    kernel_sizes=(3, 5),
    expand_ratios=(3,),
)
#: One stage with fewer choices: 56 networks.
ONE_STAGE = replace(TINY, name="one", stage_widths=(16,), stage_strides=(2,))


def everything(space: SearchSpace) -> Genomes:
    """All canonical genomes of a small space."""
    genomes = np.array(list(product(*map(range, space.n_choices))), dtype=np.int8)
    return np.unique(space.canonical(genomes), axis=0)


def random_predictor(space: SearchSpace, seed: int, hidden: tuple[int, ...] = (8, 8)) -> AccuracyPredictor:
    """A predictor with made-up weights; its accuracies are around a half."""
    rng = np.random.default_rng(seed)
    features = Features.of(space)
    sizes = (features.count(space), *hidden, 1)
    layers = [
        Layer(rng.normal(0, 0.7, (before, after)).astype(np.float32), rng.normal(0, 0.3, after).astype(np.float32))
        for before, after in pairwise(sizes)
    ]
    scale: NDArray[np.float32] = np.float32(0.02) * layers[-1].weight
    layers[-1] = Layer(scale, np.array([0.5], dtype=np.float32))
    return AccuracyPredictor("random", space.name, features, tuple(layers), space.n_classes)
