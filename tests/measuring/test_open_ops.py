"""Ops of a kind, a space and inputs that no code of ours knows: measured, carried in a kit, and made a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.embedding import MODELS, embedding
from support.kits import QUICK, run_agent

from ofa_profiler import LatencyTable
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.devices import LocalDevice
from ofa_profiler.measuring.session import measure
from ofa_profiler.measuring.table_from_journal import derive_table
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.kit import run_record, write_kit
from ofa_profiler.protocol.target import Target

ABOUT = {"spaces": ["a-space-of-somebody-else"], "resolutions": None}


@pytest.mark.parametrize("runtime", MODELS)
def test_two_inputs_with_integers_are_measured_and_become_a_table(tmp_path: Path, runtime):
    op, model = embedding(tmp_path, runtime)
    settings = replace(QUICK, target=Target(runtime))
    journal = tmp_path / "t.jsonl"
    found = measure(LocalDevice(), [model], settings, journal=journal, about=ABOUT, ops=[op])
    assert found[op.key].ok, found[op.key].error
    table = derive_table(read_journal(journal)[0], journal)
    (row,) = table.rows
    assert (row.to_op(), row.median_ms) == (op, found[op.key].median_ms)
    assert table.spaces == ("a-space-of-somebody-else",)
    (again,) = LatencyTable.load(tmp_path / "t.csv").rows
    assert again.to_op() == op
    frame = pd.read_csv(tmp_path / "t.csv")
    assert frame.loc[0, "kind"] == "embedding"
    assert json.loads(str(frame.loc[0, "attributes"]))["inputs"][0]["dtype"] == MODELS[runtime][2]


@pytest.mark.parametrize("runtime", MODELS)
def test_a_kit_carries_the_op_and_the_agent_by_hand_gives_its_table(tmp_path: Path, runtime, capsys):
    op, model = embedding(tmp_path, runtime)
    settings = replace(QUICK, target=Target(runtime))
    kit = tmp_path / "kit"
    write_kit(kit, [model], run_record([model], settings, ABOUT, [op]))
    manifest = json.loads((kit / "manifest.json").read_text())
    assert manifest["ops"] == [op.to_json()]
    assert manifest["models"][0]["inputs"] == [tensor.to_json() for tensor in model.inputs]
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    words = ["--import", str(kit / "results.jsonl"), "--out", str(tmp_path / "out"), "--name", "board", "--json"]
    assert ofa_profile(words) == 0
    assert json.loads(capsys.readouterr().out)["ok"] == 1
    (row,) = LatencyTable.load(tmp_path / "out" / "board.csv").rows
    assert row.to_op() == op
