"""Rows that are much slower than similar ops, or faster than the device, are named on the screen and in the JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT

from ofa_profiler import LatencyTable, get_space, profile
from ofa_profiler.cli.profile import main
from ofa_profiler.devices import FakeDevice
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.tables.roofline import Peaks, work_of
from ofa_profiler.tables.row import Row
from ofa_profiler.tables.suspects import FAST, SLOW, find_suspects

OPS = {op.key: op for op in get_space("cifar-mbv3").with_resolutions([24]).unique_ops()}
BLOCKS = [op for op in OPS.values() if op.kind == "mbconv"]


def usual_ms(key: str) -> float:
    return 0.01 + OPS[key].macs / 1e7


def rows(slow: dict[str, float]) -> list[Row]:
    times = {key: slow.get(key, 1.0) * usual_ms(key) for key in OPS}
    return [Row.from_op(op, batch=1, precision="fp32", samples_ms=[times[key]]) for key, op in OPS.items()]


@given(st.sampled_from(BLOCKS), st.floats(11, 1000))
def test_a_slow_op_is_found_among_its_neighbours(op: Op, factor: float) -> None:
    (found,) = find_suspects(rows({op.key: factor}))
    assert (found.op, found.reason) == (op.key, SLOW)
    assert found.ms == pytest.approx(factor * usual_ms(op.key))
    assert found.neighbours is not None
    assert found.neighbours >= 3
    assert found.ms > 5 * found.expected_ms


@given(st.sampled_from(sorted(OPS)), st.floats(10, 500), st.floats(10, 500), st.floats(0.2, 5))
def test_a_row_above_the_peaks_is_too_fast(key: str, gmacs: float, gbytes: float, factor: float) -> None:
    op = OPS[key]
    work = work_of(op, 8, "fp32")
    assert work is not None
    assert work.n_bytes == 4 * (8 * op.boundary + op.params)
    least_ms = max(8 * op.macs / (gmacs * 1e6), work.n_bytes / (gbytes * 1e6))
    row = Row.from_op(op, batch=8, precision="fp32", samples_ms=[factor * least_ms])
    found = find_suspects([row], Peaks(gmacs, gbytes), {key: 7.0})
    assert [suspect.reason for suspect in found] == [FAST] * (1.5 * factor < 1)
    for suspect in found:
        assert (suspect.ms, suspect.again_ms) == (row.median_ms, 7.0)
        assert suspect.expected_ms == pytest.approx(least_ms)
        assert suspect.factor == pytest.approx(1 / factor)
    assert find_suspects([row]) == []  # without peaks, nobody knows


@given(st.dictionaries(st.sampled_from(sorted(OPS)), st.floats(0.8, 1.25)))
def test_noise_and_size_are_not_suspicious(factors: dict[str, float]) -> None:
    assert find_suspects(rows(factors)) == []


def test_ops_that_cannot_be_compared() -> None:
    tensor = TensorSpec("x", "float32", (4,))
    unknown = Op("of-somebody", (tensor,), (tensor,), {}, "theirs")
    row = Row.from_op(unknown, batch=1, precision="fp32", samples_ms=[9.0])
    failed = replace(row, status="failed", median_ms=None, mean_ms=None)
    assert find_suspects([row, failed]) == []
    classifier = next(key for key, op in OPS.items() if op.kind == "classifier")
    assert find_suspects(rows({classifier: 100.0})) == []  # the only one of its kind


def test_measured_tables_have_none() -> None:
    for path in (ROOT / "latency_tables").glob("*.csv"):
        assert find_suspects(LatencyTable.load(path).rows) == []


@dataclass(frozen=True)
class SlowOp(FakeDevice):
    """A device on which one op is slow."""

    slow: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "latency_ms", lambda key: usual_ms(key) * (20 if key == self.slow else 1))


def test_the_table_and_the_screen_name_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = BLOCKS[7].key
    made = profile(SlowOp(slow=slow), "cifar-mbv3", tmp_path, resolutions=[24], name="t", calibrate=0)
    (kept,) = json.loads((tmp_path / "t.json").read_text())["suspects"]
    assert (kept["op"], kept["ms"]) == (slow, pytest.approx(20 * usual_ms(slow), rel=0.05))
    (note,) = made.table.doubts
    assert f"note: table t: op {slow} is over 5 times slower than similar ones" in str(note)
    assert made.table.warnings == []
    assert main(["--import", str(tmp_path / "t.jsonl"), "--out", str(tmp_path)]) == 0
    assert f"op {slow} is over 5 times slower" in capsys.readouterr().err
    profile(SlowOp(), "cifar-mbv3", tmp_path, resolutions=[24], name="other", calibrate=0)
    assert "suspects" not in json.loads((tmp_path / "other.json").read_text())
