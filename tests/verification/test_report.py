"""The report of a table: what it shows follows from the files of the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofa_profiler import LatencyTable, get_space, profile
from ofa_profiler.cli import report as cli_report
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.devices import FakeDevice
from ofa_profiler.tables.suspects import suspects_of
from ofa_profiler.verification.calibrate import networks_journal, read_networks
from ofa_profiler.verification.report import report, report_path
from ofa_profiler.verification.verify import verify

SPACE = get_space("cifar-mbv3").with_resolutions([24, 32])
OPS = ["Roofline", "Spread of the samples", "Drift over time: ops"]
NETWORKS = ["Predicted against measured, before calibration: the plain sum", "Error by resolution"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    out = tmp_path_factory.mktemp("tables")
    return profile(FakeDevice(), space=SPACE, out=out, name="t", calibrate=12).table


def copied(table: LatencyTable, folder: Path, *endings: str) -> LatencyTable:
    assert table.path is not None
    for ending in (".csv", ".json", *endings):
        source = table.path.with_name(f"t{ending}")
        (folder / source.name).write_bytes(source.read_bytes())
    return LatencyTable.load(folder / "t.csv")


def titles(table: LatencyTable) -> list[str]:
    return [section.title for section in report(table).sections]


def test_all_files(table: LatencyTable) -> None:
    page = report(table)
    assert {section.title for section in page.sections} >= {*OPS, *NETWORKS}
    before = next(section for section in page.sections if section.title == NETWORKS[0])
    drawn = {trace.name: trace for trace in before.figure.data}
    assert len(drawn["fitted"].x) == 12
    assert len(drawn["validated"].x) == table.metadata["validation"]["subnets"]
    roofline = next(section for section in page.sections if section.title == "Roofline")
    roof = next(trace for trace in roofline.figure.data if trace.name == "roof")
    assert max(roof.y) >= max(max(trace.y) for trace in roofline.figure.data if trace.mode == "markers") * 0.999
    boxes = next(section for section in page.sections if section.title == "Error by resolution")
    assert [box.name for box in boxes.figure.data] == ["24", "32"]
    drift = next(section for section in page.sections if section.title == "Drift over time: ops")
    (visits,) = drift.figure.data
    assert list(visits.x) == sorted(visits.x)
    assert len(visits.x) >= len(table.rows)
    drift = next(section for section in page.sections if section.title == "Drift over time: networks")
    (visits,) = drift.figure.data
    assert table.path is not None
    assert len(visits.x) == len(read_networks(networks_journal(table.path)).history)  # type: ignore[union-attr]


def test_without_the_journals(table: LatencyTable, tmp_path: Path) -> None:
    assert titles(copied(table, tmp_path)) == OPS[:2]


@pytest.mark.parametrize("content", [b"", b"no json\n", b'{"type": "run"}\n'])
def test_a_damaged_journal_of_networks_is_left_out(table: LatencyTable, tmp_path: Path, content: bytes) -> None:
    found = copied(table, tmp_path, ".jsonl")
    (tmp_path / "t-networks.jsonl").write_bytes(content)
    assert titles(found) == OPS


@pytest.mark.parametrize(("name", "value"), [("session", "2020-01-01T00:00:00+00:00"), ("networks", None)])
def test_networks_of_another_measurement_are_left_out(
    table: LatencyTable, tmp_path: Path, name: str, value: str | None
) -> None:
    found = copied(table, tmp_path, ".jsonl")
    assert table.path is not None
    lines = table.path.with_name("t-networks.jsonl").read_text().splitlines(keepends=True)
    run = json.loads(lines[0])
    run["about"][name] = value
    (tmp_path / "t-networks.jsonl").write_text("".join([json.dumps(run) + "\n", *lines[1:]]))
    assert [title for title in titles(found) if not title.startswith("Drift")] == OPS[:2]


@pytest.mark.parametrize("peaks", [5, {"gmacs_per_s": "fast", "gbytes_per_s": 5}, {"gmacs_per_s": 5}, {}])
def test_peaks_that_make_no_sense_are_left_out(table: LatencyTable, tmp_path: Path, peaks: object) -> None:
    found = copied(table, tmp_path)
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peaks": peaks}))
    assert "best ops" in report(LatencyTable.load(found.path)).sections[0].says  # type: ignore[arg-type]


def test_verified_networks_are_shown(table: LatencyTable) -> None:
    verification = verify(table, FakeDevice(), subnets=7)
    before = next(s for s in report(table, verification.subnets).sections if s.title == NETWORKS[0])
    drawn = {trace.name: trace for trace in before.figure.data}
    assert sorted(drawn["verified"].x) == pytest.approx(sorted(verification.measured_ms))


def test_the_peaks_of_the_device_are_the_roof(table: LatencyTable, tmp_path: Path) -> None:
    found = copied(table, tmp_path)
    path = tmp_path / "t.json"
    peaks = {"gmacs_per_s": 1234.0, "gbytes_per_s": 567.0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "peaks": peaks}))
    roofline = report(LatencyTable.load(found.path)).sections[0]  # type: ignore[arg-type]
    assert "1.23e+03 GMAC/s and 567 GB/s" in roofline.says
    assert "memory" not in roofline.says
    peaks["memory_gbytes_per_s"] = 8.9
    path.write_text(json.dumps({**json.loads(path.read_text()), "peaks": peaks}))
    roofline = report(LatencyTable.load(found.path)).sections[0]  # type: ignore[arg-type]
    assert "from the memory, 8.9 GB/s" in roofline.says
    assert [trace.name for trace in roofline.figure.data if trace.mode == "lines"] == ["roof", "roof of the memory"]


def test_suspects_are_marked(table: LatencyTable, tmp_path: Path) -> None:
    """Of a device whose peaks are low, all fast ops are suspicious."""
    copied(table, tmp_path)
    path = tmp_path / "t.json"
    peaks = {"gmacs_per_s": 1.0, "gbytes_per_s": 1.0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "peaks": peaks}))
    found = LatencyTable.load(path.with_suffix(".csv"))
    suspects = {suspect.op for suspect in suspects_of(found.rows, found.metadata)}
    assert 5 < len(suspects) < len(found.rows)
    for section in report(found).sections[:2]:
        (marked,) = [trace for trace in section.figure.data if trace.name == "suspects"]
        others = {xy for t in section.figure.data if t.name != "suspects" for xy in zip(t.x, t.y, strict=True)}
        assert set(zip(marked.x, marked.y, strict=True)) <= others
        assert all("times too fast" in text or "times too slow" in text for text in marked.text)
    assert {text.rpartition(": ")[0] for text in marked.text} == suspects


def test_the_commands_write_it(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(table, tmp_path, ".jsonl", "-networks.jsonl")
    words = ["--import", str(tmp_path / "t.jsonl"), "--out", str(tmp_path), "--json"]
    assert ofa_profile(words) == 0
    path = report_path(LatencyTable.load(tmp_path / "t.csv"))
    assert json.loads(capsys.readouterr().out)["report"] == str(path)
    assert path.read_text().startswith("<!DOCTYPE html>")
    path.unlink()
    monkeypatch.setattr(cli_report, "can_write_pages", lambda: False)
    assert ofa_profile(words) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["report"] is None
    assert "pip install 'ofa-profiler[report]'" in captured.err
    assert not path.exists()
