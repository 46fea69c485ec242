"""Latency tables as values and as files: what is predicted, what is refused, and that nothing is half-written."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import InfeasibleError, InputFileError, UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.table import Row

SPACE = get_space("cifar-mbv3")
#: The contract: this order, further columns after.
COLUMNS = [
    *("op", "kind", "input_shape", "output_shape", "kernel_size", "mid_channels", "stride", "skip", "se"),
    *("activation", "batch", "precision", "median_ms", "mean_ms", "std_ms", "p10_ms", "p90_ms", "samples", "status"),
]


def measured(op: Op, rng: np.random.Generator) -> Row:
    return Row.from_op(op, batch=1, precision="fp32", samples_ms=rng.uniform(0.9, 1.1, 9) * (1 + op.macs / 1e6))


def make_table(ops=None, **metadata) -> LatencyTable:
    rng = np.random.default_rng(0)
    return LatencyTable("board", tuple(measured(op, rng) for op in ops or SPACE.unique_ops()), metadata)


TABLE = make_table()
FAILED_OP = next(op for op in SPACE.unique_ops([28]) if op.kind == "mbconv" and op.attributes["kernel_size"] == 7)


def with_failed(table: LatencyTable, op: Op) -> LatencyTable:
    failed = Row.failed(op, batch=1, precision="fp32", error="the agent died:\n signal 11 ")
    return LatencyTable(table.name, tuple(failed if row.op == op.key else row for row in table.rows), table.metadata)


def architectures(count: int, space=SPACE):
    return space.decode(space.sample_genomes(np.random.default_rng(1), count))


# --- rows -----------------------------------------------------------------------------------------------


def test_row_statistics():
    row = Row.from_op(FAILED_OP, batch=2, precision="int8", samples_ms=[3.0, 1.0, 2.0, 10.0])
    assert (row.median_ms, row.mean_ms, row.samples, row.status) == (2.5, 4.0, 4, "ok")
    assert row.std_ms == pytest.approx(np.std([3, 1, 2, 10]))
    assert row.p10_ms == pytest.approx(1.3)
    assert row.p90_ms == pytest.approx(7.9)
    assert row.to_op() == FAILED_OP
    for samples in ([], [1.0, 0.0], [1.0, -1.0], [float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="sample"):
            Row.from_op(FAILED_OP, batch=1, precision="fp32", samples_ms=samples)


# --- predictions ----------------------------------------------------------------------------------------


def test_predicts_the_sum_of_the_medians():
    chosen = architectures(200)
    medians = {row.op: row.median_ms for row in TABLE.rows}
    expected = [sum(medians[op.key] for op in SPACE.ops(a)) for a in chosen]
    np.testing.assert_allclose(TABLE.predict_ms(chosen), expected, rtol=1e-12)
    cost = TABLE.cost(SPACE)
    np.testing.assert_allclose(cost.evaluate(SPACE.encode(chosen)), expected, rtol=1e-12)
    low, genome = cost.minimum()
    assert TABLE.predict_ms(SPACE.decode(genome[np.newaxis]))[0] == pytest.approx(low, rel=1e-12)
    assert TABLE.predict_ms([]).shape == (0,)
    assert TABLE.latency_ms(FAILED_OP) == medians[FAILED_OP.key]


def test_architectures_of_several_spaces_at_once():
    other = get_space("ofa-mbv3-w1.0").with_resolutions([132, 160])
    table = make_table([*SPACE.unique_ops(), *other.unique_ops()])
    assert table.spaces == ("ofa-mbv3-w1.0", "cifar-mbv3")
    assert table.resolutions(other) == (132, 160)  # 132 is not among those sampled by default
    mixed = [a for pair in zip(architectures(20), architectures(20, other), strict=True) for a in pair]
    assert table.predict_ms(mixed).tolist() == [table.predict_ms([a])[0] for a in mixed]
    with pytest.raises(UsageError, match=r"does not cover ofa-mbv3-w1.0 at resolution 176.*; it covers .*at 132, 160"):
        table.cost(get_space("ofa-mbv3-w1.0"))


def test_a_table_of_another_space():
    other = get_space("ofa-mbv3-w1.2")
    stem = "Conv-input:160x160x3-output:80x80x24"
    with pytest.raises(UsageError, match=f"lacks .* of .* ops, for example {stem}; it covers cifar-mbv3 at 24, 28, 32"):
        TABLE.cost(other)
    chosen = architectures(1, other.with_resolutions([160]))
    with pytest.raises(UsageError, match=f"does not contain the op {stem}; it covers cifar-mbv3"):
        TABLE.predict_ms(chosen)
    assert TABLE.resolutions(other) == ()
    with pytest.raises(UsageError, match="unknown search space 'nas'"):
        TABLE.predict_ms([replace(chosen[0], space="nas")])


def test_a_part_of_a_space():
    """Complete resolutions can be used; of others, the architectures whose ops are there."""
    table = LatencyTable("board", tuple(row for row in TABLE.rows if row.op != FAILED_OP.key))
    assert table.resolutions(SPACE) == tuple(r for r in (24, 28, 32) if FAILED_OP not in SPACE.unique_ops([r]))
    with pytest.raises(UsageError, match=r"lacks 1 of \d+ ops, for example"):
        table.cost(SPACE)
    needs = np.array([FAILED_OP in SPACE.ops(a) for a in architectures(200)])
    without = [a for a, needed in zip(architectures(200), needs, strict=True) if not needed]
    assert 0 < len(without) < 200
    np.testing.assert_array_equal(table.predict_ms(without), TABLE.predict_ms(without))
    with pytest.raises(UsageError, match="does not contain the op"):
        table.predict_ms(architectures(200))


def test_a_failed_row(tmp_path):
    path = tmp_path / "board.csv"
    with_failed(TABLE, FAILED_OP).save(path)
    table = LatencyTable.load(path)
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(FAILED_OP.key))
    assert table.resolutions(SPACE) == (24, 28, 32)
    message = f"{path}, row {line}: op {FAILED_OP.key} could not be measured \\(the agent died: signal 11\\)"
    with pytest.raises(InputFileError, match=message):
        table.latency_ms(FAILED_OP)
    with pytest.raises(InputFileError, match=message):
        table.predict_ms(architectures(200))
    costs = table.cost(SPACE).evaluate(SPACE.encode(architectures(200)))
    assert np.isinf(costs).tolist() == [FAILED_OP in SPACE.ops(a) for a in architectures(200)]
    assert table.cost(SPACE).maximum()[0] <= TABLE.cost(SPACE).maximum()[0]
    assert any("failed and will not be used" in warning for warning in table.warnings)

    everything = table
    for op in SPACE.unique_ops():
        everything = with_failed(everything, op)
    with pytest.raises(InfeasibleError):
        everything.cost(SPACE).minimum()


# --- files: there and back ------------------------------------------------------------------------------


def test_columns_and_metadata(tmp_path):
    table = with_failed(make_table(device={"model": "Board é"}, threads=1), FAILED_OP)
    table.save(tmp_path / "new" / "board.csv")
    with (tmp_path / "new" / "board.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[: len(COLUMNS)] == COLUMNS
    assert rows[0]["input_shape"] == "24x24x3"
    failed = next(row for row in rows if row["status"] == "failed")
    assert failed["op"] == FAILED_OP.key
    assert {failed[name] for name in COLUMNS if name.endswith("_ms")} == {""}
    metadata = json.loads((tmp_path / "new" / "board.json").read_text())
    assert metadata["format"] == 1
    assert metadata["spaces"] == ["cifar-mbv3"]
    assert metadata["correction"] == {"method": "sum"}
    assert metadata["device"] == {"model": "Board é"}

    loaded = LatencyTable.load(tmp_path / "new" / "board.csv")
    assert loaded.rows == table.rows
    assert loaded.name == "board"
    assert loaded.metadata == metadata
    before = {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()}
    loaded.save(loaded.path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == before


def test_reads_back_with_pandas(tmp_path):
    pandas = pytest.importorskip("pandas", reason="reads the table as a user would, with pandas")
    with_failed(TABLE, FAILED_OP).save(tmp_path / "board.csv")
    frame = pandas.read_csv(tmp_path / "board.csv")
    assert list(frame.columns[: len(COLUMNS)]) == COLUMNS
    assert len(frame) == len(TABLE.rows)
    for name in COLUMNS:
        whole = name in ("kernel_size", "mid_channels", "stride", "skip", "se", "batch", "samples")
        kind = "f" if name.endswith("_ms") else "i" if whole else None
        assert kind is None or frame[name].dtype.kind == kind, name
        assert kind or not frame[name].map(lambda value: isinstance(value, (int, bool))).any(), name
    assert frame[frame.median_ms.isna()].status.tolist() == ["failed"]
    expected = [row.median_ms for row in TABLE.rows if row.op != FAILED_OP.key]
    # Before pandas 3, the last digit is not exact.
    assert frame[frame.status == "ok"].median_ms.tolist() == pytest.approx(expected, rel=1e-14)
    frame.to_csv(tmp_path / "again.csv", index=False)  # and what pandas writes is a table again
    again, before = LatencyTable.load(tmp_path / "again.csv"), LatencyTable.load(tmp_path / "board.csv")
    for row, same in zip(again.rows, before.rows, strict=True):
        assert astuple(row) == tuple(
            pytest.approx(cell, rel=1e-14) if isinstance(cell, float) else cell for cell in astuple(same)
        )


times = st.floats(min_value=1e-9, max_value=1e9)
cells = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))).map(str.strip)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(times, times, cells), min_size=1, max_size=5), st.text(), st.sampled_from([None, 24]))
def test_any_row_round_trips(tmp_path_factory, entries, error, resolution):
    ops = SPACE.unique_ops()
    rows = [
        replace(
            Row.from_op(op, batch=1, precision="fp32", samples_ms=[low, high]),
            extra={"note": note},
            resolution=resolution,
        )
        for op, (low, high, note) in zip(ops, entries, strict=False)
    ]
    failed = Row.failed(ops[-1], batch=1, precision="fp32", error=error)
    assert failed.error.isprintable()
    rows.append(replace(failed, extra={"note": ""}))
    path = tmp_path_factory.mktemp("table") / "t.csv"
    LatencyTable("t", tuple(rows)).save(path)
    assert LatencyTable.load(path).rows == tuple(rows)


# --- files: bad ones ------------------------------------------------------------------------------------


def lines_of(table: LatencyTable, path: Path) -> list[list[str]]:
    table.save(path)
    return list(csv.reader(io.StringIO(path.read_text())))


def write_lines(path: Path, lines: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("median_ms", "fast", "'fast' is not a number"),
        ("median_ms", "-0.5", "'-0.5' is not a time above zero"),
        ("median_ms", "0", "'0' is not a time above zero"),
        ("median_ms", "0.0", "'0.0' is not a time above zero"),
        ("median_ms", "nan", "'nan' is not a number"),
        ("median_ms", "inf", "'inf' is not a number"),
        ("median_ms", "1e999", "'1e999' is not a number"),
        ("median_ms", "1e308", "'1e308' is not a time of an op: it must be from 1e-09 to 1e+09 ms"),
        ("median_ms", "1e-320", "'1e-320' is not a time of an op"),
        ("p90_ms", "1e10", "'1e10' is not a time of an op"),
        ("std_ms", "1e308", "'1e308' is not a deviation of times: it must be at most 1e+09 ms"),
        ("median_ms", "1_000", "'1_000' is not a number"),
        ("median_ms", "1,5", "'1,5' is not a number"),
        ("median_ms", "5 ms", "'5 ms' is not a number"),
        ("median_ms", "", "is empty, but the status is ok"),
        ("median_ms", "x" * 10_000, "is not a number"),
        ("mean_ms", "-1", "is not a time above zero"),
        ("p10_ms", "text", "is not a number"),
        ("p90_ms", "nan", "is not a number"),
        ("std_ms", "-0.1", "is below zero"),
        ("samples", "2.5", "'2.5' is not a whole number"),
        ("samples", "", "at least 1"),
        ("samples", "0", "at least 1"),
        ("status", "done", "'done' is not one of ok, failed"),
        ("status", "failed", None),
        ("status", "", "'' is not one of"),
        ("kind", "lstm", "'lstm' contradicts the key, which has the kind mbconv"),
        ("kernel_size", "9", "contradicts its own columns (kernel:3 in the key, kernel:9 in the columns)"),
        ("input_shape", "12x12", "contradicts its own columns"),
        ("input_shape", "12 by 12", "is not a shape like 112x112x24"),
        ("skip", "yes", "'yes' is not one of 0, 1"),
        ("activation", "gelu", "'gelu' is not one of relu, relu6, h_swish"),
        ("batch", "8", "differ from the rows above"),
        ("precision", "int8", "differ from the rows above"),
        ("op", "", "contradicts its own columns"),
    ],
)
def test_bad_cells(tmp_path, column, cell, problem):
    path = tmp_path / "board.csv"
    lines = lines_of(TABLE, path)
    position = next(i for i, line in enumerate(lines) if line[0].startswith("expanded_conv") and i > 5)
    lines[position][lines[0].index(column)] = cell
    write_lines(path, lines)
    with pytest.raises(InputFileError) as caught:
        LatencyTable.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, row {position + 1}: column")
    if problem is None:  # a failed row that kept its times
        assert "column median_ms: a failed row has no times" in message
        return
    named = "op" if "contradicts its own" in problem else column
    assert named in message.split("row")[1].split(":")[1]
    assert problem in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300


@pytest.mark.parametrize("column", COLUMNS)
def test_missing_columns(tmp_path, column):
    path = tmp_path / "board.csv"
    lines = lines_of(TABLE, path)
    position = lines[0].index(column)
    write_lines(path, [line[:position] + line[position + 1 :] for line in lines])
    with pytest.raises(InputFileError, match=f"{path}, row 1: .* lacks the column {column}$"):
        LatencyTable.load(path)


HEADER = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEADER.encode(), "has no rows"),
        (b"hello world\n", "row 1: is not a latency table: it lacks the column op, kind, input_shape and 16 more"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a text file"),
        (b"PK\x03\x04\x00\x00", "zero bytes"),
        (HEADER.encode() + b'"unterminated', "row 2: is not CSV"),
        (HEADER.encode() + b"a,b,c\n", "row 2: has 3 cells, but the first line has 19"),
        (HEADER.replace("status", "status,op").encode(), "row 1: has the column 'op' twice"),
        (HEADER.replace(",", ";").encode(), "row 1: is separated by semicolons, as spreadsheets save it"),
        (HEADER.replace(",", '";"').encode(), "is separated by semicolons"),
        (HEADER.replace(",", "\t").encode("utf-8-sig"), "is separated by tabs, .* save it with commas and decimal"),
        (b"sep=;\n" + HEADER.replace(",", ";").encode(), "is separated by semicolons"),
        (HEADER.replace(",", "\t").encode("utf-16"), "is UTF-16, as spreadsheets save Unicode text; save it as CSV in"),
    ],
)
def test_not_tables(tmp_path, content, problem):
    path = tmp_path / "board.csv"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=problem) as caught:
        LatencyTable.load(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(InputFileError, match=r"board.csv: there is no such file"):
        LatencyTable.load(tmp_path / "board.csv")
    with pytest.raises(InputFileError, match=r"contains no published tables"):
        LatencyTable.load(tmp_path)
    with pytest.raises(InputFileError, match=r"give board.csv"):
        LatencyTable.load(tmp_path / "board.json")


def test_an_op_twice(tmp_path):
    path = tmp_path / "board.csv"
    lines = lines_of(TABLE, path)
    write_lines(path, [*lines, lines[3]])
    with pytest.raises(InputFileError, match=rf"row {len(lines) + 1}: column op: .* is listed twice, first in row 4"):
        LatencyTable.load(path)


def test_what_spreadsheets_do_is_read(tmp_path):
    """A byte order mark, CRLF, blank lines, spaces around cells, a column of notes."""
    path = tmp_path / "board.csv"
    lines = lines_of(TABLE, path)
    text = "\r\n".join(", ".join([*line, "note" if i == 0 else f"n{i}"]) for i, line in enumerate(lines))
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\r\n", "\r\n\r\n", 3).encode())
    loaded = LatencyTable.load(path)
    assert [replace(row, extra={}) for row in loaded.rows] == list(TABLE.rows)
    assert loaded.rows[0].extra == {"note": "n1"}
    assert [row.line for row in loaded.rows[:4]] == [3, 5, 7, 8]
    loaded.save(path)
    assert LatencyTable.load(path).rows == loaded.rows


# --- the JSON beside it ---------------------------------------------------------------------------------


def test_without_json(tmp_path):
    path = tmp_path / "board.csv"
    make_table(threads=2).save(path)
    assert LatencyTable.load(path).warnings == []
    (tmp_path / "board.json").unlink()
    table = LatencyTable.load(path)
    assert table.metadata == {}
    assert table.spaces == ("cifar-mbv3",)
    assert len(table.warnings) == 1
    assert "board.json is missing" in table.warnings[0]
    np.testing.assert_array_equal(table.predict_ms(architectures(20)), TABLE.predict_ms(architectures(20)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ('{"format": 1', "is not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "'format' must be its version"),
        ('{"format": "1"}', "'format' must be its version"),
        ('{"format": true}', "'format' must be its version"),
        ('{"format": 2}', "has format 2, but this version reads up to 1; update ofa-profiler"),
        ('{"format": 1, "format": 1}', "'format' twice"),
        ('{"format": 1, "x": NaN}', "NaN"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": 1, "spaces": "cifar-mbv3"}', "'spaces' must be a list of names"),
        ('{"format": 1, "correction": {"method": "magic"}}', "'correction' has the unknown method 'magic'"),
        ('{"format": 1, "correction": null}', "unknown method"),
    ],
)
def test_bad_json(tmp_path, text, problem):
    TABLE.save(tmp_path / "board.csv")
    (tmp_path / "board.json").write_text(text)
    with pytest.raises(InputFileError, match=problem) as caught:
        LatencyTable.load(tmp_path / "board.csv")
    assert str(caught.value).startswith(str(tmp_path / "board.json"))


# --- writing --------------------------------------------------------------------------------------------

_SAVE = """
import os, signal, sys
from pathlib import Path
from ofa_profiler import LatencyTable
table = LatencyTable.load(sys.argv[1])
action, count = sys.argv[3], int(sys.argv[4])
if action == "kill":  # the process is gone at the count-th change of the folder
    def counted(function):
        def change(*args, **kwargs):
            global count
            count -= 1
            if count < 0:
                os._exit(9)
            return function(*args, **kwargs)
        return change
    Path.replace, Path.unlink, Path.chmod = map(counted, (Path.replace, Path.unlink, Path.chmod))
