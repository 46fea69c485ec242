"""The origin of the weights of a found network: a trained supernet, or none (made-up weights)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_profiler.base.extras import need
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import CALIBRATED, MADE_UP, Ranges
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.data.words import UNLABELLED
from ofa_search.results.model_card import TRAINED, UNTRAINED
from ofa_search.supernet.description import SUFFIX, check_space, read_description, weights_path

if TYPE_CHECKING:
    from ofa_search.supernet.checkpoint import Checkpoint

WeightsOf = Callable[[Architecture], Weights]
#: The ranges of a subnet for int8; None if they are unknown.
RangesOf = Callable[[Architecture], Ranges | None]


def _unknown(_architecture: Architecture) -> Ranges | None:
    return None


@dataclass(frozen=True)
class WeightSource:
    """`of(architecture)` gives the weights of a subnet; `status` is `trained` or `untrained`.

    `space` is the search space with as many classes as the weights are for, `labels` their names. `supernet`
    is the name of the supernet, `accuracy` what was measured on it. `calibrated` says whether the BatchNorm
    statistics of a subnet are its own. `ranges_of(architecture)` gives the ranges of its tensors for int8,
    and `ranges` where they come from (`ofa_profiler.networks.ranges.SOURCES`).
    """

    space: SearchSpace
    status: str
    of: WeightsOf
    supernet: str | None = None
    labels: tuple[str, ...] | None = None
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = True
    ranges_of: RangesOf = _unknown
    ranges: str = MADE_UP


def weight_source(
    space: SearchSpace, supernet: Path | None, seed: int, *, calibration: Path | None = None, needed: bool = True
) -> WeightSource:
    """Subnets of the supernet in that file; without one, made-up weights that depend on `seed` alone.

    Subnets get BatchNorm statistics and ranges of their own from the images in the file `calibration`, or else from
    the images or the tables in the supernet's file. Where no weights are `needed`, only the description of
    the supernet is read, if it has one.

    Raises `InputFileError` for a file that holds no supernet of `space`, `UsageError` where images must
    calibrate and torch is not installed.
    """
    if supernet is None:
        return WeightSource(
            space,
            UNTRAINED,
            lru_cache(1)(lambda chosen: random_weights(space.layout(chosen), np.random.default_rng(seed))),
        )
    supernet = weights_path(supernet)
    name = supernet.name.removesuffix(SUFFIX)
    labels: tuple[str, ...] | None = None
    accuracy: Mapping[str, Any] = {}
    if supernet.suffix == SUFFIX:
        about = read_description(supernet)
        check_space(supernet, about.space, space)
        space, labels, accuracy = about.space, about.labels, about.accuracy
        if not needed:
            return WeightSource(space, TRAINED, _not_loaded, name, labels, accuracy)
    from ofa_search.supernet.checkpoint import read_checkpoint  # a search without export needs no weights

    checkpoint = read_checkpoint(supernet, space)
    calibrated = calibration is not None or checkpoint.calibration is not None
    of, ranges_of = _weights_and_ranges(checkpoint, name, calibration)
    ranges = CALIBRATED if calibration is not None or checkpoint.needs_images else MADE_UP
    if ranges == MADE_UP and checkpoint.ranges is not None:
        ranges = checkpoint.ranges.source
    return WeightSource(
        checkpoint.space,
        TRAINED,
        lru_cache(1)(of),
        name,
        labels,
        accuracy,
        calibrated,
        lru_cache(1)(ranges_of),
        ranges,
    )


def in_mixed_precision(source: WeightSource) -> WeightSource:
    """The same weights and ranges for the networks of the space in mixed precision."""
    space = MixedSpace.of(source.space)

    def of(architecture: Architecture) -> Weights:
        return source.of(space.plain_architecture(architecture))

    def ranges_of(architecture: Architecture) -> Ranges | None:
        return source.ranges_of(space.plain_architecture(architecture))

    return replace(source, space=space, of=of, ranges_of=ranges_of)


def _not_loaded(_architecture: Architecture) -> Weights:
    raise AssertionError("weights were said not to be needed")


def _weights_and_ranges(checkpoint: Checkpoint, name: str, calibration: Path | None) -> tuple[WeightsOf, RangesOf]:
    if calibration is not None:
        need("torch", extra="train", purpose="--calibration")
    elif not checkpoint.needs_images:
        return checkpoint.weights, lambda _architecture: checkpoint.ranges
    else:
        need("torch", extra="train", purpose=f"the supernet {name}, which has calibration images instead of a table,")
    return _measured_with_images(checkpoint, calibration)


def _measured_with_images(checkpoint: Checkpoint, calibration: Path | None) -> tuple[WeightsOf, RangesOf]:
    """Both are measured with the images in a file, or else with those of the checkpoint."""
    from ofa_search.data.images import Images, load_images
    from ofa_search.evaluation.ranges import measure_ranges
    from ofa_search.evaluation.subnets import CalibratedSubnets, calibration_images, calibration_of
    from ofa_search.supernet.supernet import as_trained

    trained = as_trained(checkpoint)
    if calibration is None:
        assert trained.calibration is not None
        images = calibration_of(trained.calibration)
        assert isinstance(images, Images), "a checkpoint with a table needs no images"
    else:
        resolution = max(checkpoint.space.valid_resolutions)
        images = calibration_images(load_images(calibration, resolution, split=UNLABELLED))
    of = lru_cache(1)(CalibratedSubnets(trained.supernet, images).weights)
    return of, lambda architecture: measure_ranges(checkpoint.space, architecture, of(architecture), images)
