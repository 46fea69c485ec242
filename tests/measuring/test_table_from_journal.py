"""A table follows from the journal alone: the ops travel with it, and the code need not know where they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.records import DEVICE, END, RUN, failed, visit, write

from ofa_profiler import LatencyTable
from ofa_profiler.errors import DeviceError, InputFileError
from ofa_profiler.measuring.offline import import_results
from ofa_profiler.measuring.table_from_journal import derive_table
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.journal import read_journal

#: Kinds and a space that no code of this project knows, with two inputs and integers among them.
OPS = [
    Op(
        "embedding",
        (TensorSpec("ids", "int64", (16,), (0, 1000)), TensorSpec("mask", "bool", (16,))),
        (TensorSpec("output", "float32", (16, 64)),),
        {"vocabulary": 1000, "scale": 0.5, "tied": True},
        "embed-16x64",
    ),
    Op(
        "encoder_block",
        (TensorSpec("input", "float32", (16, 64)),),
        (TensorSpec("output", "float32", (16, 64)),),
        {"heads": 4, "mid_channels": 256, "activation": "gelu"},
        "block, 4 heads",
    ),
]
REQUEST = {
    **RUN,
    "about": {"spaces": ["a-space-of-tomorrow"], "resolutions": None, "tool_version": "9"},
    "models": {op.key: f"{i}0" for i, op in enumerate(OPS)},
    "ops": [op.to_json() for op in OPS],
}
VISITS = [visit(op.key, number, [1_000_000, 1_200_000]) for op in OPS for number in range(2)]


def imported(folder: Path, *records: dict[str, Any]) -> LatencyTable:
    folder.mkdir(exist_ok=True)
    write(folder / "results.jsonl", *records)
    table, _ = import_results(folder / "results.jsonl", folder / "out", name="t")
    return table


def test_a_journal_of_an_unknown_space_becomes_a_table(tmp_path: Path) -> None:
    table = imported(tmp_path, REQUEST, DEVICE, *VISITS, END)
    read = LatencyTable.load(tmp_path / "out" / "t.csv")
    assert table.rows == read.rows
    assert [row.to_op() for row in read.rows] == OPS
    assert [read.latency_ms(op) for op in OPS] == [1.1, 1.1]
    assert read.spaces == ("a-space-of-tomorrow",)
    frame = pd.read_csv(tmp_path / "out" / "t.csv")
    assert list(frame.op) == [op.key for op in OPS]
    assert list(frame.samples) == [4, 4]
    metadata = json.loads((tmp_path / "out" / "t.json").read_text())
    assert metadata["device"]["model"] == "Board"
    assert metadata["runtime_version"] == "1.20"
    assert metadata["sampling"]["visits"] == 4


def test_a_table_tells_what_other_programs_did(tmp_path: Path) -> None:
    use = {"wall_ns": 100, "cpu_ns": 60, "waited_ns": 40, "involuntary": 3}
    left_out = {**VISITS[1], **use, "type": "disturbed", "samples_ns": [9_000_000] * 9}
    quiet = [{**record, **use, "waited_ns": 0} for record in VISITS[1:]]
    busy = [{**VISITS[0], **use, "disturbed": True}, left_out, *quiet]
    table = imported(tmp_path / "busy", REQUEST, DEVICE, *busy, END)
    told = {name: table.metadata["sampling"][name] for name in ("disturbed", "kept_disturbed", "others_share")}
    assert told == {"disturbed": 1, "kept_disturbed": 1, "others_share": 0.16}
    assert table.stability is not None
    assert (table.stability.is_noisy, table.stability.reasons) == (True, ("other programs took 16% of the core",))
    earlier = imported(tmp_path / "earlier", REQUEST, DEVICE, *VISITS, END)
    assert earlier.rows == table.rows
    assert not {"disturbed", "kept_disturbed", "others_share"} & earlier.metadata["sampling"].keys()


def test_rows_that_were_lost_come_back_from_the_journal(tmp_path: Path) -> None:
    table = imported(tmp_path, REQUEST, DEVICE, *VISITS, END)
    path = tmp_path / "out" / "t.csv"
    described = {**json.loads(path.with_suffix(".json").read_text()), "validation": {"mape": 0.01}}
    path.with_suffix(".json").write_text(json.dumps(described))
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    journal = path.with_suffix(".jsonl")
    again = derive_table(read_journal(journal)[0], journal)
    assert again.rows == table.rows
    assert path.read_text() == whole
    assert LatencyTable.load(path).metadata["validation"] == {"mape": 0.01}


def test_ops_of_no_space_at_all(tmp_path: Path) -> None:
    assert imported(tmp_path, {**REQUEST, "about": {}}, DEVICE, *VISITS, END).metadata["spaces"] == []


def test_a_failed_op_keeps_its_description(tmp_path: Path) -> None:
    table = imported(tmp_path, REQUEST, DEVICE, failed(OPS[0].key, 0), *VISITS[2:], END)
    assert [(row.to_op(), row.status, row.error) for row in table.rows] == [
        (OPS[0], "failed", "no"),
        (OPS[1], "ok", ""),
    ]
    with pytest.raises(DeviceError, match="all 2 ops failed"):
        imported(tmp_path / "all", REQUEST, DEVICE, *(failed(op.key, 0) for op in OPS), END)


def test_an_end_before_the_first_round_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="1 of 2 ops are not measured yet"):
        imported(tmp_path, REQUEST, DEVICE, *VISITS[:2], END)
    with pytest.raises(InputFileError, match="2 of 2 ops are not measured yet"):
        imported(tmp_path, REQUEST, END)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ("all", "'ops' must be a list"),
        ([], "each of the models"),
        (REQUEST["ops"][:1], "each of the models"),
        (REQUEST["ops"][::-1], "in the same order"),
        ([{**REQUEST["ops"][0], "inputs": []}, REQUEST["ops"][1]], "inputs of op"),
        ([{**REQUEST["ops"][0], "attributes": {"a": [1]}}, REQUEST["ops"][1]], "attribute 'a'"),
        ([3, 4], "must be an object"),
    ],
)
def test_wrong_ops_are_named_with_file_and_row(tmp_path: Path, ops: Any, words: str) -> None:
    with pytest.raises(InputFileError, match=words) as caught:
        imported(tmp_path, {**REQUEST, "ops": ops}, DEVICE, *VISITS, END)
    assert caught.value.row == 1
    assert "\n" not in str(caught.value)
