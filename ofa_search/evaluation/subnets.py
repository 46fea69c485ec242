"""Measures the accuracy of a subnet: extract it, recalibrate BatchNorm, run it on images that were held out.

On a CPU the network runs in onnxruntime, as on a device. BatchNorm is folded into the
convolutions. This takes at most about half the time of torch and gives the same classes (`benchmarks/evaluation.py`).
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
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights, to_weights
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.base import Preprocessing
from ofa_search.data.batches import prepare
from ofa_search.data.images import Images
from ofa_search.evaluation.formats import memory_format_of
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.checkpoint import Calibration
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.supernet.supernet import Supernet

BATCH = 250
#: The activations of a batch of this size fit into the caches of a processor.
CPU_BATCH = 50
#: Prepared images of all resolutions are kept in memory if they take no more than this.
KEPT_BYTES = 1 << 29
#: The number of training images for the BatchNorm statistics of a subnet, and the seed that draws them.
CALIBRATION_IMAGES, CALIBRATION_SEED = 1000, 0
#: The subnets whose accuracies are logged during the training of a supernet.
REPRESENTATIVES = ("smallest", "middle", "largest")


def representatives(space: SearchSpace) -> dict[str, Architecture]:
    """Return the smallest, a middle and the largest subnet."""
    middle = space.from_values([sorted(gene.choices)[len(gene.choices) // 2] for gene in space.genes])
    return dict(zip(REPRESENTATIVES, (space.smallest, middle, space.largest), strict=True))


def calibration_images(training: Images, count: int = CALIBRATION_IMAGES) -> Images:
    """Return the training images for BatchNorm statistics. They are always the same."""
    rng = np.random.default_rng([CALIBRATION_SEED, len(training)])
    return training.take(rng.choice(len(training), min(count, len(training)), replace=False))


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the parameters."""
    return next(module.parameters()).device


def calibration_of(carried: Calibration) -> Images | StatisticsTable:
    """Convert the calibration in a supernet file for the functions of this file."""
    if isinstance(carried, StatisticsTable):
        return carried
    pixels = torch.tensor(carried)
    return Images("calibration", pixels, torch.zeros(len(pixels), dtype=torch.int64), ())


class CalibratedSubnets:
    """Subnets of a supernet with their own BatchNorm statistics, measured with images or read from a table."""

    def __init__(self, supernet: Supernet, calibration: Images | StatisticsTable) -> None:
        self.supernet = supernet
        self._source: PreparedImages | StatisticsTable = (
            calibration
            if isinstance(calibration, StatisticsTable)
            else (PreparedImages(calibration.to(device_of(supernet)), supernet.space, BATCH))
        )

    def network(self, architecture: Architecture) -> StaticNetwork:
        """Return the subnet as a module in eval mode, on the device of the supernet."""
        network = self.supernet.extract(architecture)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(self._source, StatisticsTable):
            load_weights(network, self.weights(architecture))
        else:
            recalibrate(network, self._source.at(architecture.resolution))
        return network

    def weights(self, architecture: Architecture) -> Weights:
        """Return the weights of the same subnet in numpy. With a table, no module is created."""
        if isinstance(self._source, StatisticsTable):
            return self._source.applied(self.supernet.space.layout(architecture), self.supernet.weights(architecture))
        return to_weights(self.network(architecture))


def calibrated(supernet: Supernet, architecture: Architecture, calibration: Images | StatisticsTable) -> StaticNetwork:
    """Return one subnet as a module; see `CalibratedSubnets`."""
    return CalibratedSubnets(supernet, calibration).network(architecture)


def accuracy(network: nn.Module, architecture: Architecture, space: SearchSpace, images: Images) -> float:
    """Measure the top-1 accuracy in [0, 1] of a torch module on images."""
    return network_accuracy(network, images, space.preprocessing, architecture.resolution)


def network_accuracy(
    network: nn.Module, images: Images, preprocessing: Preprocessing, resolution: int | None = None
) -> float:
    """Measure the same of a module of no space. Without a resolution, the images keep their size."""
    inputs = prepared(images, preprocessing, resolution, memory_format=memory_format_of(network))
    return top1(torch_classes(network, inputs), images)


def prepared(
    images: Images,
    preprocessing: Preprocessing,
    resolution: int | None = None,
    batch: int = BATCH,
    memory_format: torch.memory_format = torch.channels_last,
) -> Iterator[Tensor]:
    """Yield the images as inputs of a network."""
    for pixels, _ in images.batches(batch):
        yield prepare(pixels, resolution, preprocessing).contiguous(memory_format=memory_format)


def subnet_accuracy(
    supernet: Supernet, architecture: Architecture, calibration: Images | StatisticsTable, images: Images
) -> float:
    """Measure the top-1 accuracy in [0, 1] of a recalibrated subnet; for many subnets, use `Evaluator`."""
    return Evaluator(supernet, calibration, images).accuracy(architecture)


class Evaluator:
    """Measures the accuracies of many subnets of one supernet on the same images, on the device of the supernet.

    Subnets of the same resolution share the prepared images, if these take at most `KEPT_BYTES`.
    """

    def __init__(self, supernet: Supernet, calibration: Images | StatisticsTable, images: Images) -> None:
        device = device_of(supernet)
        self.space = supernet.space
        self.images = images.to(device)
        self._subnets = CalibratedSubnets(supernet, calibration)
        self._onnx = device.type == "cpu"
        self._inputs = PreparedImages(self.images, self.space, CPU_BATCH if self._onnx else BATCH)

    def accuracy(self, architecture: Architecture) -> float:
        """Measure the top-1 accuracy in [0, 1] of a subnet, after recalibration."""
        inputs = self._inputs.at(architecture.resolution)
        if self._onnx:
            classes = onnx_classes(self.space.layout(architecture), self._subnets.weights(architecture), inputs)
        else:
            classes = torch_classes(self._subnets.network(architecture), inputs)
        return top1(classes, self.images)


class PreparedImages:
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
        return prepared(self.images, self.space.preprocessing, resolution, self.batch)


def top1(classes: Tensor, images: Images) -> float:
    """Return the share of the images (N) in their class, in [0, 1]."""
    return int((classes == images.labels).sum()) / len(images)


@torch.inference_mode()
def torch_classes(network: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """Return the predicted classes (N,) for batches of inputs."""
    return torch.cat([network(batch).argmax(1) for batch in inputs])


def onnx_classes(layout: Layout, weights: Weights, inputs: Iterable[Tensor]) -> Tensor:
    """Return the same for a network of that layout. onnxruntime runs it with as many threads as torch uses.

    Batches are (CPU_BATCH, 3, R, R); the last one may be smaller.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # must be set before the import
    import onnxruntime

    target = Target("onnxruntime", batch=CPU_BATCH)
    model = get_exporter(target).build(as_graph(layout), weights, target, outputs=[LOGITS_NAME], metadata={})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = []
    for batch in inputs:
        images = np.zeros((CPU_BATCH, *batch.shape[1:]), dtype=np.float32)
        images[: len(batch)] = batch.numpy()
        (logits,) = session.run([LOGITS_NAME], {INPUT: images})
        found.append(logits[: len(batch)].argmax(1))
    return torch.from_numpy(np.concatenate(found))
