"""The files of a pruned network: weights, ONNX, TFLite. Each is compared with the torch module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import nn

from ofa_profiler.base.files import replacing
from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Array
from ofa_profiler.models.onnx_costs import node_macs
from ofa_profiler.models.onnx_graph import OnnxGraph
from ofa_profiler.models.onnx_session import run, session
from ofa_profiler.models.onnx_values import capture
from ofa_profiler.models.torch_export import export_module
from ofa_search.pruning.conversion.rounding import TOLERANCE, tolerance_of
from ofa_search.results.pruned import LayerChannels

_CHECKED_INPUTS = 4


def write_weights(module: nn.Module, path: Path, metadata: Mapping[str, str]) -> Path:
    """The state dict as safetensors. Tensors that share memory are written once each."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=dict(metadata))
    return path


def write_onnx(module: nn.Module, shape: Sequence[int], path: Path, metadata: Mapping[str, str]) -> Path:
    """The module as an ONNX file with these metadata. Raises `UsageError` if its outputs are not those of torch."""
    with replacing(path) as temporary:
        export_module(module, temporary, ["x".join(map(str, shape))])
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
        data = model.SerializeToString(deterministic=True)
        check_outputs(module, shape, OnnxRun(data), path.name)
        temporary.write_bytes(data)
    return path


class OnnxRun:
    """Runs an ONNX file with one input and one output that counts, the first."""

    def __init__(self, data: bytes) -> None:
        self._session = session(data)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def __call__(self, values: Array) -> Array:
        return run(self._session, {self._input: values}, [self._output])[self._output]


@torch.no_grad()
def check_outputs(module: nn.Module, shape: Sequence[int], run_file: OnnxRun, name: str) -> float:
    """The largest difference between the outputs of a file and of torch, as a fraction of the largest output.

    Raises `UsageError` if it is more than rounding explains.
    """
    module = module.eval()
    rng = np.random.default_rng(0)
    device = next(module.parameters()).device
    worst = 0.0
    for _ in range(_CHECKED_INPUTS):
        values = rng.standard_normal(shape, dtype=np.float32)
        inputs = torch.from_numpy(values).to(device)
        expected = module(inputs).float().cpu().numpy()
        largest = max(float(np.abs(expected).max()), 1e-12)
        difference = float(np.abs(run_file(values) - expected).max()) / largest
        if not difference <= TOLERANCE and not difference <= tolerance_of(module, [inputs]):
            raise UsageError(
                f"the outputs of {name} differ from those of torch by {difference:.2g} of the largest output"
            )
        worst = max(worst, difference)
    return worst


def macs_of(path: Path, shape: Sequence[int]) -> int:
    """The multiply-accumulates of an ONNX file, of which `shape` is the input."""
    graph = OnnxGraph(onnx.load(path))
    name = next(value.name for value in graph.model.graph.input)
    facts = capture(graph, {name: np.zeros(shape, dtype=np.float32)})
    shapes = {name: fact.shape for name, fact in facts.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.model.graph.initializer}
    return sum(node_macs(node, shapes) for node in graph.nodes)


def parameters_of(module: nn.Module) -> int:
    """The number of trained weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def layer_channels(before: Mapping[str, tuple[int, int]], after: nn.Module) -> tuple[LayerChannels, ...]:
    """Channels of all layers with weights; `before` is what `channels_of` gave for the module before the cut."""
    now = channels_of(after)
    return tuple(LayerChannels(name, channels, now[name]) for name, channels in before.items() if name in now)


def channels_of(module: nn.Module) -> dict[str, tuple[int, int]]:
    """(output, input) channels of each convolution and matrix, in the order of the module."""
    found = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            found[name] = (layer.out_channels, layer.in_channels)
        elif isinstance(layer, nn.Linear):
            found[name] = (layer.out_features, layer.in_features)
    return found
