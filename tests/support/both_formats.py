"""Runs a graph of layers in both runtimes on arrays of torch's layout."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter

from ofa_profiler.export import get_exporter
from ofa_profiler.networks.graph import Graph
from ofa_profiler.protocol.target import Target

RUNTIMES = ("onnxruntime", "litert")


def run_graph_file(runtime: str, graph: Graph, weights, *arrays: np.ndarray) -> np.ndarray:
    """The first output of the file that the exporter of this runtime writes, on (N, C, H, W) or (N, C)."""
    target = Target(runtime, batch=len(arrays[0]))
    outputs = [f"output{i}" for i in range(len(graph.outputs))]
    data = get_exporter(target).build(graph, weights, target, outputs=outputs, metadata={})
    return run_file(runtime, data, dict(zip((tensor.name for tensor in graph.inputs), arrays, strict=True)))


def run_file(runtime: str, data: bytes, feeds: dict[str, np.ndarray]) -> np.ndarray:
    if runtime == "onnxruntime":
        return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], channels_last(feeds[details["name"]]))
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return np.moveaxis(output, -1, 1) if output.ndim == 4 else output


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim == 4 else x


def torch_output(module: torch.nn.Module, *arrays: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.eval()(*map(torch.from_numpy, arrays)).numpy()


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal to 1e-4 of the largest output."""
    assert got.shape == expected.shape
    assert expected.std() > 1e-6  # a constant output would prove nothing
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
