"""Cells of any kind: what measures one is a function, and a cell without a table says why."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ofa_profiler import get_space, profile_matrix
from ofa_profiler.devices import FakeDevice
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.measuring.cells import Cell, cells_of
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.tables.matrix import NOT_MEASURED
from ofa_profiler.verification.cells import compare_cells, measure_cells
from ofa_profiler.verification.mixed import MixedCalibration
from ofa_profiler.verification.profile import profile

SPACE = get_space("cifar-mbv3").with_resolutions([24])


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def test_what_measures_a_cell_is_a_function(tmp_path: Path):
    begun = []

    def measure(cell: Cell, device, name, progress) -> Profile:
        begun.append((cell.label, name))
        if cell.settings.threads == 2:
            raise DeviceError("no\npower")
        return profile(device, SPACE, cell.settings, tmp_path, networks=0, name=name, progress=progress)

    cells = cells_of(Settings(), ["fp32"], threads=[1, 2, 4, 8])
    outcomes = measure_cells(FakeDevice(), cells, "m", measure)
    assert begun == [(f"t{n}", f"m-onnxruntime-fp32-t{n}") for n in (1, 2, 4)], "the device has 4 cores"
    assert list(outcomes) == ["t1", "t2", "t4", "t8"]
    found = compare_cells(cells, outcomes, "m", tmp_path)
    assert {label: type(error) for label, error in found.errors.items()} == {"t2": DeviceError, "t8": UsageError}
    assert [one.table.metadata["threads"] for one in found.profiles.values()] == [1, 4]
    frame = pd.read_csv(found.path)
    reasons = frame[frame.kind == NOT_MEASURED].set_index("threads").reason
    assert dict(reasons) == {2: "no power", 8: "device fake: 8 threads were requested, but it allows 4 cores"}
    assert set(frame[frame.kind != NOT_MEASURED].base) == {"m-onnxruntime-fp32-t1"}


def test_without_any_table_there_is_no_matrix(tmp_path: Path):
    def measure(*_given: object) -> Profile:
        pytest.fail("it cannot be measured")

    cells = cells_of(Settings(), ["fp32"], threads=[8, 16])
    found = compare_cells(cells, measure_cells(FakeDevice(), cells, "m", measure), "m", tmp_path)
    assert (found.matrix, list(tmp_path.iterdir())) == ((), [])


@pytest.mark.long
def test_networks_in_mixed_precision_belong_to_a_runtime_and_threads(tmp_path: Path):
    found = profile_matrix(
        FakeDevice(), out=tmp_path, resolutions=[24], threads=[1, 2], calibrate=10, name="m", time_limit_s=60.0
    )
    assert list(found.pairs) == ["onnxruntime-t1", "onnxruntime-t2"]
    assert all(isinstance(each, MixedCalibration) for each in found.pairs.values())
    assert found.mixed is found.pairs["onnxruntime-t1"]
    for label, one in found.profiles.items():
        precision, threads = label.split("-")
        other = {"fp32": "int8", "int8": "fp32"}[precision]
        assert one.table.metadata["mixed"]["with"] == f"m-onnxruntime-{other}-{threads}"
