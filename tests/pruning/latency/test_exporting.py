"""Files of cut networks without exporting them."""

from __future__ import annotations

import numpy as np
import pytest
from support.cut_nets import ResidualNet, cut_parameters, residual_dependencies

from ofa_search.pruning.latency.onnx_files import OnnxFiles
from ofa_search.pruning.latency.sizes import numbers_of, structure_of


@pytest.mark.parametrize("flat", [0, 16])
def test_sizes_are_those_of_an_export(flat: int) -> None:
    net = ResidualNet((16, 24), depth=1, flat=flat).eval()
    dependencies = residual_dependencies(net)
    exporter = OnnxFiles(net, dependencies, ["1x3x8x8"], cut_parameters)
    counts = {"stem.0": 8, "blocks.0.conv1": 16, "blocks.1.conv1": 3, "blocks.1.shortcut.0": 16}
    made, exported = exporter.model(counts), exporter.exported(counts)
    assert exporter.slow_because == ""
    assert structure_of(made) == structure_of(exported)
    assert numbers_of(made) == numbers_of(exported)
    assert numbers_of(exporter.model({})) == numbers_of(exporter.exported({}))


def test_the_file_runs() -> None:
    import onnxruntime

    net = ResidualNet((16, 24), depth=1, flat=16).eval()
    exporter = OnnxFiles(net, residual_dependencies(net), ["1x3x8x8"], cut_parameters)
    data = exporter.model({"blocks.1.shortcut.0": 8}).SerializeToString()
    session = onnxruntime.InferenceSession(data)
    (out,) = session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
    assert out.shape == (1, 10)
    assert np.isfinite(out).all()
    assert data == exporter.model({"blocks.1.shortcut.0": 8}).SerializeToString()
