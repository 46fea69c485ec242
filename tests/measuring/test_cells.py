"""Lists of settings: how they are read, and what their tables are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler import get_space
from ofa_profiler.base.progress import Progress
from ofa_profiler.devices import FakeDevice
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring import cells as cells_module
from ofa_profiler.measuring.cells import boundary_ops, cells_of, common_settings, read_list, refuse, too_many_threads
from ofa_profiler.measuring.joint_progress import JointProgress
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target

WORDS = st.text(st.characters(codec="ascii", exclude_characters=","), min_size=1).filter(str.strip)


@given(st.lists(WORDS.map(str.strip), min_size=1, unique=True))
def test_a_list_there_and_back(values):
    assert list(read_list(",".join(values), "--precision")) == values


@given(st.lists(WORDS, min_size=1), st.data())
def test_an_empty_or_repeated_value_is_refused(values, data):
    at = data.draw(st.integers(0, len(values)))
    for wrong in ("", " ", values[0]):
        with pytest.raises(UsageError, match=r"^--precision .*(empty value|twice: give each value once).*$"):
            read_list(",".join([*values[:at], wrong, *values[at:]]), "--precision")


def test_the_names_of_cells():
    cells = cells_of(Settings(Target("litert", batch=2), threads=4, provider="CPU"), ["fp32", "int8"])
    assert [cell.table_name("board") for cell in cells] == ["board-litert-fp32-t4", "board-litert-int8-t4"]
    assert [cell.label for cell in cells] == ["fp32", "int8"]
    shared = common_settings(cells)
    assert (shared.target, shared.threads, shared.provider) == (Target(batch=2), 1, "CPU")


def test_the_cells_of_three_lists():
    cells = cells_of(Settings(), ["fp32", "int8"], runtimes=["onnxruntime", "litert"], threads=[1, 4])
    assert [cell.label for cell in cells] == [cell.name for cell in cells]
    assert [cell.name for cell in cells[:5]] == [
        "onnxruntime-fp32-t1",
        "onnxruntime-fp32-t4",
        "onnxruntime-int8-t1",
        "onnxruntime-int8-t4",
        "litert-fp32-t1",
    ]
    assert [cell.settings.threads for cell in cells] == [1, 4] * 4
    assert {cell.settings.target.precision for cell in cells if cell.has_boundaries} == {"int8"}
    assert {cell.pair for cell in cells} == {"onnxruntime-t1", "onnxruntime-t4", "litert-t1", "litert-t4"}
    assert common_settings(cells) == Settings()


@pytest.mark.parametrize(
    ("lists", "labels"),
    [
        ({"threads": [1, 2]}, ["t1", "t2"]),
        ({"runtimes": ["litert", "onnxruntime"]}, ["litert", "onnxruntime"]),
        ({"runtimes": ["litert", "onnxruntime"], "threads": [2]}, ["litert", "onnxruntime"]),
        ({}, ["fp32"]),
    ],
)
def test_a_label_has_only_what_differs(lists, labels):
    assert [cell.label for cell in cells_of(Settings(), ["fp32"], **lists)] == labels


def test_a_precision_of_one_runtime_is_refused_for_the_other(monkeypatch):
    def exporter(target: Target) -> None:
        if target.runtime == "litert" and target.precision == "int8":
            raise UsageError("not built")

    monkeypatch.setattr(cells_module, "get_exporter", exporter)
    cells = cells_of(Settings(), ["fp32", "int8"], runtimes=["onnxruntime", "litert"])
    assert {cell.name: cell.refused for cell in cells if cell.refused} == {"litert-int8-t1": "not built"}
    with pytest.raises(UsageError, match=r"^not built$"):
        cells_of(Settings(Target("litert")), ["fp32", "int8"])
    with pytest.raises(UsageError, match="tvm"):
        cells_of(Settings(), ["fp32"], runtimes=["onnxruntime", "tvm"])


def test_only_what_is_impossible_for_all_cells_is_an_error():
    cells = cells_of(Settings(), ["fp32"], threads=[1, 2, 8])
    found = refuse(cells, lambda cell: "too many" if cell.settings.threads > 1 else None)
    assert [cell.refused for cell in found] == ["", "too many", "too many"]
    with pytest.raises(UsageError, match=r"^other$"):
        refuse(found[:1], lambda _: "other")
    device = FakeDevice().describe()
    assert [bool(too_many_threads(cell, device, "fake")) for cell in cells] == [False, False, True]


def test_changes_of_precision_are_measured_with_both_precisions():
    space = get_space("cifar-mbv3").with_resolutions([24])
    fp32, int8 = cells_of(Settings(), ["fp32", "int8"])
    assert fp32.more_ops(space) == ()
    assert int8.more_ops(space) == boundary_ops(space)
    assert {op.kind for op in int8.more_ops(space)} == {"quantize", "dequantize"}
    assert cells_of(Settings(), ["int8"])[0].more_ops(space) == ()


@pytest.mark.parametrize(
    ("precision", "line"),
    [
        ("int4", "precision 'int4' is not supported with litert; choose from fp32, int8"),
        ("fp16", r"precision 'fp16' .* is not built; choose from fp32, int8"),
        ("mixed", r"--precision fp32,int8"),
    ],
)
def test_what_is_not_supported_is_one_line(precision, line):
    with pytest.raises(UsageError, match=line):
        cells_of(Settings(Target("litert")), ["fp32", precision])


def test_progress_is_that_of_all_cells():
    seen: list[Progress] = []
    joint = JointProgress(["a", "b"], seen.append)
    a, b = (joint.reporter_of(cell, cell) for cell in "ab")
    a(Progress("measure", 10, 100, 9.0, "1 of 9 finished"))
    assert seen[-1] == Progress("measure", 10, 200, 18.0, "a: 1 of 9 finished"), "b is expected to take as long"
    b(Progress("measure", 20, 60, 4.0))
    assert (seen[-1].done, seen[-1].total, seen[-1].left_s) == (30, 160, 13.0)
    a(Progress("measure networks", 0, 50, 5.0, waiting="it is hot"))
    assert (seen[-1].total, seen[-1].left_s, seen[-1].waiting) == (100, 10.0, "it is hot")
    joint.end("a")
    b(Progress("measure", 60, 60, 0.0))
    assert (seen[-1].total, seen[-1].left_s) == (160, 0.0)
