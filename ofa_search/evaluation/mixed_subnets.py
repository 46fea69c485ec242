"""Measures the accuracy of a subnet in mixed precision: a post-training quantization, run on held-out images.

The network runs in LiteRT, as on a device, in the fast forms. Its integers are the same on all processors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofa_profiler.base.extras import need
from ofa_profiler.export import LOGITS_NAME, get_exporter
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import Layout, as_graph
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.protocol.forms import Forms, MixedForms
from ofa_profiler.protocol.target import MIXED, Target
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.data.images import Images
from ofa_search.evaluation.ranges import measure_ranges
from ofa_search.evaluation.subnets import CPU_BATCH, CalibratedSubnets, PreparedImages, top1
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.supernet import Supernet

RUNTIME = "litert"


class MixedEvaluator:
    """Measures the accuracies of many networks of one supernet in mixed precision on the same images, on the CPU.

    `ranges` are those of all tensors of the supernet, or images: then each subnet gets ranges of its own.
    Raises `UsageError` if LiteRT is not installed.
    """

    def __init__(
        self, supernet: Supernet, calibration: Images | StatisticsTable, ranges: Ranges | Images, images: Images
    ) -> None:
        need("ai_edge_litert", extra="litert", purpose="the accuracy of networks in mixed precision")
        self.space = MixedSpace.of(supernet.space)
        self.images = images
        self._subnets = CalibratedSubnets(supernet, calibration)
        self._ranges = ranges
        self._inputs = PreparedImages(images, supernet.space, CPU_BATCH)

    def accuracy(self, architecture: Architecture) -> float:
        """Measure the top-1 accuracy in [0, 1] of a network of `space`, after recalibration of BatchNorm."""
        plain = self.space.plain_architecture(architecture)
        weights = self._subnets.weights(plain)
        ranges = self._ranges
        if isinstance(ranges, Images):
            ranges = measure_ranges(self.space.plain, plain, weights, ranges)
        layout, precisions = self.space.layout(architecture), self.space.precisions(architecture)
        classes = mixed_classes(layout, precisions, weights, ranges, self._inputs.at(architecture.resolution))
        return top1(classes, self.images)


def mixed_classes(
    layout: Layout, precisions: Mapping[str, str], weights: Weights, ranges: Ranges, inputs: Iterable[Tensor]
) -> Tensor:
    """Return the predicted classes (N,) of a network whose slots have these precisions, with the threads of torch.

    Batches are (CPU_BATCH, 3, R, R); the last one may be smaller.
    """
    run = _loaded(layout, precisions, weights, ranges)
    found = []
    for batch in inputs:
        values = np.zeros((CPU_BATCH, *batch.shape[2:], batch.shape[1]), dtype=np.float32)
        values[: len(batch)] = batch.permute(0, 2, 3, 1).numpy()
        found.append(run(values)[: len(batch)].argmax(1))
    return torch.from_numpy(np.concatenate(found))


def _loaded(
    layout: Layout, precisions: Mapping[str, str], weights: Weights, ranges: Ranges
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The network in LiteRT: float32 (CPU_BATCH, R, R, 3) -> logits (CPU_BATCH, classes)."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    graph, target = as_graph(layout), Target(RUNTIME, MIXED, CPU_BATCH)
    exporter = get_exporter(target)  # registers its forms
    found = {precision: candidates(target.at(precision), graph) for precision in ("fp32", "int8")}
    forms = {precision: {group: names[0] for group, names in groups.items()} for precision, groups in found.items()}
    model = exporter.build(
        graph,
        weights,
        target,
        outputs=[LOGITS_NAME],
        metadata={},
        forms=MixedForms(Forms(forms["fp32"]), Forms(forms["int8"])),
        ranges=ranges,
        precisions=precisions,
    )
    interpreter = Interpreter(model_content=model, num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(given["index"], values)
        interpreter.invoke()
        logits: NDArray[np.float32] = interpreter.get_tensor(result["index"])
        return logits

    return run
