"""The union-find over arrays, beside one over single labels."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofa_search.pruning.graph.classes import Classes, collapsed, varying
from ofa_search.pruning.graph.values import reshaped

PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=12)


def naive(batches: list[list[tuple[int, int]]]) -> list[int]:
    """The smallest label of each class."""
    found = list(range(20))
    for a, b in [pair for pairs in batches for pair in pairs]:
        low, high = sorted((found[a], found[b]))
        found = [low if each == high else each for each in found]
    return found


@given(st.lists(PAIRS, max_size=5))
def test_merging_is_that_of_a_plain_union_find(batches: list[list[tuple[int, int]]]) -> None:
    classes = Classes()
    labels = classes.fresh(20)
    for pairs in batches:
        if pairs:
            a, b = np.array(pairs, np.int64).T
            classes.merge(a, b)
    roots = classes.find(labels).tolist()
    expected = naive(batches)
    assert [roots.index(each) for each in roots] == [expected.index(each) for each in expected]


@given(PAIRS, st.lists(st.integers(0, 19), max_size=4), PAIRS)
def test_what_meets_a_frozen_class_is_frozen(
    before: list[tuple[int, int]], frozen: list[int], after: list[tuple[int, int]]
) -> None:
    classes = Classes()
    labels = classes.fresh(20)
    for i, pairs in enumerate((before, after)):
        if pairs:
            a, b = np.array(pairs, np.int64).T
            classes.merge(a, b)
        if i == 0:
            classes.freeze(np.array(frozen, np.int64), classes.code("for a test"))
    expected = naive([before, after])
    still = classes.resolve(labels)
    wanted = {expected[label] for label in frozen}
    assert [label < 0 for label in still.tolist()] == [each in wanted for each in expected]
    assert {classes.reason(code) for code in still[still < 0].tolist()} <= {"for a test"}


def test_labels_stay_when_more_are_made() -> None:
    classes = Classes()
    first = classes.fresh(3)
    classes.merge(first[:1], first[1:2])
    second = classes.fresh(1000)
    assert classes.find(first).tolist() == [0, 0, 2]
    assert classes.find(second).tolist() == list(range(3, 1003))
    assert classes.alone(first).tolist() == [False, False, True]


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(SIZES, st.data())
def test_reshaping_small_labels_is_reshaping_all_of_them(shape: list[int], data: st.DataObject) -> None:
    shared = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    small = np.arange(prod(1 if s else n for s, n in zip(shared, shape, strict=True)))
    small = small.reshape([1 if s else n for s, n in zip(shared, shape, strict=True)])
    order = data.draw(st.permutations([n for n in shape if n > 1]))
    merged = data.draw(st.integers(0, max(0, len(order) - 1)))
    new = [prod(order[:merged]), *order[merged:], 1]
    result = reshaped(small, shape, new)
    whole = np.broadcast_to(small, shape).reshape(new)
    assert (np.broadcast_to(result, new) == whole).all()
    labels, _ = collapsed(result.astype(np.int64), np.zeros(result.shape, np.bool_))
    assert (np.broadcast_to(labels, new) == whole).all()
    assert varying(labels) == [axis for axis, size in enumerate(labels.shape) if size > 1]
