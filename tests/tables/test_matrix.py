"""The comparison of tables, against tables made by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.tables.matrix import NETWORK, MatrixRow, compute_matrix, save_matrix
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
