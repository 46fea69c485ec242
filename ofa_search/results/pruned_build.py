"""From a trained network in which units are zero to the files and the description of the pruned one."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa_profiler.errors import UsageError
from ofa_profiler.models.image_input import ImageInput
from ofa_profiler.runtimes import get_runtime
from ofa_search.pruning.conversion import write_tflite
from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.groups import Dependencies, Kept
from ofa_search.results.pruned import CutNetwork, GroupUnits, Latency, NetworkFacts, card
from ofa_search.results.pruned_files import (
    channels_of,
    layer_channels,
    macs_of,
    parameters_of,
    write_onnx,
    write_weights,
)


@dataclass(frozen=True, eq=False)
class WholeNetwork:
    """The network as the user gave it: its function, the module, what it takes, the classes, and its groups."""

    model: str
    module: nn.Module
    image_input: ImageInput
    labels: tuple[str, ...]
    dependencies: Dependencies

    @property
    def example(self) -> torch.Tensor:
        """An input."""
        return torch.zeros(self.image_input.shape)


@dataclass(frozen=True)
class Written:
    """The files of a network, and the figures that follow from them."""

    files: Mapping[str, Path]
    macs: int
    params: int
    tflite_reason: str | None

    def file_for(self, runtime: str) -> Path:
        """The file that a runtime runs. Raises `UsageError` with the reason if there is none."""
        path = self.files.get(get_runtime(runtime).suffix.removeprefix("."))
        if path is None:
            raise UsageError(f"{runtime} cannot run the network: {self.tflite_reason}")
        return path

    def facts(self, accuracy: Mapping[str, Any], measured_ms: float | None, predicted_ms: float | None) -> NetworkFacts:
        """All figures of the network."""
        sizes = {kind: self.files[kind].stat().st_size for kind in ("onnx", "tflite") if kind in self.files}
        return NetworkFacts(accuracy, measured_ms, predicted_ms, self.macs, self.params, sizes)


def cut_network(module: nn.Module, dependencies: Dependencies, kept: Kept) -> CutNetwork:
    """Cut what is not kept out of a trained module, in place. What is cut must be zero there."""
    before = channels_of(module)
    record = cut(module, dependencies, kept)
    groups = tuple(
        GroupUnits(group.name, group.kind, group.n_units, len(kept.get(group.name, range(group.n_units))))
        for group in dependencies.groups
    )
    return CutNetwork(module.eval(), record.to_json(), groups, layer_channels(before, module))


def uncut(whole: WholeNetwork) -> nn.Module:
    """The whole network in the form in which pruned ones are exported."""
    return cut_network(copy.deepcopy(whole.module), whole.dependencies, {}).module


def check_exports(whole: WholeNetwork, runtime: str) -> None:
    """Raise `UsageError` unless the network can be exported: as ONNX, and for a runtime that is to run it.

    What cannot be written before the training cannot be written after it, either.
    """
    module, shape = _exportable(uncut(whole)), whole.image_input.shape
    with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
        write_onnx(module, shape, Path(folder) / "network.onnx", {})
        if get_runtime(runtime).suffix == ".tflite":
            try:
                write_tflite(module, whole.example, Path(folder) / "network.tflite")
            except UsageError as error:
                raise UsageError(f"the network cannot be pruned for {runtime}: {error}") from error


def _exportable(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module).cpu().float().eval()
    return module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def write_network(
    whole: WholeNetwork,
    module: nn.Module,
    stem: Path,
    accuracy: Mapping[str, Any],
    latency: Latency,
    predicted_ms: float | None,
) -> Written:
    """Write `module`, the whole network or a pruned one, as STEM.safetensors, STEM.onnx and STEM.tflite.

    Raises `UsageError` if it cannot be exported as ONNX. Why there is no TFLite file is in the result.
    """
    module = _exportable(module)
    metadata = card(whole.model, whole.image_input, whole.labels, accuracy, latency, predicted_ms)
    shape = whole.image_input.shape
    files = {
        "onnx": write_onnx(module, shape, stem.with_name(f"{stem.name}.onnx"), metadata),
        "weights": write_weights(module, stem.with_name(f"{stem.name}.safetensors"), {"model": whole.model}),
    }
    tflite, reason = stem.with_name(f"{stem.name}.tflite"), None
    try:
        write_tflite(module, whole.example, tflite, metadata=metadata)
        files["tflite"] = tflite
    except UsageError as error:
        tflite.unlink(missing_ok=True)  # of an earlier run
        reason = str(error)
    return Written(files, macs_of(files["onnx"], shape), parameters_of(module), reason)
