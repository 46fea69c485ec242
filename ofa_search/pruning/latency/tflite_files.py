"""TFLite files of a network with any numbers of its units kept."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.models.tflite_cutter import CALL_US
from ofa_profiler.models.tflite_model import TfliteModel
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_search.pruning.conversion import to_graph
from ofa_search.pruning.conversion.tflite import output_names, tflite_bytes
from ofa_search.pruning.groups import Counts
from ofa_search.pruning.latency.exporting import Exporter, Layers
from ofa_search.pruning.latency.layer_sizes import LayerTemplate
from ofa_search.pruning.latency.rules import Example

if TYPE_CHECKING:
    import torch


class TfliteFiles(Exporter[Graph]):
    """For LiteRT."""

    call_us = CALL_US

    def exported(self, counts: Counts) -> Graph:
        """The layers of the cut module. Raises `UsageError` that names a layer for which there is none of ours."""
        return to_graph(self.cut_module(counts), self._example)[0]

    def write(self, counts: Counts, folder: Path) -> TfliteModel:
        path, graph = folder / "model.tflite", self.model(counts)
        path.write_bytes(tflite_bytes(graph, repeating_weights(graph)))
        return TfliteModel(path, is_ours=True)

    @property
    def _example(self) -> tuple[torch.Tensor, ...]:
        """Inputs of the module, in the order of its arguments."""
        import torch

        order = list(inspect.signature(self.module.forward).parameters)
        named = {name: sizes for name, _, sizes in (shape.rpartition("=") for shape in self.shapes)}
        sizes = [named[name] for name in sorted(named, key=lambda name: order.index(name) if name else 0)]
        return tuple(torch.zeros(tuple(map(int, each.split("x")))) for each in sizes)

    def _learned(self, whole: Graph, examples: Sequence[Example[Graph]]) -> LayerTemplate:
        return LayerTemplate.learned(whole, self.dependencies, examples)

    def _find_layers(self, layers: frozenset[str]) -> Layers:
        return {node.name: (node.name if node.name in layers else "", node.inputs[0]) for node in self.model({}).nodes}

    def _node_of(self, kernel: str) -> str:
        """Kernels are called NODE/OPERATOR or NODE.PART/OPERATOR, and the last ones like the outputs of the file."""
        graph = self.model({})
        outputs = dict(zip(output_names(graph), graph.outputs, strict=True))
        name = outputs.get(kernel, kernel.rpartition("/")[0])
        found = [node.name for node in graph.nodes if f"{name}.".startswith(f"{node.name}.")]
        return max(found, key=len, default=kernel)
