"""The accuracy predictors that the OFA authors publish: pickled state_dicts, which hold weights only.

What belongs to the weights is in the authors' code: the order of the features, and the space whose supernet gave the
accuracies. Two forms exist:

    0.weight, 0.bias, 2.weight, …                                   of MobileNetV3, width 1.2 (ofa/tutorial)
    layers.0.0.weight, …, layers.3.weight (no bias), base_acc       of ResNet50 (ofa/nas/accuracy_predictor)

`torch_file` reads them without running anything in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ofa_profiler.errors import InputFileError
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_search.artifacts.restricted_pickle import Array
from ofa_search.artifacts.torch_file import read_state_dict, without_prefix
from ofa_search.predictor.features import Features
from ofa_search.predictor.layers import Layer, PredictorData, linear_layers

MAX_BYTES = 64 << 20

_MOBILENET, _RESNET = "ofa-mbv3-w1.2", "ofa-resnet50"
_FEATURES = {
    _MOBILENET: Features(("kernel_size", "expand_ratio"), tuple(range(112, 225, 16))),
    _RESNET: Features(
        ("depth", "width_mult", "last_width_mult", "expand_ratio"), (128, 144, 160, 176, 192, 224, 240, 256)
    ),
}
#: The images on which the accuracies were measured, where the authors say it.
_ACCURACY_OF = {_MOBILENET: "10,000 images held out from the ImageNet training images"}
_LAYER = re.compile(r"layers\.([0-9]{1,3})\.(?:0\.)?(weight|bias)")


def load_published(path: Path) -> PredictorData:
    """Read a file of the authors. Raises `InputFileError`."""
    arrays = read_state_dict(path, max_bytes=MAX_BYTES)
    named = without_prefix(arrays, "base_acc")
    if "base_acc" in named:
        return _load_resnet(path, named)
    layers = linear_layers(path, without_prefix(arrays, "0.weight"))
    return _predictor(path, _MOBILENET, layers, _FEATURES[_MOBILENET].count(get_space(_MOBILENET)))


def _load_resnet(path: Path, arrays: Mapping[str, Array]) -> PredictorData:
    renamed: dict[str, Array] = {}
    for name, array in arrays.items():
        if match := _LAYER.fullmatch(name):
            renamed[f"{2 * int(match[1])}.{match[2]}"] = array
        elif name != "base_acc":
            raise InputFileError(path, f"is not an accuracy predictor: it holds {name[:60]!r}")
    # The last layer has no bias: the mean accuracy is added instead.
    renamed[f"{2 * (len(renamed) // 2)}.bias"] = arrays["base_acc"]
    space = get_space(_RESNET)
    columns = _resnet_columns(space)
    read = _predictor(path, _RESNET, linear_layers(path, renamed), len(columns))
    first = read.layers[0]
    # Features of ours that the authors do not have, the depths of the stages, have no weight.
    weight = np.zeros((read.features.count(space), len(first.bias)), dtype=np.float32)
    weight[columns] = first.weight
    return replace(read, layers=(Layer(weight, first.bias), *read.layers[1:]))


def _resnet_columns(space: SearchSpace) -> list[int]:
    """For each feature of the authors, the position of the same feature among ours.

    Theirs are, in this order (`ResNetArchEncoder`): the resolution, the depth of the stem, the widths (inside the stem,
    after it, of each stage), and the expand ratio of each block.
    """
    features = _FEATURES[_RESNET]
    positions: dict[int, range] = {}
    start = 0
    for gene in features.genes(space):
        positions[gene] = range(start, start + len(space.genes[gene].choices))
        start += len(space.genes[gene].choices)
    order = [space.position("depth", stem=True)]
    order += [i for kind in ("width_mult", "last_width_mult") for i in positions if _is(space, i, kind, stem=True)]
    order += [i for kind in ("width_mult", "expand_ratio") for i in positions if _is(space, i, kind, stem=False)]
    columns = [*range(start, start + len(features.resolutions))]
    return columns + [column for gene in order for column in positions[gene]]


def _is(space: SearchSpace, gene: int, kind: str, *, stem: bool) -> bool:
    return space.genes[gene].kind == kind and space.genes[gene].stem == stem


def _predictor(path: Path, space: str, layers: tuple[Layer, ...], expected: int) -> PredictorData:
    """A predictor for `space`. Raises `InputFileError` unless the layers take the `expected` number of features."""
    inputs = len(layers[0].weight)
    if inputs != expected:
        raise InputFileError(path, f"takes {inputs} features; a predictor of this format has {expected}, for {space}")
    n_classes = get_space(space).n_classes
    return PredictorData(path.stem, space, _FEATURES[space], layers, n_classes, accuracy_of=_ACCURACY_OF.get(space))
