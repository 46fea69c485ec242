"""A journal of a part of the ops is extended by more: its first line changes, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import DEVICE, END, RUN, failed, visit, write

from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.extension import extended, is_extension
from ofa_profiler.protocol.forms import Candidates, Forms, Trial
from ofa_profiler.protocol.journal import Journal, read_journal
from ofa_profiler.protocol.records import Run, read_record

LIKE = {"table": "old", "ops": []}
PART = {**RUN, "about": {**RUN["about"], "like": LIKE}}
MORE = {**PART, "created": "2027-01-01T00:00:00+00:00", "models": {"c": "22", "a": "00", "b": "11"}}
ALL = {**MORE, "about": RUN["about"]}
RECORDS = [DEVICE, visit("a", 0, [5, 6]), visit("b", 0, [7]), failed("a", 1), visit("b", 1, [8]), END]


def run(data: dict[str, Any]) -> Run:
    return Run.from_json(data)


@pytest.mark.parametrize("wanted", [MORE, ALL])
def test_all_lines_but_the_first_stay(tmp_path: Path, wanted: dict[str, Any]) -> None:
    path = tmp_path / "t.jsonl"
    before = write(path, PART, *RECORDS).splitlines()
    with Journal(path, run(wanted)) as journal:
        assert list(journal.replay.visits) == ["c", "a", "b"]
        assert journal.replay.unvisited == ["c"]
        assert not journal.replay.is_finished(600.0)
        assert b"".join(journal.lines) == path.read_bytes()
        journal.append(read_record(visit("c", 0, [9])))
    lines = path.read_bytes().splitlines()
    assert lines[1 : len(before)] == before[1:]
    first = json.loads(lines[0])
    assert first == {**wanted, "created": PART["created"]}
    assert read_journal(path)[0].measurement("c") is not None
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl"]


@given(cut=st.integers(0, 3000))
def test_any_beginning_is_extended(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A kill leaves a beginning, before or after the extension."""
    path = tmp_path_factory.mktemp("journal") / "t.jsonl"
    whole = write(path, PART, *RECORDS)
    path.write_bytes(whole[:cut])
    kept = whole[:cut].splitlines()[1 : whole[:cut].count(b"\n")]
    with Journal(path, run(MORE)) as journal:
        assert [line.rstrip() for line in journal.lines[1:]] == kept
        assert set(journal.replay.run.models) == {"a", "b", "c"}
    if kept:  # else nothing was measured before
        assert read_journal(path)[0].run.created == PART["created"]


def test_the_same_part_is_continued_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    before = write(path, PART, *RECORDS)
    with Journal(path, run({**PART, "created": "later"})) as journal:
        assert journal.replay.is_finished(600.0)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "wanted",
    [
        {**PART, "models": {"a": "00"}},  # fewer
        {**MORE, "models": {"a": "99", "b": "11", "c": "22"}},  # another model of an op
        {**MORE, "about": {**PART["about"], "like": {"table": "other", "ops": []}}},
        {**MORE, "about": {**PART["about"], "resolutions": [28]}},
        {**MORE, "settings": {**RUN["settings"], "threads": 2}},
    ],
)
def test_another_request_is_refused_and_changes_nothing(tmp_path: Path, wanted: dict[str, Any]) -> None:
    path = tmp_path / "t.jsonl"
    before = write(path, PART, *RECORDS)
    with pytest.raises(UsageError, match="other settings"):
        Journal(path, run(wanted))
    assert path.read_bytes() == before


def test_a_whole_journal_is_not_extended(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write(path, RUN, *RECORDS)
    with pytest.raises(UsageError, match="other models"):
        Journal(path, run(ALL))


def with_forms(data: dict[str, Any], keys: str, tried: str) -> Run:
    split = Forms({"depthwise 7x7, stride 1": "split"})
    candidates = Candidates((Trial(split, tuple(tried)),), {key: {split: f"f{key}"} for key in keys})
    return run({**data, "format": 2, "forms": candidates.to_json()})


def test_the_forms_that_were_tried_stay() -> None:
    found, wanted = with_forms(PART, "ab", "a"), with_forms(MORE, "abc", "ac")
    more = extended(found, wanted)
    assert more is not None
    assert more.candidates is not None
    assert found.candidates is not None
    assert more.candidates.trials == found.candidates.trials
    assert more.candidates.variants.keys() == {"a", "b", "c"}
    assert is_extension(found, wanted)
    assert not is_extension(found, found)
    assert extended(found, run(MORE)) is None  # it must not go on without forms
    plain = extended(run(PART), wanted)
    assert plain is not None
    assert plain.candidates is None  # a journal without forms goes on without them


def test_a_complete_journal_is_the_same_as_one_whose_trials_had_all_ops() -> None:
    """After its extension by all ops, a journal is continued by a request that would try other ops."""
    from ofa_profiler.protocol.identity import request_difference

    assert request_difference(with_forms(ALL, "abc", "a"), with_forms(ALL, "abc", "ac")) == ""
    assert request_difference(with_forms(ALL, "abc", "a"), with_forms(ALL, "ab", "a")) == "other forms"
