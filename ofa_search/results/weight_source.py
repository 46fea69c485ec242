"""Where the weights of a found network come from: a trained supernet, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.spaces import SearchSpace
from ofa_search.artifacts.supernet_file import SUFFIX, check_space, read_description, weights_path

if TYPE_CHECKING:
    from ofa_search.supernet.checkpoint import TrainedSupernet


@dataclass(frozen=True)
class WeightSource:
    """`of(architecture)` gives the weights of a subnet; `status` is `trained` or `untrained`.

    `space` is the search space with as many classes as the weights are for, `labels` their names. `supernet`
    is the name of the supernet, `accuracy` what was measured on it. `calibrated` says whether the BatchNorm
    statistics of a subnet are its own.
    """

    space: SearchSpace
    status: str
    of: Callable[[Architecture], Weights]
    supernet: str | None = None
    labels: tuple[str, ...] | None = None
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = True


def weight_source(
    space: SearchSpace, supernet: Path | None, seed: int, *, calibration: Path | None = None, needed: bool = True
) -> WeightSource:
    """Subnets of the supernet in that file; without one, made-up weights that depend on `seed` alone.

    Subnets get BatchNorm statistics of their own from the images in the file `calibration`, or else from
    the images or the table that the supernet brings along. Where no weights are `needed`, only the
    description of a supernet is read if it has one, and torch is not imported.

    Raises `InputFileError` for a file that holds no supernet of `space`, `UsageError` where supernets
    cannot be read.
    """
    if supernet is None:
        return WeightSource(
            space,
            "untrained",
            lru_cache(1)(lambda chosen: random_weights(space.layout(chosen), np.random.default_rng(seed))),
        )
    supernet = weights_path(supernet)
    name = supernet.name.removesuffix(SUFFIX)
    if supernet.suffix == SUFFIX:
        about = read_description(supernet)
        check_space(supernet, about.space, space)
        space, labels, accuracy = about.space, about.labels, about.accuracy
        if not needed:
            return WeightSource(space, "trained", _not_loaded, name, labels, accuracy)
    else:
        labels, accuracy = None, {}
    trained = _load(supernet, space, calibration)
    of = lru_cache(1)(lambda chosen: _subnet(trained, chosen))
    return WeightSource(trained.supernet.space, "trained", of, name, labels, accuracy, trained.calibration is not None)


def _not_loaded(_architecture: Architecture) -> Weights:
    raise AssertionError("weights were said not to be needed")


def _load(supernet: Path, space: SearchSpace, calibration: Path | None) -> TrainedSupernet:
    try:
        from ofa_search.supernet.checkpoint import load_trained  # torch is slow to import
    except ImportError as error:
        raise UsageError(f"trained weights need torch, which cannot be imported ({error})") from None
    trained = load_trained(supernet, space)
    if calibration is None:
        return trained
    from ofa_search.data.images import load_images
    from ofa_search.evaluation.subnets import calibration_images

    images = load_images(calibration, max(space.valid_resolutions))
    return replace(trained, calibration=calibration_images(images).pixels)


def _subnet(trained: TrainedSupernet, architecture: Architecture) -> Weights:
    if trained.calibration is None:
        return trained.supernet.weights(architecture)
    from ofa_profiler.networks.torch_modules import to_weights
    from ofa_search.evaluation.subnets import calibrated, calibration_of

    return to_weights(calibrated(trained.supernet, architecture, calibration_of(trained.calibration)))
