"""Probes and doubtful rows are measured with the networks: peaks of the device, second times, suspects."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ofa_profiler import Architecture, LatencyTable, get_space, profile
from ofa_profiler.base.progress import Progress
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.cli.verify import main as ofa_verify
from ofa_profiler.devices import Agent, FakeDevice
from ofa_profiler.measuring.probes import probe_ops
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.verification.networks import network_name

SPACE = get_space("cifar-mbv3").with_resolutions([24])
OPS = {op.key: op for op in SPACE.unique_ops()}
OP = [op for op in OPS.values() if op.kind == "mbconv" and op.macs > 1e6][7].key


def op_ms(op: Op) -> float:
    return 0.01 + op.macs / 1e7


@dataclass(frozen=True)
class Strange(FakeDevice):
    """A device on which one op is so many times slower than it should be: alone, and the second time."""

    first: float = 1.0
    second: float = 1.0
    op: str = OP
    #: 500 GMAC/s by the largest probe.
    probe_ms: float = 0.231
    asked: list[list[str]] = field(default_factory=list)

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        times = {key: op_ms(op) for key, op in OPS.items()}
        times[self.op] *= self.first
        if kit is not None and "networks" in (about := json.loads((kit / "manifest.json").read_text())["about"]):
            times[self.op] = op_ms(OPS[self.op]) * self.second
            listed = [Architecture.from_json(data) for part in about["networks"].values() for data in part]
            times |= {network_name(a): 0.05 + sum(op_ms(op) for op in SPACE.ops(a)) for a in listed}
            self.asked.append([op["key"] for op in about["checks"]["again"]])
        object.__setattr__(self, "latency_ms", times.__getitem__)
        return super().start(kit, arguments)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power cut is expected."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def make(out: Path, device: FakeDevice, **options: object) -> Profile:
    how = {"resolutions": [24], "name": "t", "calibrate": 10, **options}
    return profile(device, "cifar-mbv3", out, **how)  # type: ignore[arg-type]


def row_ms(table: LatencyTable) -> float:
    (row,) = [row for row in table.rows if row.op == OP]
    assert row.median_ms is not None
    return row.median_ms


@pytest.mark.parametrize("first", [pytest.param(20.0, marks=pytest.mark.slow), 1e-4])
def test_a_row_that_was_wrong_once_gets_its_second_time(tmp_path: Path, first: float) -> None:
    device = Strange(first=first)
    table = make(tmp_path, device).table
    assert row_ms(table) == pytest.approx(op_ms(OPS[OP]), rel=0.02)
    assert "suspects" not in table.metadata
    assert not [doubt for doubt in table.doubts if OP in str(doubt)]
    assert table.metadata["validation"]["mape"] < 0.02
    assert len(device.asked) == 1
    assert OP in device.asked[0]
    assert table.metadata["stability"]["ops"] == len(OPS)
    # Both journals give the same table, and nothing is measured again.
    kept = {ending: (tmp_path / f"t{ending}").read_bytes() for ending in (".csv", ".json")}
    assert ofa_profile(["--import", str(tmp_path / "t.jsonl"), "--out", str(tmp_path)]) == 0
    assert {ending: (tmp_path / f"t{ending}").read_bytes() for ending in kept} == kept
    for ending in kept:
        (tmp_path / f"t{ending}").unlink()
    assert make(tmp_path, device).was_complete
    assert {ending: (tmp_path / f"t{ending}").read_bytes() for ending in kept} == kept


def test_a_table_that_lost_rows_gets_its_second_times_again(tmp_path: Path) -> None:
    device = Strange(first=20.0)
    make(tmp_path, device)
    path = tmp_path / "t.csv"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-3]))
    assert make(tmp_path, device).was_complete
    assert path.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "reason", "words"),
    [
        (20.0, 21.0, "slow", f"note: table t: op {OP} is over 5 times slower than similar ones"),
        (1e-4, 1e-4, "fast", f"warning: table t: op {OP} is faster than the device can be"),
    ],
)
def test_a_row_that_stays_wrong_is_a_suspect(
    tmp_path: Path, first: float, second: float, reason: str, words: str
) -> None:
    table = make(tmp_path, Strange(first=first, second=second)).table
    usual_ms = op_ms(OPS[OP])
    assert row_ms(table) == pytest.approx(first * usual_ms, rel=0.05)
    (suspect,) = json.loads((tmp_path / "t.json").read_text())["suspects"]
    assert (suspect["op"], suspect["reason"]) == (OP, reason)
    assert suspect["again_ms"] == pytest.approx(second * usual_ms, rel=0.05)
    assert words in "\n".join(map(str, table.doubts))
    assert "measured again: " in "\n".join(map(str, table.doubts))


def test_the_peaks_are_in_the_table(tmp_path: Path) -> None:
    table = make(tmp_path, Strange()).table
    peaks = table.metadata["peaks"]
    assert peaks["gmacs_per_s"] == pytest.approx(500, rel=0.02)
    assert set(peaks["probes_ms"]) == {op.key for op in probe_ops()}
    assert not set(peaks["probes_ms"]) & {row.op for row in table.rows}
    replay, _ = read_journal(tmp_path / "t-networks.jsonl")
    assert set(peaks["probes_ms"]) < replay.visits.keys()
    assert isinstance(table.correction, Regression)
    assert len(table.correction.networks) == 10


@pytest.mark.slow
def test_an_interrupted_measurement_goes_on_with_the_same_ops(tmp_path: Path) -> None:
    visits = []

    def stop(progress: Progress) -> None:
        visits.append(progress)
        if progress.phase == "measure networks" and progress.done > 20:
            raise KeyboardInterrupt

    device = Strange(first=20.0)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, device, progress=stop)
    before = LatencyTable.load(tmp_path / "t.csv")
    assert "peaks" not in before.metadata
    assert row_ms(before) == pytest.approx(20 * op_ms(OPS[OP]), rel=0.02)
    assert row_ms(make(tmp_path, device).table) == pytest.approx(op_ms(OPS[OP]), rel=0.02)
    assert device.asked[0] == device.asked[1]


@pytest.mark.slow
def test_a_new_calibration_checks_the_same_ops_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Strange(first=20.0)
    make(tmp_path, device)
    monkeypatch.setattr("ofa_profiler.devices.open_device", lambda *_: device)
    command = ["--lut", str(tmp_path / "t.csv"), "--device", "local", "--calibrate", "10", "--subnets", "5"]
    assert ofa_verify(command) == 0, capsys.readouterr().err
    assert OP in device.asked[-1]
    assert row_ms(LatencyTable.load(tmp_path / "t.csv")) == pytest.approx(op_ms(OPS[OP]), rel=0.02)


@pytest.mark.parametrize(
    "checks", [None, *(pytest.param(each, marks=pytest.mark.slow) for each in ({"probes": []}, 5))]
)
def test_journals_without_checks_leave_the_table_as_it_is(tmp_path: Path, checks: object) -> None:
    make(tmp_path, Strange(first=20.0))
    path = tmp_path / "t-networks.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    run = json.loads(first)
    probes = {op.key for op in probe_ops()} | set(OPS)
    run["models"] = {key: value for key, value in run["models"].items() if key not in probes}
    run["about"] = {**run["about"], "checks": checks}
    if checks is None:
        del run["about"]["checks"]
    lines = [line for line in others if json.loads(line).get("key") not in probes]
    path.write_text("".join([json.dumps(run) + "\n", *lines]))
    code = ofa_profile(["--import", str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "o"), "--name", "u"])
    if checks is not None:
        assert code == 2
        return
    assert code == 0
    table = LatencyTable.load(tmp_path / "o" / "u.csv")
    assert "peaks" not in table.metadata
    assert isinstance(table.correction, Regression)
    assert row_ms(table) == pytest.approx(20 * op_ms(OPS[OP]), rel=0.02)
    assert [suspect["op"] for suspect in table.metadata["suspects"]] == [OP]


def test_ops_are_measured_again_in_the_forms_of_the_table(tmp_path: Path) -> None:
    slow = next(key for key, op in OPS.items() if op.kind == "mbconv" and op.attributes["kernel_size"] == 7)
    forms = Forms({"depthwise 7x7, stride 1": "split", "depthwise 7x7, stride 2": "split"})
    device = Strange(first=20.0, op=slow, forms=forms)
    table = make(tmp_path, device, runtime="litert").table
    assert table.forms
    assert slow in device.asked[0]
    ops, networks = (read_journal(tmp_path / name)[0].run for name in ("t.jsonl", "t-networks.jsonl"))
    assert ops.candidates is not None
    (variant,) = ops.candidates.variants[slow].values()
    assert networks.models[slow] == variant
    (row,) = [row for row in table.rows if row.op == slow]
    assert row.description.attributes["form"] == "split"
    assert row.median_ms == pytest.approx(op_ms(OPS[slow]), rel=0.02)
