"""The journal: written to survive a kill, read as something that nobody vouches for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import DEVICE, END, REQUEST, RUN, SETTINGS, failed, look, visit, write

import ofa_profiler.protocol.journal
from ofa_profiler.base.locks import try_lock
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.protocol.journal import Journal, read_journal
from ofa_profiler.protocol.lines import parse_line
from ofa_profiler.protocol.records import Run, read_record
from ofa_profiler.protocol.replay import Replay


def test_keeps_every_sample_by_round(tmp_path):
    path = tmp_path / "t.jsonl"
    with Journal(path, REQUEST) as journal:
        for record in (DEVICE, visit("a", 0, [1_000_000, 3_000_000]), visit("a", 1, [2_000_000]), failed("b", 0), END):
            journal.append(read_record(record))
    replay, data = read_journal(path)
    assert data == path.read_bytes() == b"".join(journal.lines)
    measured = replay.measurements()
    assert measured["a"].rounds_ms == ((1.0, 3.0), (2.0,))
    assert measured["a"].median_ms == 2.0
    assert measured["a"].median_of_rounds_ms(1, 2) == 2.0
    assert measured["b"].status == "failed"
    assert measured["b"].error == "no"
    assert replay.measuring_s == pytest.approx(6e-3 + 20e-9)
    assert replay.end.to_json() == END


def test_visits_that_are_made_again_do_not_count(tmp_path):
    path = tmp_path / "t.jsonl"
    early, void, last = visit("a", 0, [1_000_000]), visit("a", 1, [9_000_000]), visit("a", 1, [2_000_000])
    kept = visit("a", 2, [3_000_000])
    again, drifted = look(drifted=True, again=True), look(drifted=True)
    write(path, RUN, DEVICE, early, look(), void, failed("b", 0), again, last, look(), kept, drifted, END)
    replay, _ = read_journal(path)
    assert replay.measurement("a").rounds_ms == ((1.0,), (2.0,), (3.0,))
    assert replay.measurement("b").status == "failed"
    assert (replay.n_visits, replay.n_references, replay.n_repeated, replay.n_drifted) == (5, 4, 1, 1)


def test_a_journal_without_a_reference_is_read_and_continued(tmp_path):
    path = tmp_path / "t.jsonl"
    newer = ("reference_every_s", "drift_tolerance")
    old = {**RUN, "settings": {name: value for name, value in RUN["settings"].items() if name not in newer}}
    write(path, old, DEVICE, visit("a", 0, [5]))
    with Journal(path, REQUEST) as journal:
        assert journal.replay.run.to_json() == old
        assert journal.replay.n_visits == 1


@given(cut=st.integers(0, 2000))
def test_any_beginning_of_a_journal_is_a_journal(tmp_path_factory, cut):
    """A kill or a full disk leaves a beginning: whole lines count, a torn one is dropped and written anew."""
    path = tmp_path_factory.mktemp("journal") / "t.jsonl"
    records = [RUN, DEVICE, visit("a", 0, [5, 6]), visit("b", 0, [7]), visit("a", 1, [8]), END]
    whole = write(path, *records)
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    with Journal(path, REQUEST) as journal:
        assert len(journal.lines) == max(kept, 1)
        assert [json.loads(line) for line in journal.lines] == records[: max(kept, 1)]
        for record in records[len(journal.lines) :]:
            journal.append(read_record(record))
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == records


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (visit("zzz", 0, [5]), "no such model"),
        (visit("a", 1, [5]), "round 0 was due"),
        (visit("a", 0, []), "samples_ns"),
        (visit("a", 0, [0]), "not a time"),
        (visit("a", 0, [-4]), "not a time"),
        (visit("a", 0, [True]), "not a time"),
        (visit("a", 0, [1.5]), "not a time"),
        (visit("a", 0, ["7"]), "not a time"),
        ({**visit("a", 0, [5]), "status": "fine"}, "status"),
        ({**visit("a", 0, [5]), "seconds": -1}, "seconds"),
        ({**visit("a", 0, [5]), "warmup_ns": None}, "warmup_ns"),
        ({**failed("a", 0), "error": None}, "error"),
        (look(key="zzz"), "no such model"),
        (look(key=["a"]), "key"),
        (look(samples_ns=[-1]), "not a time"),
        (look(drifted=None), "drifted"),
        (look(again="yes"), "again"),
        ({**DEVICE, "runtime": "ort"}, "runtime"),
        ({**DEVICE, "model": "Another"}, "another device"),
        ({**DEVICE, "runtime": {"name": "onnxruntime", "version": "1.21"}}, "another device or runtime"),
        ({**END, "cut_short": 3}, "cut_short"),
        (RUN, "second line"),
    ],
)
def test_a_wrong_record_is_named_with_file_and_row(tmp_path, record, words):
    path = tmp_path / "t.jsonl"
    write(path, RUN, DEVICE, record, END)
    with pytest.raises(InputFileError, match=words) as caught:
        read_journal(path)
    assert caught.value.row == 3
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"",
        b"[1]",
        b'{"no": "type"}',
        b'{"type": "visit", "seconds": NaN}',
        b'{"type": "visit", "seconds": 1e999}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"type": "x", "n": ' + b"1" * 10_000 + b"}",
        b'{"type": 3}',
        b"x" * (9 << 20),
    ],
)
def test_a_line_that_is_no_record_is_refused(tmp_path, line):
    with pytest.raises(ValueError, match=r"^.{1,200}$"):
        parse_line(line)
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(RUN).encode() + b"\n" + line + b"\n" + json.dumps(DEVICE).encode() + b"\n")
    with pytest.raises(InputFileError, match="row 2"):
        read_journal(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    ),
    st.sampled_from(["run", "device", "visit", "end", "fatal", "?"]),
    st.sampled_from(["key", "round", "status", "samples_ns", "seconds", "models", "settings", "runtime", "cut_short"]),
)
def test_whatever_a_device_says_is_taken_or_refused(value, kind, field):
    """Nothing else than ValueError, whatever stands in a field."""
    base = {"run": RUN, "device": DEVICE, "visit": visit("a", 0, [5]), "end": END}.get(kind, {})
    replay = Replay(REQUEST)
    try:
        replay.add(read_record({**base, "type": kind, field: value}))
    except ValueError:
        assert replay.n_visits == 0
    replay.measurements()


def test_another_request_is_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    with Journal(path, REQUEST):
        pass
    other = REQUEST.with_settings(replace(SETTINGS, threads=4))
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"threads 1, now 4.*--fresh"):
        Journal(path, other)
    with pytest.raises(UsageError, match="other models"):
        Journal(path, Run.from_json({**RUN, "models": {"a": "ff", "b": "11"}}))
    with pytest.raises(UsageError, match=r"resolutions \[24\], now \[32\]"):
        Journal(path, Run.from_json({**RUN, "about": {**RUN["about"], "resolutions": [32]}}))
    assert path.read_bytes() == before
    with Journal(path, REQUEST.with_settings(replace(SETTINGS, time_limit_s=1.0))):
        pass  # more or less time for the same
    with Journal(path, other, fresh=True) as journal:
        assert journal.replay.run.settings.threads == 4


def test_nothing_is_left_of_a_measurement_that_never_began(tmp_path):
    path = tmp_path / "t.jsonl"
    with pytest.raises(RuntimeError), Journal(path, REQUEST):
        raise RuntimeError
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="asks through fcntl")
def test_two_processes_do_not_write_one_journal(tmp_path):
    path = tmp_path / "t.jsonl"
    code = (
        "import json, sys, pathlib; from ofa_profiler.protocol.journal import Journal; "
        "from ofa_profiler.protocol.records import Run; "
        "Journal(pathlib.Path(sys.argv[1]), Run.from_json(json.loads(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(path), json.dumps(RUN)]
    with Journal(path, REQUEST) as journal:
        journal.append(read_record(DEVICE))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another ofa-profile" in done.stderr
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_journal_that_was_removed_while_it_was_opened_is_made_again(tmp_path, monkeypatch):
    """A run that fails before its first measurement removes its journal, while the next one opens it."""
    path = tmp_path / "t.jsonl"
    path.touch()
    original, tries = ofa_profiler.protocol.journal.try_lock, []

    def lock(descriptor: int) -> bool:
        tries.append(descriptor)
        if len(tries) == 1:
            path.unlink()
        return original(descriptor)

    monkeypatch.setattr("ofa_profiler.protocol.journal.try_lock", lock)
    with Journal(path, REQUEST) as journal:
        journal.append(read_record(DEVICE))
    assert len(tries) == 2
    assert len(read_journal(path)[0].devices) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
def test_a_journal_goes_before_its_lock_does(tmp_path, monkeypatch):
    """Or it would be that of a run which has taken the lock by then."""
    path = tmp_path / "t.jsonl"
    removed_while_locked = []
    original = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        with self.open("ab") as file:
            removed_while_locked.append(not try_lock(file.fileno()))
        original(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(RuntimeError), Journal(path, REQUEST):
        raise RuntimeError
    assert removed_while_locked == [True]
    assert not path.exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        Journal(tmp_path / "file" / "t.jsonl", REQUEST)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_is_one_clear_line(tmp_path):
    import resource

    path = tmp_path / "t.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(path, REQUEST)
    journal.append(read_record(DEVICE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"cannot write .*t\.jsonl"):
            journal.append(read_record(visit("a", 0, [5] * 100)))
        journal.__exit__(None, None, None)
        assert path.stat().st_size > sum(map(len, journal.lines[:2]))  # a torn line
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Journal(path, REQUEST) as again:
        assert again.lines == journal.lines[:2]
        again.append(read_record(visit("a", 0, [5])))
    assert read_journal(path)[0].n_visits == 1
