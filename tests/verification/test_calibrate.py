"""Calibration: whole networks are measured after the ops, the correction is fitted to some and validated by others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler import Architecture, LatencyTable, get_space, profile
from ofa_profiler.base.progress import Progress
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.cli.verify import main as ofa_verify
from ofa_profiler.devices import Agent, FakeDevice
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.tables.corrections import Regression, Sum
from ofa_profiler.verification import calibrate
from ofa_profiler.verification import profile as calibrated_profile
from ofa_profiler.verification.networks import network_name
from ofa_profiler.verification.verify import verify

SPACE = get_space("cifar-mbv3").with_resolutions([24])
OPS = {op.key: op for op in SPACE.unique_ops()}
FILES = {"t.csv", "t.json", "t.jsonl", "t-networks.jsonl"}
N_FITTED, N_VALIDATED = 12, 5


def op_ms(op: Op) -> float:
    return 0.01 + op.macs / 1e7


def network_ms(architecture: Architecture) -> float:
    """A network is slower than its ops by its parameters, and faster by a fixed time per op."""
    ops = SPACE.ops(architecture)
    return sum(op_ms(op) + 0.1 * op.params / 1e6 - 0.004 for op in ops) + 0.05


@dataclass(frozen=True)
class Board(FakeDevice):
    """A device whose networks follow from its ops."""

    change: Callable[[float], float] = lambda milliseconds: milliseconds

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        names = {}
        if kit is not None:
            about = json.loads((kit / "manifest.json").read_text())["about"].get("networks", {})
            listed = [Architecture.from_json(data) for part in about.values() for data in part]
            names = {network_name(architecture): network_ms(architecture) for architecture in listed}
        object.__setattr__(self, "latency_ms", lambda key: self.change(names[key]) if key in names else op_ms(OPS[key]))
        return super().start(kit, arguments)


def make(out: Path, device: FakeDevice | None = None, **options: object) -> Profile:
    how = {"resolutions": [24], "name": "t", "calibrate": N_FITTED, **options}
    return profile(device or Board(), "cifar-mbv3", out, **how)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few networks, and no power cut is expected."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(calibrated_profile, "USUAL", calibrated_profile.NetworkCounts(validated=N_VALIDATED))
    monkeypatch.setattr(calibrate.calibrate, "__kwdefaults__", {
        **(calibrate.calibrate.__kwdefaults__ or {}), "validated": N_VALIDATED
    })  # fmt: skip


class Stop:
    """Ctrl-C at the given visit of the networks."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.ops = 0

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, MeasuringProgress):
            is_networks = progress.phase == "measure networks"
            self.ops += not is_networks
            if is_networks and progress.visits >= self.at:
                raise KeyboardInterrupt


def names(journal: Path, part: str) -> set[str]:
    about = read_journal(journal)[0].run.about["networks"]
    return {network_name(Architecture.from_json(data)) for data in about[part]}


def test_a_table_is_calibrated_and_validated_by_other_networks(tmp_path: Path) -> None:
    result = make(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    correction = result.table.correction
    assert isinstance(correction, Regression)
    fitted, validated = (names(tmp_path / "t-networks.jsonl", part) for part in ("fitted", "validated"))
    assert set(correction.networks) == fitted
    assert (len(fitted), len(validated), fitted & validated) == (N_FITTED, N_VALIDATED, set())
    validation = result.table.metadata["validation"]
    assert validation["subnets"] == N_VALIDATED
    assert validation["mape"] < 0.01
    assert abs(validation["bias"]) < 0.01
    assert LatencyTable.load(result.path).metadata == result.table.metadata
    others = SPACE.decode(SPACE.sample_genomes(np.random.default_rng(0), 100))
    truth = np.array([network_ms(a) for a in others])
    assert np.mean(np.abs(result.table.predict_ms(others) / truth - 1)) < 0.01
    again = make(tmp_path)
    assert again.was_complete
    assert again.table.metadata == result.table.metadata


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1, 60])
@pytest.mark.parametrize("fresh", [False, True])
def test_an_interrupted_calibration_goes_on(tmp_path: Path, at: int, fresh: bool) -> None:
    if fresh:
        make(tmp_path, calibrate=0)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, progress=Stop(at), fresh=fresh)
    table = LatencyTable.load(tmp_path / "t.csv")  # usable, but not calibrated
    assert table.correction == Sum()
    ops, networks = (tmp_path / f"t{ending}.jsonl" for ending in ("", "-networks"))
    kept = ops.read_bytes(), networks.read_bytes()
    assert kept[1].count(b'"visit"') == at
    result = make(tmp_path, fresh=fresh)
    assert isinstance(result.table.correction, Regression)
    assert ops.read_bytes() == kept[0]
    assert networks.read_bytes().startswith(kept[1])
    assert not result.was_complete


