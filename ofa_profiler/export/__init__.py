"""From ops and networks to the model files that a runtime runs.

    models = export_ops(space.unique_ops([160, 224]))
    export_network(space, architecture, weights, "net.onnx", metadata={"weights": "trained"})

Models take `input` (batch, channels, height, width; TFLite: batch, height, width, channels), normalised as
the space's `preprocessing` says. An op's gives `output`, a network's `logits` (batch, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from ofa_profiler.base import files
from ofa_profiler.base.cache_dir import default_cache_dir, identity
from ofa_profiler.errors import UsageError
from ofa_profiler.export.base import INPUT_NAME, LOGITS_NAME, OP_OUTPUT_NAME, Exporter, Model
from ofa_profiler.export.model_cache import ModelCache
from ofa_profiler.export.onnx import OnnxExporter
from ofa_profiler.export.tflite import TfliteExporter
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import Weights, check_weights, layout_of, parameter_shapes, repeating_weights
from ofa_profiler.spaces import SearchSpace

__all__ = [
    "INPUT_NAME",
    "LOGITS_NAME",
    "OP_OUTPUT_NAME",
    "Exporter",
    "Model",
    "Weights",
    "count_exported",
    "default_cache_dir",
    "export_network",
    "export_ops",
    "exporters",
    "get_exporter",
]

_EXPORTERS: dict[str, Exporter] = {exporter.runtime: exporter for exporter in (OnnxExporter(), TfliteExporter())}


def exporters() -> Mapping[str, Exporter]:
    """Every exporter by the name of its runtime; `.precisions` says what it can do."""
    return dict(_EXPORTERS)


def get_exporter(runtime: str, precision: str) -> Exporter:
    """The exporter for `runtime`. Raises `UsageError` with what is supported."""
    if runtime not in _EXPORTERS:
        raise UsageError(f"runtime {runtime!r} is not supported; supported are {', '.join(_EXPORTERS)}")
    exporter = _EXPORTERS[runtime]
    if precision not in exporter.precisions:
        supported = ", ".join(exporter.precisions)
        raise UsageError(f"precision {precision!r} is not supported with {runtime}; supported are {supported}")
    return exporter


def export_ops(
    ops: Iterable[Op],
    *,
    batch: int = 1,
    precision: str = "fp32",
    runtime: str = "onnxruntime",
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Model]:
    """One model per op, in order, from the cache where it is there already (`cache.py` says how it is kept).

    The weights are made up for timing (`weights.repeating_weights`). The same op gives the same bytes in
    every process. `progress` is called with the number of models done and to do.
    """
    exporter = get_exporter(runtime, precision)
    if batch < 1:
        raise UsageError(f"batch {batch} is not a positive number")
    cache = ModelCache((cache_dir or default_cache_dir()) / "models")
    ops = list(ops)
    models = []
    for op in ops:
        models.append(_export_op(exporter, op, batch, precision, cache))
        if progress is not None:
            progress(len(models), len(ops))
    return models


def count_exported(
    ops: Iterable[Op],
    *,
    batch: int = 1,
    precision: str = "fp32",
    runtime: str = "onnxruntime",
    cache_dir: Path | None = None,
) -> int:
    """How many of these models `export_ops` would find in the cache."""
    exporter = get_exporter(runtime, precision)
    cache = ModelCache((cache_dir or default_cache_dir()) / "models")
    return sum(cache.has(_identity(exporter, op, batch, precision), exporter.suffix) for op in ops)


def _identity(exporter: Exporter, op: Op, batch: int, precision: str) -> str:
    return identity(
        {
            "runtime": exporter.runtime,
            "version": exporter.version,
            "precision": precision,
            "batch": batch,
            "op": asdict(op),
        }
    )


def _export_op(exporter: Exporter, op: Op, batch: int, precision: str, cache: ModelCache) -> Model:
    layout = layout_of(op)

    def build() -> bytes:
        weights = repeating_weights(op)
        return exporter.build(
            layout, weights, batch=batch, precision=precision, output_name=OP_OUTPUT_NAME, metadata={"op": op.key}
        )

    path, sha256 = cache.get(_identity(exporter, op, batch, precision), exporter.suffix, build)
    return Model(op.key, path, sha256, exporter.input_shape(layout, batch))


def export_network(
    space: SearchSpace,
    architecture: Architecture,
    weights: Weights,
    path: str | Path,
    *,
    batch: int = 1,
    metadata: Mapping[str, str],
    precision: str = "fp32",
    runtime: str = "onnxruntime",
) -> Path:
    """Write the network of `architecture` with these weights to `path`, whole or not at all.

    `metadata` goes into the model as it is, sorted by name: what the user of the file must know (the
    architecture, whether the weights are trained, preprocessing, labels). Raises `UsageError` for weights
    of another network and when the file cannot be written.
    """
    exporter = get_exporter(runtime, precision)
    layout = space.layout(architecture)
    check_weights(parameter_shapes(layout), weights)
    data = exporter.build(layout, weights, batch=batch, precision=precision, output_name=LOGITS_NAME, metadata=metadata)
    files.write_bytes(path, data)
    return Path(path)
