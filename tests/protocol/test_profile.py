"""The record of a profile in a journal, and the request for it; spans in descriptions of inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kits import INPUTS, QUICK, bytes_model
from support.records import DEVICE, REQUEST, RUN, write

from ofa_profiler.errors import InputFileError
from ofa_profiler.networks.tensors import Span, TensorSpec
from ofa_profiler.protocol.identity import request_difference
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.records import KernelTime, NodeProfile, Run, read_record

KERNELS = st.builds(KernelTime, st.text(), st.text(), st.integers(0, 10**15 - 1), st.integers(1, 10**6))
ASKING = {**RUN, "format": 3, "profile": "a"}
NOTHING = {"type": "profile", "key": "a", "kernels": None, "why": "no", "seconds": 2.5}


@given(st.lists(KERNELS, min_size=1), st.integers(1, 200), st.integers(1, 10**12))
def test_a_profile_is_read(kernels: list[KernelTime], runs: int, whole_ns: int) -> None:
    data = {"type": "profile", "key": "a", "kernels": [vars(one) for one in kernels], "runs": runs, "seconds": 1}
    record = read_record({**data, "whole_ns": whole_ns})
    assert isinstance(record, NodeProfile)
    assert record.kernels == tuple(kernels)
    assert (record.runs, record.whole_ns, record.why) == (runs, whole_ns, "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda more: st.lists(more, max_size=2) | st.dictionaries(st.sampled_from(["name", "kind", "ns", "calls"]), more),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["key", "kernels", "runs", "whole_ns", "seconds", "why"]), JSON))
def test_anything_else_is_refused_in_one_line(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z"):
        raise ValueError(type(read_record({"type": "profile", **data})) is NodeProfile)  # it may be valid


def test_a_journal_gives_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ASKING, DEVICE, NOTHING)
    replay, _ = read_journal(path)
    assert replay.profile is not None
    assert replay.profile.why == "no"
    assert replay.used_s == 2.5


@pytest.mark.parametrize(
    "lines", [(RUN, DEVICE, NOTHING), (ASKING, NOTHING, NOTHING), (ASKING, {**NOTHING, "key": "b"})]
)
def test_a_profile_that_was_not_requested_is_refused(tmp_path: Path, lines: tuple[dict[str, Any], ...]) -> None:
    write(tmp_path / "journal.jsonl", *lines)
    with pytest.raises(InputFileError, match=r"a profile of '[ab]' that was not requested here"):
        read_journal(tmp_path / "journal.jsonl")


def test_a_journal_without_a_profile_is_not_continued_with_one() -> None:
    assert request_difference(REQUEST, Run.from_json(ASKING)).startswith("profile None, now 'a'")


def test_only_what_older_agents_would_ignore_increases_the_format(tmp_path: Path) -> None:
    model = bytes_model(tmp_path, "a", b"model")
    assert run_record([model], QUICK, {}).json["format"] == 1
    assert run_record([model], QUICK, {}, profile="a").json["format"] == 3
    spanned = type(model)("a", model.path, model.sha256, (INPUTS[0]._replace(span=Span(0.0, 1.0)),))
    assert run_record([spanned], QUICK, {}).json["format"] == 3
    with pytest.raises(ValueError, match="'profile' is 'b'"):
        run_record([model], QUICK, {}, profile="b")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(FLOATS, FLOATS, st.lists(st.integers(1, 9), max_size=4))
def test_a_span_survives_json(one: float, other: float, shape: list[int]) -> None:
    tensor = TensorSpec("x", "float16", tuple(shape), span=Span(min(one, other), max(one, other)))
    assert TensorSpec.from_json(tensor.to_json()) == tensor
    assert "span" not in tensor._replace(span=None).to_json()


@pytest.mark.parametrize("span", [[1], [2, 1], [0, float("inf")], "01", [True, 2], [None, 1], [0, 10**400]])
def test_a_wrong_span_is_refused(span: Any) -> None:
    with pytest.raises(ValueError, match="the span of tensor 'x'"):
        TensorSpec.from_json({"name": "x", "dtype": "float32", "shape": [1], "span": span})
    with pytest.raises(ValueError, match="only floats have one"):
        TensorSpec.from_json({"name": "x", "dtype": "int32", "shape": [1], "span": [0, 1]})