def test_what_was_calibrated_follows_from_the_journals(tmp_path: Path) -> None:
    result = make(tmp_path / "a")
    for ending in (".csv", ".json"):
        result.path.with_suffix(ending).unlink()
    visits = Stop(0)
    again = make(tmp_path / "a", progress=visits)
    assert again.table.metadata == result.table.metadata
    assert again.was_complete
    # Elsewhere too, with both journals.
    out = tmp_path / "b"
    assert ofa_profile(["--import", str(tmp_path / "a" / "t.jsonl"), "--out", str(out), "--name", "u"]) == 0
    assert LatencyTable.load(out / "u.csv").metadata["correction"] == result.table.metadata["correction"]
    assert {path.name for path in out.iterdir()} == {name.replace("t", "u", 1) for name in FILES} | {"u.html"}


@pytest.mark.slow
def test_another_measurement_of_the_ops_gets_networks_of_its_own(tmp_path: Path) -> None:
    first = make(tmp_path)
    before = (tmp_path / "t-networks.jsonl").read_bytes()
    second = make(tmp_path, Board(change=lambda ms: 2 * ms), fresh=True)
    assert (tmp_path / "t-networks.jsonl.old").read_bytes() == before
    ratio = second.table.predict_ms([SPACE.largest]) / first.table.predict_ms([SPACE.largest])
    assert ratio == pytest.approx(2, rel=0.02)


@pytest.mark.slow
def test_another_number_of_networks_is_measured(tmp_path: Path) -> None:
    make(tmp_path)
    more = make(tmp_path, calibrate=15)
    assert not more.was_complete
    assert isinstance(more.table.correction, Regression)
    assert len(more.table.correction.networks) == 15
    assert make(tmp_path, calibrate=15).was_complete


def test_a_table_without_calibration(tmp_path: Path) -> None:
    result = make(tmp_path, calibrate=0)
    assert result.table.correction == Sum()
    assert result.table.metadata["validation"] is None
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"t-networks.jsonl"}
    with pytest.raises(UsageError, match="3 networks: a calibration takes at least 10"):
        make(tmp_path, calibrate=3)


def test_networks_that_have_nothing_to_do_with_the_ops_leave_the_plain_sum(tmp_path: Path) -> None:
    result = make(tmp_path, FakeDevice())  # every model takes a time that is drawn
    assert result.table.cost(SPACE).minimum()[0] > 0
    assert result.table.metadata["validation"]["mape"] > 0.1


def test_too_many_networks_fail(tmp_path: Path) -> None:
    make(tmp_path, calibrate=0)

    class Failing(Board):
        def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
            agent = super().start(kit, arguments)
            object.__setattr__(self, "failing", [key for key in self._keys(kit) if key.startswith("cifar-mbv3-")])
            return agent

        def _keys(self, kit: Path | None) -> list[str]:
            return [m["key"] for m in json.loads((kit / "manifest.json").read_text())["models"]] if kit else []

    with pytest.raises(DeviceError, match=f"0 of {N_FITTED} networks were measured.*fails on purpose"):
        make(tmp_path, Failing())
    assert LatencyTable.load(tmp_path / "t.csv").correction == Sum()


def test_a_table_with_too_few_usable_ops_says_why_it_is_not_calibrated(tmp_path: Path) -> None:
    stem = next(op.key for op in SPACE.unique_ops() if op.kind == "stem")
    result = make(tmp_path, Board(failing=[stem]))
    assert "only 0 of its networks can be used" in result.uncalibrated
    assert result.table.correction == Sum()


@pytest.mark.slow
def test_a_verification_draws_none_of_the_fitted_networks(tmp_path: Path) -> None:
    result = make(tmp_path)
    assert isinstance(result.table.correction, Regression)
    drawn = {network_name(s.architecture) for s in verify(result.table, FakeDevice(), subnets=20).subnets}
    excluded = {**result.table.metadata["correction"], "networks": sorted(drawn)}
    other = LatencyTable("t", result.table.rows, {**result.table.metadata, "correction": excluded}, result.path)
    again = {network_name(s.architecture) for s in verify(other, FakeDevice(), subnets=20).subnets}
    assert len(again) == 20
    assert not drawn & again


def test_ofa_verify_calibrates_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, calibrate=0)
    monkeypatch.setattr("ofa_profiler.devices.open_device", lambda *_: Board())
    command = ["--lut", str(tmp_path / "t.csv"), "--device", "local", "--calibrate", "14", "--subnets", "6"]
    assert ofa_verify([*command, "--json"]) == 0, capsys.readouterr().err
    document = json.loads(capsys.readouterr().out)
    assert len(document["subnets"]) == 6
    assert document["mape"] < 0.01
    table = LatencyTable.load(tmp_path / "t.csv")
    assert isinstance(table.correction, Regression)
    assert len(table.correction.networks) == 14
    assert table.metadata["validation"]["subnets"] == 6
    assert make(tmp_path, calibrate=None).table.metadata == table.metadata
    assert ofa_verify([*command, "--architecture", "x.json"]) == 2
