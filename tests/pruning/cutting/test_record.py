"""Records as data: to JSON and back, refused where they are damaged, and joined."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.errors import UsageError
from ofa_search.pruning.cutting.record import AttributeCut, CutRecord, TensorCut

NAMES = st.text("abc.0", min_size=1, max_size=6)


@st.composite
def tensor_cuts(draw: st.DrawFn) -> TensorCut:
    size = draw(st.integers(1, 9))
    kept = draw(st.sets(st.integers(0, size - 1), min_size=1))
    return TensorCut(draw(NAMES), draw(st.integers(0, 3)), size, tuple(sorted(kept)))


VALUES = st.integers(0, 99) | st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
ATTRIBUTES = st.builds(AttributeCut, NAMES | st.just(""), NAMES, VALUES)
RECORDS = st.builds(
    CutRecord,
    st.lists(tensor_cuts(), max_size=5, unique_by=lambda each: (each.tensor, each.axis)).map(
        lambda cuts: tuple(sorted(cuts, key=lambda each: each.tensor))
    ),
    st.lists(ATTRIBUTES, max_size=5, unique_by=lambda each: (each.module, each.attribute)).map(
        lambda changes: tuple(sorted(changes, key=lambda each: each.module))
    ),
)


@given(RECORDS)
def test_json_gives_the_same_record(record: CutRecord) -> None:
    assert CutRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.data(), RECORDS, JSON)
def test_damage_is_refused_in_one_line(data: st.DataObject, record: CutRecord, junk: Any) -> None:
    document = record.to_json()
    holder: Any = {"record": document}
    key: Any = "record"
    while isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    whole: dict[str, Any] = {"record": document} if key != "record" else holder
    holder[key] = junk
    problem = ""
    try:
        CutRecord.from_json(whole["record"])
    except UsageError as error:
        problem = str(error)
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"a": {"0": {"of": 4, "kept": [1, 1]}}}, "a, axis 0: 'kept' is not ascending within 0 to 3"),
        ({"a": {"0": {"of": 4, "kept": [1, 4]}}}, "a, axis 0: 'kept' is not ascending within 0 to 3"),
        ({"a": {"0": {"of": 4, "kept": []}}}, "a, axis 0: 'kept' has no indices, or something else"),
        ({"a": {"0": {"of": 4, "kept": [True]}}}, "a, axis 0: 'kept' has no indices, or something else"),
        ({"a": {"-1": {"of": 4, "kept": [0]}}}, "a, axis -1: no number of an axis"),
        ({"a": {"0": {"kept": [0]}}}, "a, axis 0: no 'of' with a size, or no 'kept' with indices"),
        ({"a": 3}, "a: no object"),
    ],
)
def test_what_is_wrong_is_said(tensors: object, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        CutRecord.from_json({"format": 1, "tensors": tensors, "attributes": {}})
    assert str(caught.value) == problem


def test_records_of_other_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="format 2, not 1"):
        CutRecord.from_json({"format": 2, "tensors": {}, "attributes": {}})


@given(st.data())
def test_two_cuts_are_one(data: st.DataObject) -> None:
    first = data.draw(tensor_cuts())
    kept = tuple(sorted(data.draw(st.sets(st.integers(0, len(first.kept) - 1), min_size=1))))
    second = TensorCut(first.tensor, first.axis, len(first.kept), kept)
    (joined,) = CutRecord((first,)).then(CutRecord((second,))).tensors
    assert joined.size == first.size
    assert joined.kept == tuple(np.arange(first.size)[list(first.kept)][list(kept)])


def test_cuts_that_do_not_follow_are_refused() -> None:
    first, second = (CutRecord((TensorCut("a", 0, 4, (0, 1, 2)),)) for _ in range(2))
    with pytest.raises(UsageError, match="a: 3 were kept, and the second cut had 4"):
        first.then(second)


def test_the_last_value_of_an_attribute_counts() -> None:
    first, second = (CutRecord((), (AttributeCut("conv", "groups", n),)) for n in (4, 2))
    assert first.then(second).attributes == second.attributes
