"""The probes show the peaks of a device, and real ops stay below them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.kits import QUICK

from ofa_profiler import get_space
from ofa_profiler.devices import open_device
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.export import export_ops
from ofa_profiler.measuring.probes import peaks_of, probe_ops
from ofa_profiler.measuring.session import measure
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.roofline import Peaks, work_of
from ofa_profiler.tables.row import Row
from ofa_profiler.tables.suspects import find_suspects

TARGET = Target()


def of_speed(gmacs: float, gbytes: float, failing: int = 0) -> dict[str, Measurement]:
    """The measurements of a device with these peaks, on which the first probes fail."""
    found = {}
    for i, op in enumerate(probe_ops()):
        work = work_of(op, 1, "fp32")
        assert work is not None
        ms = max(work.macs / gmacs, work.n_bytes / gbytes) / 1e6
        failed = Measurement(op.key, (), "failed", "no memory")
        found[op.key] = failed if i < failing else Measurement(op.key, ((ms,),))
    return found


def test_the_best_probes_are_the_peaks() -> None:
    peaks = peaks_of(probe_ops(), of_speed(50, 20), TARGET)
    assert peaks is not None
    figures = [peaks[f"{name}_per_s"] for name in ("gmacs", "gbytes", "memory_gbytes")]
    assert figures == pytest.approx([50, 20, 20])
    assert peaks["probes_ms"].keys() == {op.key for op in probe_ops()}
    assert Peaks.from_metadata({"peaks": peaks}) == Peaks(*figures)


def test_probes_that_fail_are_left_out() -> None:
    peaks = peaks_of(probe_ops(), of_speed(50, 20, failing=1), TARGET)
    assert peaks is not None
    assert len(peaks["probes_ms"]) == len(probe_ops()) - 1
    assert peaks_of(probe_ops(), of_speed(50, 20, failing=len(probe_ops())), TARGET) is None
    assert peaks_of(probe_ops(), {}, TARGET) is None


def test_no_probe_has_the_key_of_an_op_of_a_table() -> None:
    keys = [op.key for op in probe_ops()]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("probe ") for key in keys)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_real_ops_stay_below_the_peaks(tmp_path: Path, runtime: str) -> None:
    settings = replace(QUICK, target=Target(runtime), visit_s=0.02, min_rounds=3)
    ops = [*probe_ops(), *get_space("cifar-mbv3").with_resolutions([32]).unique_ops()[::8]]
    models = export_ops(ops, settings.target, cache_dir=tmp_path)
    cores = (min(os.sched_getaffinity(0)),) if hasattr(os, "sched_getaffinity") else None
    with open_device("local", DeviceOptions(cores=cores)) as device:
        found = measure(device, models, settings)
    metadata = {"peaks": peaks_of(probe_ops(), found, settings.target)}
    peaks = Peaks.from_metadata(metadata)
    assert peaks is not None
    assert peaks.memory_gbytes_per_s is not None
    assert peaks.memory_gbytes_per_s <= peaks.gbytes_per_s
    samples = {op: found[op.key].samples_ms for op in ops[len(probe_ops()) :]}
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=ms) for op, ms in samples.items()]
    assert not [s for s in find_suspects(rows, peaks) if s.reason == "fast"]
