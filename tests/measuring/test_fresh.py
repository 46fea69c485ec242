"""`--fresh`: the old table and its samples stay until the new ones are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

from ofa_profiler import LatencyTable, profile
from ofa_profiler.base.progress import Progress
from ofa_profiler.devices import FakeDevice
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.measuring.offline import import_results
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.protocol.journal import Journal, read_journal

FILES = ("t.csv", "t.json", "t.jsonl")


def measure(out: Path, device: FakeDevice = FakeDevice(), **options: object) -> Profile:  # noqa: B008 (frozen)
    return profile(device, "cifar-mbv3", out, resolutions=[24], name="t", **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of lines are written here, and no power cut is expected."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def old(tmp_path: Path) -> dict[str, bytes]:
    measure(tmp_path)
    return content(tmp_path)


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def faster(key: str) -> float:
    return 0.5 + len(key) / 100


class Stop:
    """Ctrl-C at the given visit."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, MeasuringProgress) and progress.visits >= self.at:
            raise KeyboardInterrupt


def test_the_new_table_replaces_the_old_one_whose_samples_are_kept(tmp_path: Path, old: dict[str, bytes]) -> None:
    result = measure(tmp_path, FakeDevice(faster), fresh=True)
    assert not result.was_complete
    assert content(tmp_path).keys() == {*FILES, "t.jsonl.old"}
    assert (tmp_path / "t.jsonl.old").read_bytes() == old["t.jsonl"]
    assert content(tmp_path)["t.csv"] != old["t.csv"]
    table, _ = import_results(tmp_path / "t.jsonl.old", tmp_path, name="again")
    assert table.rows == LatencyTable("t", table.rows).rows
    assert (tmp_path / "again.csv").read_bytes() == old["t.csv"]
    assert measure(tmp_path, FakeDevice(faster)).was_complete


@pytest.mark.parametrize("at", [0, 1, 50])
def test_an_interruption_loses_nothing_and_is_resumed(tmp_path: Path, old: dict[str, bytes], at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, FakeDevice(faster), fresh=True, progress=Stop(at))
    assert {name: data for name, data in content(tmp_path).items() if name in old} == old
    assert measure(tmp_path).was_complete  # the old table is still in use
    new = tmp_path / "t.jsonl.new"
    kept = new.read_bytes()
    assert kept.count(b'"visit"') == at
    result = measure(tmp_path, FakeDevice(faster), fresh=True)
    assert not result.was_complete
    assert (tmp_path / "t.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert not new.exists()


class Broken(FakeDevice):
    """A device that is lost before it says anything."""

    def start(self, *_: object) -> Iterator[None]:  # type: ignore[override]
        raise DeviceError("lost")


def test_a_failure_before_the_first_record_leaves_all_as_it_was(tmp_path: Path, old: dict[str, bytes]) -> None:
    with pytest.raises(DeviceError, match="lost"):
        measure(tmp_path, Broken(), fresh=True)
    assert content(tmp_path) == old


def test_a_new_measurement_without_one_good_op_does_not_replace_the_old_table(
    tmp_path: Path, old: dict[str, bytes]
) -> None:
    keys = [row.op for row in LatencyTable.load(tmp_path / "t.csv").rows]
    with pytest.raises(DeviceError, match=r"all 96 ops failed.*--fresh"):
        measure(tmp_path, FakeDevice(failing=keys), fresh=True)
    assert {name: data for name, data in content(tmp_path).items() if name in old} == old
    measure(tmp_path, FakeDevice(faster), fresh=True)  # does not continue the failed one
    assert {row.status for row in LatencyTable.load(tmp_path / "t.csv").rows} == {"ok"}


def test_other_settings_replace_the_table_too_when_they_are_complete(tmp_path: Path, old: dict[str, bytes]) -> None:
    with pytest.raises(UsageError, match="--fresh"):
        measure(tmp_path, threads=2)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, threads=2, fresh=True, progress=Stop(5))
    assert measure(tmp_path).was_complete
    with pytest.raises(KeyboardInterrupt):  # another request than the interrupted one
        measure(tmp_path, threads=4, fresh=True, progress=Stop(3))
    assert (tmp_path / "t.jsonl.new").read_bytes().count(b'"visit"') == 3
    measure(tmp_path, threads=4, fresh=True)
    assert LatencyTable.load(tmp_path / "t.csv").metadata["threads"] == 4
    assert (tmp_path / "t.jsonl.old").read_bytes() == old["t.jsonl"]


def test_killed_between_the_journal_and_the_table(
    tmp_path: Path, old: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is replaced first. The next run derives the table from it."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ofa_profiler.measuring.profile.derive_table", killed)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path, FakeDevice(faster), fresh=True)
    assert (tmp_path / "t.csv").read_bytes() == old["t.csv"]
    result = measure(tmp_path, FakeDevice(faster))
    assert result.was_complete
    assert (tmp_path / "t.csv").read_bytes() != old["t.csv"]


def test_the_journal_is_locked_while_a_new_one_is_measured(tmp_path: Path, old: dict[str, bytes]) -> None:
    run = read_journal(tmp_path / "t.jsonl")[0].run
    with Journal(tmp_path / "t.jsonl", run, fresh=True), pytest.raises(UsageError, match="another ofa-profile"):
        Journal(tmp_path / "t.jsonl", run)


def test_an_import_keeps_the_replaced_samples_and_refuses_useless_results(
    tmp_path: Path, old: dict[str, bytes]
) -> None:
    other = tmp_path / "other"
    measure(other, FakeDevice(faster))
    import_results(other / "t.jsonl", tmp_path, name="t", fresh=True)
    assert (tmp_path / "t.jsonl.old").read_bytes() == old["t.jsonl"]
    keys = [row.op for row in LatencyTable.load(tmp_path / "t.csv").rows]
    before = {path.name: path.read_bytes() for path in tmp_path.glob("t.*")}
    failed = tmp_path / "failed"
    with pytest.raises(DeviceError):
        measure(failed, FakeDevice(failing=keys))
    with pytest.raises(DeviceError, match="all 96 ops failed"):
        import_results(failed / "t.jsonl", tmp_path, name="t", fresh=True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("t.*")} == before


def test_a_file_that_is_no_journal_is_kept_too(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("notes of mine\n")
    measure(tmp_path, fresh=True)
    assert (tmp_path / "t.jsonl.old").read_text() == "notes of mine\n"


def test_the_documents_name_the_kept_file() -> None:
    assert "`NAME.jsonl.old`" in (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
