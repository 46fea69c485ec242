"""How accurate a subnet is: cut out, BatchNorm recalibrated, run on images it was not trained on.

On a CPU the network runs in onnxruntime, as it will on a device: with BatchNorm folded into the
convolutions that takes about half the time that torch needs, or less, and gives the same answers.
`benchmarks/evaluation.py` measures it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ofa_profiler.export import INPUT, LOGITS_NAME, get_exporter
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import Layout, as_graph
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights, to_weights
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace
from ofa_search.data.batches import prepare
from ofa_search.data.images import Images
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.checkpoint import Calibration
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.supernet.supernet import Supernet

BATCH = 250
#: Activations of so few images stay in the caches of a processor.
ONNX_BATCH = 50
#: Prepared images of all resolutions are kept if they take no more than this.
KEPT_BYTES = 1 << 29
#: Training images for the BatchNorm statistics of a subnet, drawn by this seed.
CALIBRATION_IMAGES, CALIBRATION_SEED = 1000, 0
#: The subnets by which a supernet is watched.
REPRESENTATIVES = ("smallest", "middle", "largest")


def representatives(space: SearchSpace) -> dict[str, Architecture]:
    """The smallest, a middle and the largest subnet, by which training is watched."""
    middle = space.from_values([sorted(gene.choices)[len(gene.choices) // 2] for gene in space.genes])
    return dict(zip(REPRESENTATIVES, (space.smallest, middle, space.largest), strict=True))


def calibration_images(training: Images, count: int = CALIBRATION_IMAGES) -> Images:
    """The training images that BatchNorm statistics are taken from: always the same ones."""
    rng = np.random.default_rng([CALIBRATION_SEED, len(training)])
    return training.take(rng.choice(len(training), min(count, len(training)), replace=False))


def calibration_of(carried: Calibration) -> Images | StatisticsTable:
    """What a supernet's file carries, as the functions here take it."""
    if isinstance(carried, StatisticsTable):
        return carried
    return Images("calibration", carried, torch.zeros(len(carried), dtype=torch.int64), ())


def calibrated(supernet: Supernet, architecture: Architecture, calibration: Images | StatisticsTable) -> StaticNetwork:
    """The subnet as a module of its own with BatchNorm statistics of its own, in eval mode."""
    network = supernet.extract(architecture)
    if isinstance(calibration, StatisticsTable):
        return _looked_up(network, supernet.space.layout(architecture), calibration)
    return recalibrated(network, architecture, supernet.space, calibration)


def _looked_up(network: StaticNetwork, layout: Layout, table: StatisticsTable) -> StaticNetwork:
    load_weights(network, table.applied(layout, to_weights(network)))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def recalibrated(
    network: StaticNetwork, architecture: Architecture, space: SearchSpace, calibration: Images
) -> StaticNetwork:
    """The same network, its BatchNorm statistics replaced by those of the images, in eval mode."""
    return _recalibrated(network, _Inputs(calibration, space, BATCH).at(architecture.resolution))


def _recalibrated(network: StaticNetwork, inputs: Iterable[Tensor]) -> StaticNetwork:
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recalibrate(network, inputs)
    return network


def accuracy(network: nn.Module, architecture: Architecture, space: SearchSpace, images: Images) -> float:
    """Top-1 in [0, 1] of a torch module on images."""
    inputs = _Inputs(images, space, BATCH).at(architecture.resolution)
    return _top1(torch_classes(network, inputs), images)


def subnet_accuracy(
    supernet: Supernet, architecture: Architecture, calibration: Images | StatisticsTable, images: Images
) -> float:
    """Top-1 in [0, 1] of a subnet of the supernet, after recalibration; for many subnets, see `Evaluator`."""
    return Evaluator(supernet, calibration, images).accuracy(architecture)


class Evaluator:
    """The accuracies of many subnets of one supernet on the same images, on the device of the supernet.

    What subnets of one resolution have in common, the prepared images, is made once if it is small.
    """

    def __init__(self, supernet: Supernet, calibration: Images | StatisticsTable, images: Images) -> None:
        device = next(supernet.parameters()).device
        self.supernet = supernet
        self.images = images.to(device)
        self._onnx = device.type == "cpu"
        self._calibration = (
            calibration
            if isinstance(calibration, StatisticsTable)
            else _Inputs(calibration.to(device), supernet.space, BATCH)
        )
        self._inputs = _Inputs(self.images, supernet.space, ONNX_BATCH if self._onnx else BATCH)

    def accuracy(self, architecture: Architecture) -> float:
        """Top-1 in [0, 1] of a subnet, after recalibration."""
        resolution = architecture.resolution
        network = self._calibrated(architecture)
        inputs = self._inputs.at(resolution)
        if self._onnx:
            classes = onnx_classes(self.supernet.space, architecture, network, inputs)
        else:
            classes = torch_classes(network, inputs)
        return _top1(classes, self.images)

    def _calibrated(self, architecture: Architecture) -> StaticNetwork:
        if isinstance(self._calibration, StatisticsTable):
            return calibrated(self.supernet, architecture, self._calibration)
        return _recalibrated(self.supernet.extract(architecture), self._calibration.at(architecture.resolution))


class _Inputs:
    """Images as inputs of the networks of a space, in batches, at any resolution."""

    def __init__(self, images: Images, space: SearchSpace, batch: int) -> None:
        self.images, self.space, self.batch = images, space, batch
        pixels = sum(resolution**2 for resolution in space.resolutions)
        self._keeps = 4 * 3 * pixels * len(images) <= KEPT_BYTES
        self._kept: dict[int | None, list[Tensor]] = {}

    def at(self, resolution: int | None) -> Iterable[Tensor]:
        if not self._keeps:
            return self._prepared(resolution)
        if resolution not in self._kept:
            self._kept[resolution] = list(self._prepared(resolution))
        return self._kept[resolution]

    def _prepared(self, resolution: int | None) -> Iterator[Tensor]:
        for pixels, _ in self.images.batches(self.batch):
            inputs = prepare(pixels, resolution, self.space.preprocessing)
            yield inputs.contiguous(memory_format=torch.channels_last)


def _top1(classes: Tensor, images: Images) -> float:
    return int((classes == images.labels).sum()) / len(images)


@torch.inference_mode()
def torch_classes(network: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """The classes (N,) that a network finds for batches of inputs."""
    return torch.cat([network(batch).argmax(1) for batch in inputs])


def onnx_classes(
    space: SearchSpace, architecture: Architecture, network: StaticNetwork, inputs: Iterable[Tensor]
) -> Tensor:
    """The same for a network of `architecture`, run by onnxruntime on as many threads as torch has.

    Batches are (ONNX_BATCH, 3, R, R), of which the last may be smaller.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import
    import onnxruntime  # type: ignore[import-untyped]

    target = Target("onnxruntime", batch=ONNX_BATCH)
    graph = as_graph(space.layout(architecture))
    model = get_exporter(target).build(graph, to_weights(network), target, outputs=[LOGITS_NAME], metadata={})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = []
    for batch in inputs:
        images = np.zeros((ONNX_BATCH, *batch.shape[1:]), dtype=np.float32)
        images[: len(batch)] = batch.numpy()
        (logits,) = session.run([LOGITS_NAME], {INPUT: images})
        found.append(logits[: len(batch)].argmax(1))
    return torch.from_numpy(np.concatenate(found))
