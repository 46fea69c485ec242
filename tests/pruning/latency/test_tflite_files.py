"""TFLite files of cut networks without exporting them, and where they are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.cut_nets import ResidualNet, cut_parameters, residual_dependencies
from torch import nn

from ofa_profiler.devices.fake import FakeDevice
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.table import LatencyTable
from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.graph.find import find_groups
from ofa_search.pruning.latency.exporters import EXPORTERS
from ofa_search.pruning.latency.layer_sizes import numbers_of
from ofa_search.pruning.latency.model import measured_model, model_of_table
from ofa_search.pruning.latency.slots import Blocks, find_places
from ofa_search.pruning.latency.space import parse_key
from ofa_search.pruning.latency.tflite_files import TfliteFiles

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def residual() -> TfliteFiles:
    net = ResidualNet((16, 32), depth=1).eval()
    return TfliteFiles(net, residual_dependencies(net), ["1x3x8x8"], cut_parameters)


@pytest.mark.slow
def test_sizes_are_those_of_an_export(residual: TfliteFiles) -> None:
    counts = {"stem.0": 8, "blocks.0.conv1": 16, "blocks.1.conv1": 3, "blocks.1.shortcut.0": 16}
    assert numbers_of(residual.model(counts)) == numbers_of(residual.exported(counts))
    assert residual.slow_because == ""


def test_the_file_runs_and_is_the_same_again(residual: TfliteFiles, tmp_path: Path) -> None:
    model = residual.write({"blocks.1.shortcut.0": 8}, tmp_path)
    before = model.path.read_bytes()
    (out,) = model.run({"input": np.ones((1, 8, 8, 3), np.float32)}).values()
    assert out.shape == (1, 10)
    assert np.isfinite(out).all()
    assert residual.write({"blocks.1.shortcut.0": 8}, tmp_path).path.read_bytes() == before


def test_a_slot_per_residual_block(residual: TfliteFiles) -> None:
    blocks = Blocks(residual, this_machine=True)
    places = find_places(blocks, residual.dependencies.groups)
    depends = [set(place.groups) for place in places]
    assert {"blocks.0.conv1", "stem.0"} in depends
    assert set.union(*depends) == set(residual.dependencies.by_name)
    assert places[-1].name.endswith(":head")
    assert all("blocks." in place.name or place.name.endswith((":stem.0", ":head")) for place in places)
    counts = {group.name: 8 for group in residual.dependencies.groups}
    network = blocks.network(counts)
    assert len(network.blocks) == len(places)
    assert sum(block.macs for block in network.blocks) == residual.model(counts).macs
    assert sum(len(block.kernels) for block in network.blocks) > len(places)


def test_the_grid_is_for_its_runtime(residual: TfliteFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, "litert", lambda *_: residual)  # type: ignore[call-overload]
    device, settings = FakeDevice(lambda key: 0.1 + 1e-3 * sum(parse_key(key)[1])), Settings(Target("litert"))
    given = residual.module, residual.dependencies, residual.shapes, cut_parameters, device, settings, tmp_path
    model = measured_model(*given, levels=2, networks=3, cache_dir=tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache" / "models").iterdir()} == {".bin", ".tflite"}
    table = LatencyTable.load(tmp_path / "pruning.csv")
    assert table.metadata["runtime"] == "litert"
    kinds = {row.description.kind.partition("+")[0] for row in table.rows}
    assert kinds <= {"CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"}
    where = residual.dependencies, residual.shapes, tmp_path / "pruning.csv"
    assert model_of_table(*where, "litert").grid.points.keys() == model.grid.points.keys()
    assert model_of_table(*where).grid.correction == model.grid.correction
    with pytest.raises(InputFileError, match=r"pruning\.csv: was measured with litert, not onnxruntime"):
        model_of_table(*where, "onnxruntime")


def test_a_layer_without_ours_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Softplus(), nn.Conv2d(16, 8, 3)).eval()
    exporter = TfliteFiles(net, find_groups(net, (torch.zeros(1, 3, 8, 8),)), ["1x3x8x8"], cut)
    with pytest.raises(UsageError, match="layer 1: the operator softplus cannot be converted"):
        find_places(Blocks(exporter, this_machine=True), exporter.dependencies.groups)
