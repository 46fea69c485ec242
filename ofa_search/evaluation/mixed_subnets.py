"""Measures the accuracy of a subnet in mixed precision: a post-training quantization, run on held-out images.

The network runs in LiteRT, as on a device, in the fast forms. Its integers are the same on all processors. It is cut
into parts, one per run of slots of the same precision, each a model of our exporter with float32 inputs and outputs.
The parts of 8 bits quantize their input and dequantize their output, which is what one file with all parts does where
the precision changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofa_profiler.base.extras import need
from ofa_profiler.export import INPUT, LOGITS_NAME, OP_OUTPUT_NAME, get_exporter
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import Layout, as_graph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import Span
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.data.images import Images
from ofa_search.evaluation.ranges import measure_ranges
from ofa_search.evaluation.subnets import CPU_BATCH, CalibratedSubnets, PreparedImages, top1
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.supernet import Supernet

RUNTIME = "litert"

#: Runs one part: float32 (N, H, W, C) -> float32.
_Part = Callable[[NDArray[np.float32]], NDArray[np.float32]]


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
    parts = [_loaded(*part) for part in _parts(layout, precisions, weights, ranges)]
    found = []
    for batch in inputs:
        values = np.zeros((CPU_BATCH, *batch.shape[2:], batch.shape[1]), dtype=np.float32)
        values[: len(batch)] = batch.permute(0, 2, 3, 1).numpy()
        for part in parts:
            values = part(values)
        found.append(values[: len(batch)].argmax(1))
    return torch.from_numpy(np.concatenate(found))


def _parts(
    layout: Layout, precisions: Mapping[str, str], weights: Weights, ranges: Ranges
) -> Iterator[tuple[Graph, Weights, Target, Ranges | None, str]]:
    """Graph, weights, target, ranges and name of the output of each part."""
    source = INPUT
    last = layout[-1][0]
    for precision, slots in groupby(layout, key=lambda slot: precisions[slot[0]]):
        graph = as_graph(list(slots))
        own = {name: weights[name] for name in graph.parameter_shapes}
        # Inside the network, the input of this part is the output of the last one.
        spans: dict[str, Span] = {**ranges.spans, INPUT: ranges.spans[source]}
        (source,) = graph.outputs
        output = LOGITS_NAME if source.startswith(f"{last}.") else OP_OUTPUT_NAME
        target = Target(RUNTIME, precision, CPU_BATCH)
        yield graph, own, target, Ranges(spans, ranges.source) if precision == "int8" else None, output


def _loaded(graph: Graph, weights: Weights, target: Target, ranges: Ranges | None, output: str) -> _Part:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    forms = Forms({group: names[0] for group, names in candidates(target, graph).items()})
    model = get_exporter(target).build(
        graph, weights, target, outputs=[output], metadata={}, forms=forms, ranges=ranges
    )
    interpreter = Interpreter(model_content=model, num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(given["index"], values)
        interpreter.invoke()
        found: NDArray[np.float32] = interpreter.get_tensor(result["index"])
        return found

    return run
