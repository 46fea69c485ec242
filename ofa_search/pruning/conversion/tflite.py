"""A torch module as a TFLite file, checked by running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ofa_profiler.base.extras import need
from ofa_profiler.base.files import write_bytes
from ofa_profiler.errors import UsageError
from ofa_profiler.export import LOGITS_NAME, OP_OUTPUT_NAME, get_exporter
from ofa_profiler.models.tflite_runtime import outputs_of, prepared, reasons
from ofa_profiler.models.torch_export import evaluated
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.parameters import Array, Weights
from ofa_profiler.protocol.target import Target
from ofa_search.pruning.conversion.convert import as_inputs, to_graph
from ofa_search.pruning.conversion.rounding import TOLERANCE, tolerance_of

if TYPE_CHECKING:
    import torch

_RUNS = 2


def write_tflite(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | tuple[torch.Tensor, ...],
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module in eval mode as a float32 TFLite file: inputs (N, H, W, C) of the shapes of `example_inputs`.

    Only a file whose outputs are those of torch, on random inputs, is written to `path`. `metadata` is stored in the
    file unchanged. Raises `UsageError` if an operator has no layer (`to_graph`), or if outputs differ.
    """
    need("ai-edge-litert", extra="litert", purpose="the check of TFLite files", module="ai_edge_litert.interpreter")
    inputs = as_inputs(example_inputs)
    graph, weights = to_graph(module, inputs)
    data = tflite_bytes(graph, weights, batch=int(inputs[0].shape[0]), metadata=metadata)
    check_outputs(module, data, [tensor.name for tensor in graph.inputs], inputs, output_names(graph))
    write_bytes(Path(path), data)


def tflite_bytes(graph: Graph, weights: Weights, *, batch: int = 1, metadata: Mapping[str, str] | None = None) -> bytes:
    """The layers of `to_graph` as a float32 TFLite file. Raises `UsageError` if the exporter has no such layer."""
    target = Target("litert", batch=batch)
    return get_exporter(target).build(graph, weights, target, outputs=output_names(graph), metadata=metadata or {})


def output_names(graph: Graph) -> list[str]:
    """The names of the outputs in the file."""
    if len(graph.outputs) == 1:
        return [LOGITS_NAME]
    return [f"{OP_OUTPUT_NAME}{i}" for i in range(len(graph.outputs))]


def check_outputs(
    module: torch.nn.Module, data: bytes, names: Sequence[str], inputs: Sequence[torch.Tensor], outputs: Sequence[str]
) -> None:
    """Raise `UsageError` unless LiteRT computes what the module computes, on random inputs of these shapes."""
    import torch

    rng = np.random.default_rng(0)
    for _ in range(_RUNS):
        arrays = [rng.standard_normal(tuple(tensor.shape), dtype=np.float32) for tensor in inputs]
        tensors = [torch.from_numpy(x).to(tensor.device) for x, tensor in zip(arrays, inputs, strict=True)]
        with evaluated(module), torch.no_grad():
            found = module(*tensors)
        expected = [
            tensor.detach().cpu().numpy() for tensor in (found if isinstance(found, (list, tuple)) else [found])
        ]
        with reasons("the file that was written"):
            interpreter = prepared(data, {name: _moved(x, 1, -1) for name, x in zip(names, arrays, strict=True)})
            interpreter.invoke()
            got = outputs_of(interpreter)
        for name, value in zip(outputs, expected, strict=True):
            difference = float(np.abs(_moved(got[name], -1, 1) - value).max()) / max(float(np.abs(value).max()), 1e-30)
            if not difference <= TOLERANCE and not difference <= (allowed := tolerance_of(module, tensors)):
                raise UsageError(
                    f"the TFLite file of {type(module).__name__} is not written: its {name} differ from torch's by "
                    f"{difference:.1e} of the largest, more than {allowed:.0e}"
                )


def _moved(x: Array, source: int, target: int) -> Array:
    """A map with its channels at another axis; vectors stay."""
    return np.ascontiguousarray(np.moveaxis(x, source, target)) if x.ndim == 4 else x
