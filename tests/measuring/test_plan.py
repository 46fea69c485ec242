"""The plan: what would be measured, and an estimate that holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ofa_profiler import get_space, profile
from ofa_profiler.cli.profile import main
from ofa_profiler.devices import FakeDevice
from ofa_profiler.export import export_ops
from ofa_profiler.measuring.expectation import visit_seconds
from ofa_profiler.measuring.plan import plan
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target

SPACE = get_space("cifar-mbv3").with_resolutions([24])
OPTIONS = ("--space", "cifar-mbv3", "--resolution", "24")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    profile(FakeDevice(), SPACE, out, name="fake")
    return out


def test_an_earlier_journal_tells_how_long_it_takes(measured: Path) -> None:
    replay, _ = read_journal(measured / "fake.jsonl")
    again = plan(SPACE, Settings(), out=measured, name="other")
    assert again.basis == measured / "fake.jsonl"
    assert (again.seconds, again.is_complete) == (pytest.approx(replay.used_s), False)
    short = plan(SPACE, Settings(time_limit_s=0.1), out=measured, name="other")
    assert short.seconds == 0.1
    assert plan(SPACE, Settings(threads=2), out=measured).basis is None
    assert plan(get_space("cifar-mbv3"), Settings(), out=measured).basis is None


@pytest.mark.parametrize(
    ("latency_ms", "visit_s", "measured_s"),
    [(0.028, 0.06, 0.037), (0.70, 0.04, 0.053), (0.93, 0.04, 0.051), (12.55, 0.04, 0.171)],
)
def test_visits_take_as_long_as_measured_ones(latency_ms: float, visit_s: float, measured_s: float) -> None:
    """Means of ops and of networks (without loading) on a PC, with both runtimes."""
    assert visit_seconds(latency_ms, Settings(visit_s=visit_s), 52) == pytest.approx(measured_s, rel=0.15)


def test_a_device_that_drifts_repeats_visits(tmp_path: Path) -> None:
    steady, drifting = (plan(SPACE, Settings(reference_every_s=every_s), out=tmp_path) for every_s in (None, 20.0))
    assert steady.seconds == drifting.seconds
    assert drifting.max_seconds == pytest.approx(1.3 * steady.max_seconds)  # 3 of 10 rounds
    assert drifting.min_seconds < drifting.seconds < drifting.max_seconds


def test_half_a_journal_leaves_the_other_half(measured: Path, tmp_path: Path) -> None:
    lines = (measured / "fake.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "fake.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    (tmp_path / "notes.jsonl").write_text("{}\nnot a journal")
    (tmp_path / "folder.jsonl").mkdir()
    half = plan(SPACE, Settings(), out=tmp_path, name="fake")
    whole_s = read_journal(measured / "fake.jsonl")[0].used_s
    assert not half.is_complete
    assert 0.3 * whole_s < half.seconds < whole_s


def test_a_finished_table_needs_nothing(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "ssh:board", "--out", str(measured), "--name", "fake", *OPTIONS, "--plan"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith("measuring: nothing to do, the table of ")
    assert main(["--device", "local", "--out", str(measured), "--name", "fake", *OPTIONS, "--plan", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["complete"], said["seconds"]["expected"]) == (True, 0)
    fresh = ["--device", "local", "--out", str(measured), "--name", "fake", *OPTIONS, "--plan", "--fresh", "--json"]
    assert main(fresh) == 0
    assert json.loads(capsys.readouterr().out)["seconds"]["expected"] > 0


def test_the_name_that_the_table_would_get_is_found(measured: Path, tmp_path: Path) -> None:
    device = FakeDevice().describe()
    profile(FakeDevice(), SPACE, tmp_path)
    assert plan(SPACE, Settings(), out=tmp_path, device=device).is_complete
    assert not plan(SPACE, Settings(), out=tmp_path, device=replace(device, model="another")).is_complete


def test_the_macs_give_an_estimate_without_a_journal() -> None:
    settings = Settings()
    fast, slow = plan(SPACE, settings), plan(SPACE, settings, is_slow=True)
    assert fast.basis is None
    assert fast.min_seconds < fast.seconds < fast.max_seconds
    assert fast.seconds < slow.seconds <= 600
    # 96 ops at 24 pixels took 12 s on a quiet PC.
    assert 12 / 1.5 < fast.seconds < 12 * 1.5
    assert plan(SPACE, replace(settings, time_limit_s=5.0)).seconds == 5


def test_several_devices_have_one_plan_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "local", "--device", "ssh:board", "--plan", *OPTIONS]) == 2
    assert "one --device" in capsys.readouterr().err


def test_the_size_of_models_is_known_before_they_are_exported(tmp_path: Path) -> None:
    for runtime in ("onnxruntime", "litert"):
        target = Target(runtime)
        models = export_ops(SPACE.unique_ops(), target, with_variants=True, cache_dir=tmp_path)
        files = [file for model in models for file in (model, *model.variants.values())]
        size = sum(file.path.stat().st_size for file in files)
        assert plan(SPACE, Settings(target)).n_bytes == pytest.approx(size, rel=0.02)
        plain = plan(SPACE, Settings(target), try_forms=False).n_bytes
        assert plain == pytest.approx(sum(model.path.stat().st_size for model in models), rel=0.02)
