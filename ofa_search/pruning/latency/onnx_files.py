"""ONNX files of a network with any numbers of its units kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.models.onnx_blocks import CALL_US
from ofa_profiler.models.onnx_model import OnnxModel
from ofa_profiler.models.torch_export import export_module
from ofa_search.pruning.groups import Counts
from ofa_search.pruning.latency.exporting import Exporter, Layers
from ofa_search.pruning.latency.rules import Example
from ofa_search.pruning.latency.sizes import Template, name_before, separated, with_made_up_weights

if TYPE_CHECKING:
    import onnx


class OnnxFiles(Exporter["onnx.ModelProto"]):
    """For onnxruntime."""

    call_us = CALL_US

    def exported(self, counts: Counts) -> onnx.ModelProto:
        """The file that torch writes of the cut module, with made-up weights."""
        import onnx

        with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
            path = export_module(self.cut_module(counts), Path(folder) / "model.onnx", self.shapes)
            return with_made_up_weights(separated(onnx.load(path)))

    def write(self, counts: Counts, folder: Path) -> OnnxModel:
        path = folder / "model.onnx"
        path.write_bytes(self.model(counts).SerializeToString(deterministic=True))
        return OnnxModel(path)

    def _learned(self, whole: onnx.ModelProto, examples: Sequence[Example[onnx.ModelProto]]) -> Template:
        return Template.learned(whole, self.dependencies, examples)

    def _find_layers(self, layers: frozenset[str]) -> Layers:
        found: dict[str, tuple[str, str]] = {}
        for node in self.model({}).graph.node:
            read = (name_before(name).rpartition(".")[0] for name in node.input)
            layer = next((name for name in read if name in layers), "")
            about = layer, node.input[0] if node.input else ""
            found |= dict.fromkeys((node.name, *node.output), about)
        return found
