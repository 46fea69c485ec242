"""The images and tables with which the subnets of a supernet are measured, for its accuracy predictor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.data.images import DataSplit, Images
from ofa_search.evaluation.subnets import calibration_images, calibration_of
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.supernet import TrainedSupernet


@dataclass(frozen=True)
class Measured:
    """The images for measuring subnets. `name` is the file or folder of the images.

    `held_out` are training images that the supernet was not trained with. `test` images are only
    used for the offset. `calibration` and `ranges` are the tables of the supernet, or training images.
    """

    name: str
    held_out: Images
    calibration: Images | StatisticsTable
    ranges: Images | Ranges
    test: Images | None = None


def number_held_out(path: Path, trained: TrainedSupernet) -> int:
    """The number of training images that the supernet in file `path` was not trained with."""
    number = _training(trained).get("held_out")
    if type(number) is not int or number < 1:
        raise InputFileError(path, "lacks the number of training images that were held out (training.held_out)")
    return number


def measured_on(path: Path, trained: TrainedSupernet, data: DataSplit, name: str, count: int | None = None) -> Measured:
    """Return images of `data`, split as in the training of the supernet in file `path`; `count` held-out ones or all.

    Raises `InputFileError` for a supernet that was trained with other images.
    """
    learned = _training(trained).get("images")
    labels, classes = trained.description.get("labels"), data.training.classes
    if learned is not None and learned != len(data.training):
        others = f"{name} has {len(data.training)} beside the held-out ones"
        raise InputFileError(path, f"was trained with {learned} images, but {others}")
    if len(classes) != trained.supernet.space.n_classes or (labels is not None and labels != list(classes)):
        raise InputFileError(path, f"has other classes than {name} ({', '.join(classes):.60})")
    if count is not None and count > len(data.held_out):
        raise UsageError(f"--images {count}: only {len(data.held_out)} images were held out of the training")
    return Measured(
        name=name,
        held_out=data.held_out if count is None else data.held_out.take(slice(count)),
        calibration=_calibration(trained, data.training),
        ranges=trained.ranges or calibration_images(data.training),
        test=data.test,
    )


def _training(trained: TrainedSupernet) -> Mapping[str, Any]:
    training = trained.description.get("training")
    return training if isinstance(training, Mapping) else {}


def _calibration(trained: TrainedSupernet, training: Images) -> Images | StatisticsTable:
    """Return the source of BatchNorm statistics: the one in the supernet file, or else training images."""
    return calibration_images(training) if trained.calibration is None else calibration_of(trained.calibration)


def accuracy_of(data: Measured, space: SearchSpace) -> str:
    """Return a text about what the accuracies of networks of `space` are measured on."""

    def source(of: Images | StatisticsTable | Ranges) -> str:
        return f"{len(of):,} others" if isinstance(of, Images) else "the supernet's table"

    ranges = f", ranges of int8 from {source(data.ranges)}" if isinstance(space, MixedSpace) else ""
    return (
        f"{len(data.held_out):,} images held out from the training images {data.name}, "
        f"BatchNorm statistics from {source(data.calibration)}{ranges}"
    )


def digest_of(images: Images | StatisticsTable | Ranges) -> str:
    """Return a hash of pixels and labels, or of a table."""
    if isinstance(images, Ranges):
        return hashlib.sha256(json.dumps(images.to_json()).encode()).hexdigest()
    if isinstance(images, StatisticsTable):
        # safetensors gives the tensors of a file in another order in every process.
        return digest(torch.from_numpy(entry) for _, entry in sorted(images.entries.items()))
    return digest(chain([images.labels], (pixels for pixels, _ in images.batches(1024))))


def digest(tensors: Iterable[Tensor]) -> str:
    """Return a hash of the values of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
