"""Exports ops and networks as model files for a runtime.

    models = export_ops(space.unique_ops([160, 224]), Target("litert"))
    export_network(space, architecture, weights, "net.onnx", metadata={"weights": "trained"})

The input of a model is `input` (batch, channels, height, width; TFLite: batch, height, width, channels), normalised
by the `preprocessing` of the space. The output of an op is `output`; that of a network is `logits` (batch, classes).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from ofa_profiler.base import files
from ofa_profiler.base.cache_dir import default_cache_dir, identity
from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.errors import UsageError
from ofa_profiler.export.base import LOGITS_NAME, OP_OUTPUT_NAME, Exporter
from ofa_profiler.export.forms.base import check_forms, combinations
from ofa_profiler.export.model_cache import ModelCache
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.graph import INPUT, Graph
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import Weights, check_weights
from ofa_profiler.networks.ranges import Ranges, check_ranges, made_up_ranges
from ofa_profiler.protocol.encodings import encoding_for
from ofa_profiler.protocol.forms import PLAIN, AnyForms, Forms
from ofa_profiler.protocol.model_file import Model
from ofa_profiler.protocol.records import Device
from ofa_profiler.protocol.target import BYTES_PER_NUMBER, DEFAULT_TARGET, MIXED, Target
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.known_ranges import ranges_in_networks
from ofa_profiler.spaces.mixed import MixedSpace

__all__ = [
    "INPUT",
    "LOGITS_NAME",
    "OP_OUTPUT_NAME",
    "Exporter",
    "Model",
    "Weights",
    "count_exported",
    "expected_bytes",
    "export_network",
    "export_ops",
    "for_device",
    "get_exporter",
    "network_model",
    "targets_of_kit",
]


@lru_cache(maxsize=64)
def _exporter(runtime: str) -> Exporter:
    module, _, name = get_runtime(runtime).exporter.partition(":")
    exporter: Exporter = getattr(import_module(module), name)()
    return exporter


def get_exporter(target: Target, release: str | None = None) -> Exporter:
    """The exporter of models that `release` of the target's runtime can load; None for a current release.

    Raises `UsageError` if its runtime, its precision or a release that old is not supported.
    """
    exporter = _exporter(target.runtime).for_release(release)
    exporter.check(target)
    return exporter


def for_device(target: Target, device: Device) -> Target:
    """The target with the encoding of int8 that suits the processor of a device, if its runtime has several."""
    if target.encoding or not target.has_integers or not get_exporter(target).encodings:
        return target
    return replace(target, encoding=encoding_for(device.machine, device.json).name)


def targets_of_kit(target: Target) -> dict[str, Target]:
    """Name of an encoding -> target, for a kit, whose board is unknown; empty if there is nothing to choose."""
    is_open = target.precision == "int8" and not target.encoding
    names = get_exporter(target).encodings if is_open else ()
    return {name: replace(target, encoding=name) for name in names}


def export_ops(
    ops: Iterable[Op],
    target: Target = DEFAULT_TARGET,
    *,
    release: str | None = None,
    with_variants: bool = False,
    with_encodings: bool = False,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> list[Model]:
    """Export one model per op, in order, or take it from the cache (`model_cache.py`).

    `with_variants` exports each op in its other forms too, `with_encodings` in all encodings (`targets_of_kit`).

    The weights are for timing only (`made_up_weights.repeating_weights`). An int8 model has the ranges that the op has
    in trained networks, if they are known (`spaces/known_ranges.py`); otherwise they are made up. The same op gives the
    same bytes in every process. They can be loaded by `release` of the runtime. `progress` gets the phase `export`.
    Raises `UsageError` if a model cannot be written.
    """
    if target.precision == MIXED:
        raise UsageError(f"an op has one precision: measure {MIXED} networks by --precision fp32,int8")
    exporter = get_exporter(target, release)
    cache = _cache(cache_dir)
    ops = list(ops)
    encodings = targets_of_kit(target) if with_encodings else {}

    def export(op: Op, way: Forms) -> Model:
        others = {name: _export_op(exporter, op, other, way, cache) for name, other in encodings.items()}
        return replace(_export_op(exporter, op, target, way, cache), encodings=others)

    models = []
    for op in ops:
        ways = combinations(target, op.graph) if with_variants else []
        models.append(replace(export(op, PLAIN), variants={way: export(op, way) for way in ways}))
        report(progress, "export", len(models), len(ops))
    return models


def count_exported(ops: Iterable[Op], target: Target, *, cache_dir: Path | None = None) -> int:
    """The number of these models that are in the cache: in any encoding, if that of the device is unknown."""
    exporter, suffix, cache = get_exporter(target), get_runtime(target.runtime).suffix, _cache(cache_dir)
    possible = list(targets_of_kit(target).values()) or [target]
    return sum(any(cache.has(_identity(exporter, op, each, PLAIN), suffix) for each in possible) for op in ops)


def expected_bytes(
    ops: Iterable[Op], target: Target, *, with_variants: bool = False, with_encodings: bool = False
) -> int:
    """About the size of the models of `ops`, without exporting them: nearly all of a file are parameters.

    `with_encodings`: in all encodings, as in a kit.
    """
    encodings = len(targets_of_kit(target)) or 1 if with_encodings else 1

    def copies(op: Op) -> int:
        return 1 + len(combinations(target, op.graph)) if with_variants else 1

    return encodings * BYTES_PER_NUMBER[target.precision] * sum(op.params * copies(op) for op in ops)


def _cache(folder: Path | None) -> ModelCache:
    return ModelCache((folder or default_cache_dir()) / "models")


def _identity(exporter: Exporter, op: Op, target: Target, forms: Forms) -> str:
    return identity(
        {
            "runtime": target.runtime,
            "version": exporter.version,
            "precision": target.precision,
            "batch": target.batch,
            "op": op.to_json(),
            **({"encoding": target.encoding} if target.encoding else {}),
            **({"dialect": exporter.dialect} if exporter.dialect else {}),
            **({"forms": forms.to_json()} if forms else {}),
            **({"ranges": ranges.to_json()} if (ranges := _ranges_of(op, target)) is not None else {}),
        }
    )


def _ranges_of(op: Op, target: Target) -> Ranges | None:
    """The ranges for an int8 model of an op: those in trained networks, if they are known; None: they are made up."""
    return ranges_in_networks(op) if target.precision == "int8" else None


def _export_op(exporter: Exporter, op: Op, target: Target, forms: Forms, cache: ModelCache) -> Model:
    def build() -> bytes:
        return exporter.build(
            op.graph,
            repeating_weights(op),
            target,
            outputs=_output_names(op.graph),
            metadata={"op": op.key},
            forms=forms,
            ranges=_ranges_of(op, target),
        )

    path, sha256 = cache.get(_identity(exporter, op, target, forms), get_runtime(target.runtime).suffix, build)
    return Model(op.key, path, sha256, exporter.inputs(op.graph, target))


def _output_names(graph: Graph) -> list[str]:
    if len(graph.outputs) == 1:
        return [OP_OUTPUT_NAME]
    return [f"{OP_OUTPUT_NAME}{i}" for i in range(len(graph.outputs))]


def export_network(
    space: SearchSpace,
    architecture: Architecture,
    weights: Weights,
    path: str | Path,
    target: Target = DEFAULT_TARGET,
    *,
    metadata: Mapping[str, str],
    release: str | None = None,
    forms: AnyForms = PLAIN,
    ranges: Ranges | None = None,
) -> Path:
    """Write the network of `architecture` with these weights to `path`, completely or not at all.

    The model stores `metadata` unchanged, sorted by name, for the users of the file: architecture, whether the weights
    are trained, preprocessing, labels. An int8 model needs the `ranges` of its tensors (`calibration.calibrate`); None:
    they are made up, for timing alone. The metadata then say so (`precision`, `ranges`). A network of a `MixedSpace`
    needs a target of the precision `mixed`; `forms` are then `MixedForms`, and the metadata say the precision of each
    slot (`precisions`). `release` of the runtime can load it. Raises `UsageError` if weights or ranges belong to
    another network or the file cannot be written.
    """
    exporter = get_exporter(target, release)
    graph = as_graph(space.layout(architecture))
    check_weights(graph.parameter_shapes, weights)
    precisions = _slot_precisions(space, architecture, target)
    for precision in set((precisions or {"": target.precision}).values()):
        check_forms(target.at(precision), forms.at(precision))
    if target.has_integers:
        ranges = made_up_ranges(graph) if ranges is None else ranges
        check_ranges(graph, ranges)
        metadata = {**metadata, "precision": target.precision, "ranges": ranges.source}
    if precisions is not None:
        metadata = {**metadata, "precisions": json.dumps(precisions)}
    data = exporter.build(
        graph,
        weights,
        target,
        outputs=[LOGITS_NAME],
        metadata=metadata,
        forms=forms,
        ranges=ranges,
        precisions=precisions,
    )
    files.write_bytes(path, data)
    return Path(path)


def _slot_precisions(space: SearchSpace, architecture: Architecture, target: Target) -> dict[str, str] | None:
    """The precision of each slot of a network of mixed precision; None for other networks."""
    if isinstance(space, MixedSpace) != (target.precision == MIXED):
        raise UsageError(f"a network of {space.name} cannot be written in {target.precision}")
    return space.precisions(architecture) if isinstance(space, MixedSpace) else None


def network_model(
    space: SearchSpace,
    architecture: Architecture,
    key: str,
    path: Path,
    target: Target = DEFAULT_TARGET,
) -> Model:
    """The model that `export_network` wrote to `path`, for measuring it under the name `key`."""
    graph = as_graph(space.layout(architecture))
    return Model.from_file(key, path, get_exporter(target).inputs(graph, target))
