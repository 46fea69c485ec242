"""The comparison of tables, against tables made by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import DeviceError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.matrix import NETWORK, NOT_MEASURED, MatrixRow, compute_matrix, save_matrix, unmeasured_row
from ofa_profiler.tables.matrix_text import matrix_lines
from ofa_profiler.tables.row import Row

OPS = {op.key: op for op in get_space("cifar-mbv3").with_resolutions([24]).unique_ops()}
BLOCKS = [key for key, op in OPS.items() if op.kind == "mbconv"]
OTHERS = [key for key in OPS if key not in BLOCKS]


def table_of(precision: str, times: dict[str, float], name: str = "", failed: tuple[str, ...] = ()) -> LatencyTable:
    rows = [Row.from_op(OPS[key], batch=1, precision=precision, samples_ms=[ms]) for key, ms in times.items()]
    rows += [Row.failed(OPS[key], batch=1, precision=precision, error="on purpose") for key in failed]
    metadata = {"runtime": "litert", "precision": precision, "threads": 2, "spaces": ["cifar-mbv3"]}
    return LatencyTable(name or f"t-{precision}", tuple(rows), metadata)


def row(rows: tuple[MatrixRow, ...], kind: str, table: str) -> MatrixRow:
    (found,) = [each for each in rows if (each.kind, each.table) == (kind, table)]
    return found


def test_gains_are_geometric_means_over_common_ops():
    one, two, three, four = BLOCKS[:4]
    fp32 = table_of("fp32", {one: 2.0, two: 8.0, three: 1.0}, failed=(four,))
    int8 = table_of("int8", {one: 1.0, two: 1.0, four: 5.0}, failed=(three,))
    rows = compute_matrix([int8, fp32])
    found = row(rows, "mbconv", "t-int8")
    assert (found.base, found.count, found.median_ms, found.compared) == ("t-fp32", 3, 1.0, 2)
    assert found.gain == pytest.approx(4.0)
    assert (found.gain_min, found.gain_max) == (2.0, 8.0)
    assert found.gain_spread == pytest.approx(math.exp(math.log(4) / math.sqrt(2)))
    assert (found.runtime, found.precision, found.threads) == ("litert", "int8", 2)
    own = row(rows, "mbconv", "t-fp32")
    assert (own.count, own.median_ms, own.gain, own.gain_spread) == (3, 2.0, 1.0, 1.0)
    assert [each.kind for each in rows] == ["mbconv"] * 2, "no networks of a part of the space"


def test_a_kind_of_one_table_has_no_gain():
    rows = compute_matrix([table_of("fp32", {BLOCKS[0]: 2.0}), table_of("int8", {BLOCKS[0]: 1.0, OTHERS[0]: 1.0})])
    kind = OPS[OTHERS[0]].kind
    assert row(rows, kind, "t-int8").gain is None
    assert row(rows, kind, "t-fp32") == MatrixRow(kind, "t-fp32", "litert", "fp32", 2, 0, None, "t-fp32", 0)


@pytest.mark.parametrize("gain", [0.25, 3.0])
def test_networks_gain_what_all_their_ops_gain(gain):
    fp32 = table_of("fp32", dict.fromkeys(OPS, gain))
    int8 = table_of("int8", dict.fromkeys(OPS, 1.0))
    found = row(compute_matrix([fp32, int8]), NETWORK, "t-int8")
    assert (found.count, found.compared) == (100, 100)
    assert found.gain == pytest.approx(gain)
    assert found.gain_spread == pytest.approx(1.0)
    back = row(compute_matrix([table_of("int8", dict.fromkeys(OPS, gain)), fp32]), NETWORK, "t-int8")
    assert back.gain == pytest.approx(1.0)


def test_the_file_reads_with_pandas_and_is_the_same_again(tmp_path: Path):
    tables = [table_of("fp32", dict.fromkeys(OPS, 3.0)), table_of("int8", dict.fromkeys(OPS, 2.0))]
    rows = compute_matrix(tables)
    save_matrix(rows, tmp_path / "m.csv")
    frame = pd.read_csv(tmp_path / "m.csv")
    assert list(frame.kind.unique()) == [*dict.fromkeys(op.kind for op in OPS.values()), NETWORK]
    assert set(frame.gain[frame.table == "t-int8"]) == {1.5}
    before = (tmp_path / "m.csv").read_bytes()
    save_matrix(compute_matrix(tables), tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def test_rows_of_other_tables_stay_as_long_as_these_are_there(tmp_path: Path):
    path = tmp_path / "m.csv"

    def save(runtime: str) -> list[str]:
        tables = [table_of(p, {BLOCKS[0]: 1.0}, f"t-{runtime}-{p}") for p in ("fp32", "int8")]
        for table in tables:
            table.save(tmp_path / f"{table.name}.csv")
        save_matrix(compute_matrix(tables), path)
        return sorted(pd.read_csv(path).table)

    first = save("litert")
    both = save("onnxruntime")
    assert both == [*first, "t-onnxruntime-fp32", "t-onnxruntime-int8"]
    assert save("onnxruntime") == both
    (tmp_path / "t-litert-fp32.csv").unlink()
    assert save("onnxruntime") == both[1:]


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"kind,table\nmbconv,t\n", b"", b'"'])
def test_a_file_of_another_kind_is_replaced(damage: bytes, tmp_path: Path):
    (tmp_path / "m.csv").write_bytes(damage)
    save_matrix(compute_matrix([table_of("fp32", {BLOCKS[0]: 2.0})]), tmp_path / "m.csv")
    assert list(pd.read_csv(tmp_path / "m.csv").table) == ["t-fp32"]


def test_the_table_for_people():
    tables = [table_of("fp32", dict.fromkeys(BLOCKS, 3.0)), table_of("int8", dict.fromkeys(BLOCKS, 2.0))]
    lines = matrix_lines(compute_matrix(tables), {"t-fp32": "fp32", "t-int8": "int8"})
    assert lines[0].split() == ["kind", "count", "fp32", "ms", "int8", "ms", "gain", "from", "to"]
    assert lines[1].split() == ["mbconv", str(len(BLOCKS)), "3", "2", "1.50x", "1.50x", "1.50x"]


# --- tables of users' models, and tables that were not made ------------------------------------------------------


def model_table(runtime: str, precision: str, times: dict[str, float], whole_ms: float | None) -> LatencyTable:
    table = table_of(precision, times, f"m-{runtime}-{precision}")
    about = {"runtime": runtime, "spaces": [], "model": {"file": f"net.{runtime}"}, "whole_ms": whole_ms}
    return LatencyTable(table.name, table.rows, {**table.metadata, **about})


def test_blocks_are_compared_within_a_runtime_and_whole_networks_across():
    one, two = BLOCKS[:2]
    tables = [
        model_table("onnxruntime", "fp32", {one: 4.0, two: 2.0}, 8.0),
        model_table("onnxruntime", "int8", {one: 2.0, two: 1.0}, 4.0),
        model_table("litert", "int8", {one: 1.0}, 2.0),
        model_table("litert", "fp32", {one: 3.0}, None),
    ]
    rows = compute_matrix(tables)
    kinds = [row(rows, "mbconv", table.name) for table in tables]
    assert [each.base for each in kinds] == ["m-onnxruntime-fp32"] * 2 + ["m-litert-fp32"] * 2
    assert [each.gain for each in kinds] == pytest.approx([1.0, 2.0, 3.0, 1.0])
    wholes = [row(rows, NETWORK, table.name) for table in tables]
    assert {each.base for each in wholes} == {"m-onnxruntime-fp32"}
    assert [each.median_ms for each in wholes] == [8.0, 4.0, 2.0, None]
    assert [each.gain for each in wholes[:3]] == pytest.approx([1.0, 2.0, 4.0])
    assert (wholes[3].count, wholes[3].gain) == (0, None), "the whole network failed"
    labels = {table.name: table.name[2:] for table in tables}
    lines = [line.split() for line in matrix_lines(rows, labels)]
    assert lines == [
        ["gain", "of", "network", "ms", "network", "mbconv"],
        ["onnxruntime-fp32", "8", "1.00x", "1.00x"],
        ["onnxruntime-int8", "4", "2.00x", "2.00x"],
        ["litert-int8", "2", "4.00x", "3.00x"],
        ["litert-fp32", "-", "-", "1.00x"],
    ]


def test_a_table_that_was_not_made_is_a_row_with_its_reason(tmp_path: Path):
    made = compute_matrix([table_of("fp32", {BLOCKS[0]: 2.0})])
    missing = unmeasured_row("t-int8", Settings(Target("litert", "int8"), threads=8), DeviceError("no\n power"))
    save_matrix((*made, missing), tmp_path / "m.csv")
    frame = pd.read_csv(tmp_path / "m.csv")
    assert list(frame.kind) == ["mbconv", NOT_MEASURED]
    assert list(frame.iloc[1][["table", "runtime", "precision", "threads", "reason"]]) == [
        "t-int8",
        "litert",
        "int8",
        8,
        "no power",
    ]
    lines = matrix_lines((*made, missing), {"t-fp32": "fp32", "t-int8": "int8"})
    assert lines[0].split() == ["kind", "count", "fp32", "ms"]
    assert lines[2:] == ["int8: not measured: no power"]


def test_rows_of_a_file_without_reasons_stay(tmp_path: Path):
    old = table_of("fp32", {BLOCKS[0]: 2.0}, "old")
    old.save(tmp_path / "old.csv")
    save_matrix(compute_matrix([old]), tmp_path / "m.csv")
    frame = pd.read_csv(tmp_path / "m.csv")
    frame.drop(columns="reason").to_csv(tmp_path / "m.csv", index=False)
    save_matrix(compute_matrix([table_of("int8", {BLOCKS[0]: 1.0})]), tmp_path / "m.csv")
    assert list(pd.read_csv(tmp_path / "m.csv").table) == ["t-int8", "old"]


def test_many_tables_are_lines():
    tables = [table_of("fp32", dict.fromkeys(OPS, 8.0 / n), f"t{n}") for n in (1, 2, 4, 8)]
    lines = matrix_lines(compute_matrix(tables), {table.name: table.name for table in tables})
    assert lines[0].split()[:6] == ["gain", "of", "network", "ms", "network", "mbconv"]
    assert [line.split()[2:] for line in lines[1:]] == [
        [f"{n}.00x"] * (len(lines[0].split()) - 4) for n in (1, 2, 4, 8)
    ]
