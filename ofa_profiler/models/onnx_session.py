"""Runs ONNX models on this machine, as the agent does: one thread, the CPU provider."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Array
from ofa_profiler.models.onnx_order import settle

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_LONGEST_REASON = 300
#: A place in the C++ code of onnxruntime, with the function there.
_PLACE = re.compile(r"(/onnxruntime_src/)?\S+\.(cc|h):\d+ ((\w|:|<[^()]*>)+ ?)*\([^()]*\)( const)?( \[with [^]]*\])? ")
#: How onnxruntime begins to say why a node failed.
_FAILED = re.compile(r"Non-zero status code returned while running \w+ node\. Name:'[^']*' Status Message: ")


def session(
    data: bytes, *, level: str = "ORT_ENABLE_ALL", optimized: Path | None = None, what: str = "the model"
) -> onnxruntime.InferenceSession:
    """A session, which writes its optimised graph to `optimized`. Raises `UsageError` with onnxruntime's reason."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        # Without its fallback, which prints, and tries the same again.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime has errors of many kinds without a common base
        raise UsageError(f"onnxruntime cannot load {what}: {reason(error)}") from error


def run(
    opened: onnxruntime.InferenceSession, feeds: Mapping[str, Array], names: Sequence[str], what: str = "the model"
) -> dict[str, Array]:
    """Run a session -> its outputs by name. Raises `UsageError` with onnxruntime's reason."""
    try:
        return dict(zip(names, opened.run(list(names), dict(feeds)), strict=True))
    except Exception as error:  # as above
        hint = "give others by --inputs FILE.npz or --shape"
        raise UsageError(f"onnxruntime cannot run {what} with these inputs: {reason(error)}; {hint}") from error


def optimized_graph(data: bytes, level: str) -> onnx.ModelProto:
    """The graph that onnxruntime makes of a model for the CPU of this machine. Raises `UsageError`."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="ofa-model-") as folder:
        path = Path(folder) / "optimized.onnx"
        session(data, level=level, optimized=path)
        model = onnx.load(path)
    settle(model)
    return model


def reason(error: Exception) -> str:
    """What onnxruntime says, without its prefix, places in its code and outer nodes, as one short line."""
    text = _PLACE.sub("", " ".join(str(error).split()))
    while len(_FAILED.findall(text)) > 1:  # a node in the body of a node: the inner one tells
        text = _FAILED.sub("", text, count=1)
    return text.removeprefix("[ONNXRuntimeError] : ")[:_LONGEST_REASON]
