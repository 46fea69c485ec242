"""The comparison of tables: known factors, planted changes, noise, and the shipped tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from ofa_profiler import LatencyTable, compare, get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.tables.compare import PairComparison
from ofa_profiler.tables.compare_noise import row_noise, table_noise
from ofa_profiler.tables.compare_text import comparison_csv, comparison_lines
from ofa_profiler.tables.row import Row

OPS = get_space("cifar-mbv3").with_resolutions([24]).unique_ops()
TABLES = ROOT / "latency_tables"
BASE_MS = np.random.default_rng(0).uniform(0.01, 0.1, len(OPS))
DEVICE = {"model": "board", "soc": "s", "machine": "aarch64"}


def table_of(times: Sequence[float], name: str, half_width: str = "0.01", **metadata: Any) -> LatencyTable:
    rows = []
    for op, ms in zip(OPS, times, strict=False):
        row = Row.from_op(op, batch=1, precision="fp32", samples_ms=[ms])
        rows.append(replace(row, extra={"half_width": half_width}))
    said = {"device": DEVICE, "runtime": "litert", "runtime_version": "2.3.0", **metadata}
    return LatencyTable(name, tuple(rows), said)


def pair_of(one: LatencyTable, two: LatencyTable) -> PairComparison:
    return compare(one, two).pairs[0]


BASE = table_of(BASE_MS, "base")


def noisy_ms(seed: int = 1) -> np.ndarray:
    return BASE_MS * np.exp(np.random.default_rng(seed).normal(0, 0.003, len(OPS)))


def test_a_planted_change_stands_out_from_a_known_factor():
    times = 3 * noisy_ms()
    depthwise = [i for i, op in enumerate(OPS) if op.attributes.get("kernel_size") == 7 and op.kind == "mbconv"]
    times[depthwise] *= 1.5
    pair = pair_of(BASE, table_of(times, "phone", device={"model": "phone"}))
    assert pair.question == "device"
    assert pair.factor == pytest.approx(3.0, rel=0.02)
    assert {op.op for op in pair.outliers} == {OPS[i].key for i in depthwise}
    assert [op.worth_ms for op in pair.outliers] == sorted((op.worth_ms for op in pair.outliers), reverse=True)
    expected = 3 * BASE_MS[depthwise].sum() / 2
    (group,) = [group for group in pair.groups if group.label == "mbconv 7x7"]
    assert (group.count, group.significant) == (len(depthwise), len(depthwise))
    assert group.worth_ms == pytest.approx(expected, rel=0.05)
    assert group.ratio_without_factor == pytest.approx(1.5, rel=0.02)


def test_two_measurements_agree_within_noise_and_a_change_of_the_whole_does_not():
    again = pair_of(BASE, table_of(noisy_ms(), "again"))
    assert (again.question, again.agrees, again.whole_differs, again.outliers) == ("repeat", True, False, ())
    slower = pair_of(BASE, table_of(1.1 * noisy_ms(), "slower"))
    assert (slower.agrees, slower.whole_differs, slower.differing) == (False, True, len(OPS))
    assert slower.outliers == (), "all ops share the factor"


def test_an_op_that_a_new_runtime_changed_is_named():
    times = 0.9 * noisy_ms()
    times[5] *= 0.5
    pair = pair_of(BASE, table_of(times, "new", runtime_version="2.4.0"))
    assert (pair.question, [op.op for op in pair.outliers]) == ("version", [OPS[5].key])
    assert [(s.name, s.base, s.table) for s in pair.settings] == [("runtime_version", "2.3.0", "2.4.0")]


def test_wider_noise_explains_the_same_change():
    times = noisy_ms()
    times[5] *= 1.2
    assert len(pair_of(BASE, table_of(times, "sure")).outliers) == 1
    assert pair_of(BASE, table_of(times, "unsure", half_width="0.3")).outliers == ()


TIMES = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=12)


@settings(max_examples=40, deadline=None)
@given(TIMES, TIMES, st.floats(1e-3, 1e3))
def test_scaling_a_table_changes_only_the_factor(one: list[float], two: list[float], scale: float):
    base, other = table_of(one, "a"), table_of(two, "b")
    before, after = pair_of(base, other), pair_of(base, table_of([scale * ms for ms in two], "b"))
    assert after.factor == pytest.approx(scale * before.factor, rel=1e-9)
    assert after.spread == pytest.approx(before.spread, abs=1e-9)
    for old, new in zip(before.ops, after.ops, strict=True):
        assert new.ratio_without_factor == pytest.approx(old.ratio_without_factor, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(TIMES, TIMES)
def test_swapping_inverts(one: list[float], two: list[float]):
    there, back = pair_of(table_of(one, "a"), table_of(two, "b")), pair_of(table_of(two, "b"), table_of(one, "a"))
    assert there.factor * back.factor == pytest.approx(1)
    assert (there.differing, there.whole_differs) == (back.differing, back.whole_differs)
    for op, inverse in zip(there.ops, back.ops, strict=True):
        assert op.ratio * inverse.ratio == pytest.approx(1)
        assert op.ratio_without_factor * inverse.ratio_without_factor == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_rows_changes_nothing(order: list[int]):
    one, two = table_of(BASE_MS[:12], "a"), table_of(2 * noisy_ms()[:12], "b")
    there = pair_of(one, two)
    shuffled = pair_of(replace(one, rows=tuple(one.rows[i] for i in order)), two)
    assert {o.op: o for o in shuffled.ops} == {o.op: o for o in there.ops}
    assert (shuffled.factor, shuffled.spread, shuffled.groups) == (there.factor, there.spread, there.groups)


def test_rows_without_a_measured_time_are_counted():
    failed = Row.failed(OPS[0], batch=1, precision="fp32", error="x")
    inferred = Row.inferred(OPS[1], batch=1, precision="fp32", ms=(1.0, 0.9, 1.1))
    other = replace(BASE, name="gaps", rows=(failed, inferred, *BASE.rows[2:-1]))
    pair = pair_of(BASE, other)
    assert (pair.left_out, pair.only_in, len(pair.ops)) == ((0, 2), (3, 0), len(OPS) - 3)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UsageError, match="given twice"):
        compare(TABLES / "epyc-cifar-mbv3.csv", TABLES / ".." / "latency_tables" / "epyc-cifar-mbv3.csv")
    with pytest.raises(UsageError, match="no measured op in common"):
        compare(replace(BASE, rows=BASE.rows[:3]), replace(BASE, rows=BASE.rows[3:]))
    with pytest.raises(UsageError, match="two tables at least"):
        compare(BASE)
    with pytest.raises(InputFileError):
        compare(BASE, TABLES / "README.md")


def test_tables_of_models_compare_by_their_hash_and_the_whole():
    def model(name: str, sha256: str, whole_ms: float) -> LatencyTable:
        said = {"file": "m.onnx", "sha256": sha256, "bytes": 3}
        return table_of(BASE_MS, name, model=said, whole_ms=whole_ms)

    pair = pair_of(model("a", "1", 10.0), model("b", "1", 12.0))
    assert (pair.whole_ms, pair.whole_differs, pair.factor) == ((10.0, 12.0), True, 1.0)
    with pytest.raises(UsageError, match="different model files"):
        compare(model("a", "1", 1.0), model("b", "2", 1.0))
    with pytest.raises(UsageError, match="of a model and of a search space"):
        compare(model("a", "1", 1.0), BASE)


def test_published_rows_match_at_each_resolution():
    rows = [replace(row, resolution=at, median_ms=None) for at in (160, 224) for row in BASE.rows[:4]]
    published = LatencyTable("published", tuple(rows))
    pair = pair_of(BASE, published)
    assert [(op.resolution, op.ratio) for op in pair.ops] == [(160, 1.0), (224, 1.0)] * 4
    assert pair.question == "unknown"


def test_the_noise_of_a_row():
    samples = np.random.default_rng(0).normal(1, 0.1, 400)
    row = Row.from_op(OPS[0], batch=1, precision="fp32", samples_ms=samples)
    medians = [np.median(np.random.default_rng(i).normal(1, 0.1, 400)) for i in range(2000)]
    assert row_noise(row) == pytest.approx(1.96 * np.std(medians), rel=0.15)
    assert row_noise(replace(row, extra={"half_width": "0.07"})) == 0.07
    assert row_noise(replace(row, p10_ms=None, std_ms=None)) is None


def test_the_noise_of_a_table_follows_from_its_validation():
    errors = np.abs(np.random.default_rng(0).normal(0, 0.02, 5000))
    table = table_of(BASE_MS, "t", validation={"noise": float(errors.mean())})
    assert table_noise(table) == pytest.approx(1.96 * 0.02, rel=0.05)
    assert table_noise(BASE) == 0.02, "the limit of `stability`"


@pytest.mark.parametrize(
    ("one", "two"), [("", "-onnxruntime-fp32-t1"), ("-litert", "-litert-fp32-t1")], ids=["onnxruntime", "litert"]
)
def test_shipped_tables_of_one_setting_agree(one: str, two: str):
    """They were measured hours apart."""
    pair = pair_of(*(LatencyTable.load(TABLES / f"epyc-cifar-mbv3{end}.csv") for end in (one, two)))
    assert (pair.question, pair.agrees) == ("repeat", True)
    assert pair.factor == pytest.approx(1, abs=0.01)


def test_shipped_tables_of_two_runtimes_and_precisions():
    names = ("", "-litert", "-onnxruntime-int8-t1")
    comparison = compare(*(TABLES / f"epyc-cifar-mbv3{end}.csv" for end in names))
    litert, int8 = comparison.pairs
    assert (litert.question, int8.question) == ("settings", "settings")
    assert ("depthwise 7x7, stride 1", "plain", "split") in [(f.group, f.base, f.table) for f in litert.forms]
    ratios = {group.label: group.ratio_without_factor for group in litert.groups}
    assert ratios["mbconv 7x7"] > 1.2 > ratios["mbconv 3x3"]
    assert "precision" in {setting.name for setting in int8.settings}
    assert int8.only_in == (0, 50), "changes of precision"
    assert len(comparison_csv(comparison).splitlines()) == 1 + 2 * 273
    lines = "\n".join(comparison_lines(comparison))
    assert "fp32 -> int8" in lines
    assert "273 ops compared; 0 and 50 ops are in one table only" in lines