else:  # no file may grow beyond this: what a full disk does, after some bytes
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
try:
    table.save(sys.argv[2])
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(2)
"""


def _save_in_child(source: Path, target: Path, action: str, count: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _SAVE, str(source), str(target), action, str(count)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_killed_while_writing(tmp_path):
    """At no point is there a CSV with the JSON of another table."""
    new, target = tmp_path / "new.csv", tmp_path / "board.csv"
    make_table(threads=2).save(new)
    old = LatencyTable("old", TABLE.rows[:-1], {"threads": 1})
    outcomes = []
    for count in range(10):
        old.save(target)
        finished = _save_in_child(new, target, "kill", count).returncode == 0
        table = LatencyTable.load(target)
        outcomes.append((len(table.rows) == len(TABLE.rows), table.metadata.get("threads")))
        assert outcomes[-1] in ((False, 1), (False, None), (True, None), (True, 2))
        if finished:
            break
    assert finished
    assert outcomes[0] == (False, 1)
    assert outcomes[-1] == (True, 2)
    assert (True, None) in outcomes


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("limit", [0, 100, 4096])
def test_no_space_while_writing(tmp_path, limit):
    source, target = tmp_path / "new" / "new.csv", tmp_path / "board.csv"
    make_table(threads=2, notes="x" * 200).save(source)
    LatencyTable("old", TABLE.rows[:-1], {"threads": 1}).save(target)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    done = _save_in_child(source, target, "limit", limit)
    assert done.returncode == 2
    assert done.stdout.startswith("UsageError cannot write")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_name_of_the_file(tmp_path):
    with pytest.raises(UsageError, match=r"must end in .csv"):
        TABLE.save(tmp_path / "board.json")
    assert list(tmp_path.iterdir()) == []


# --- doubts ---------------------------------------------------------------------------------------------


def test_warnings():
    noisy = Row.from_op(SPACE.unique_ops()[0], batch=1, precision="fp32", samples_ms=[1.0, 1.0, 9.0])
    table = LatencyTable("board", (noisy, *TABLE.rows[1:]))
    assert table.warnings == []  # one op
    (doubt,) = table.doubts
    assert f"1 of {len(TABLE.rows)} ops are noisy (samples spread by more than 30%, the worst by" in doubt.text
    assert table.stability.worst_op == noisy.op
    first, second = TABLE.rows[:2]
    copied = replace(second, **{n: getattr(first, n) for n in COLUMNS if n.endswith("_ms")})
    table = LatencyTable("board", (first, copied, *TABLE.rows[2:]))
    assert len(table.warnings) == 1
    assert "2 ops" in table.warnings[0]
    assert "exactly equal" in table.warnings[0]
    assert TABLE.warnings == []


def test_refuses_rows_that_do_not_belong_together():
    with pytest.raises(InputFileError, match="has no rows"):
        LatencyTable("board", ())
    with pytest.raises(InputFileError, match="listed twice"):
        LatencyTable("board", (TABLE.rows[0], TABLE.rows[0]))


def test_reading_a_table_imports_little(tmp_path):
    TABLE.save(tmp_path / "board.csv")
    code = (
        "import sys; from ofa_profiler import LatencyTable; LatencyTable.load(sys.argv[1]);"
        "print([m for m in ('yaml', 'torch', 'onnx', 'onnxruntime', 'pandas', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "board.csv")], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
