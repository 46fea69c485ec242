"""What earlier versions wrote: journals, tables, results of kits. They are read, continued and mean the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from device_agents.ofa_agent.kit import Kit
from device_agents.ofa_agent.results import Results
from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.measuring.offline import import_results
from ofa_profiler.measuring.table_from_journal import derive_table
from ofa_profiler.protocol.identity import DeviceIdentity, difference, request_difference
from ofa_profiler.protocol.journal import Journal, read_journal
from ofa_profiler.protocol.lines import parse_line
from ofa_profiler.protocol.records import Run, read_record
from ofa_profiler.tables.csv_file import read_csv
from ofa_profiler.verification.conditions import settings_of
from ofa_profiler.verification.doubts import other_device

OLD = Path(__file__).resolve().parents[1] / "support" / "v0.1"
JOURNALS = ["table.jsonl", "table-verify.jsonl", "kit-results.jsonl", "interrupted-kit-results.jsonl"]
SPACE = get_space("cifar-mbv3").with_resolutions([24])


@pytest.mark.parametrize("name", JOURNALS)
def test_every_line_is_passed_on_as_it_was(name: str) -> None:
    lines = (OLD / name).read_bytes().splitlines()
    for line in lines[:-1] if name.startswith("interrupted") else lines:
        assert json.dumps(read_record(parse_line(line)).to_json(), separators=(",", ":")).encode() == line


@pytest.mark.parametrize(
    ("name", "models", "visits", "finished"),
    [
        ("table.jsonl", 96, 306, True),
        ("table-verify.jsonl", 6, 24, True),
        ("kit-results.jsonl", 96, 302, True),
        ("interrupted-kit-results.jsonl", 96, 140, False),
    ],
)
def test_journals(name: str, models: int, visits: int, finished: bool) -> None:
    replay, _ = read_journal(OLD / name)
    assert (len(replay.visits), replay.n_visits) == (models, visits)
    assert replay.run.ops is None
    assert (replay.end is not None) == finished


def test_a_journal_becomes_the_same_table(tmp_path: Path) -> None:
    import_results(OLD / "table.jsonl", tmp_path, name="table")
    assert read_csv(tmp_path / "table.csv") == read_csv(OLD / "table.csv")
    new, old = (json.loads((folder / "table.json").read_text()) for folder in (tmp_path, OLD))
    found = new.pop("stability")
    assert {**new, "validation": old["validation"]} == old
    assert found["noisy"] == old["sampling"]["noisy"] + old["sampling"]["cut_short"]


def test_a_table_is_kept_with_its_validation(tmp_path: Path) -> None:
    for suffix in ("csv", "json", "jsonl"):
        shutil.copy(OLD / f"table.{suffix}", tmp_path)
    table = derive_table(read_journal(tmp_path / "table.jsonl")[0], tmp_path / "table.jsonl")
    assert table.metadata["validation"] is not None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"table.{suffix}": (OLD / f"table.{suffix}").read_bytes() for suffix in ("csv", "json", "jsonl")
    }


def test_the_results_of_a_kit_become_a_table(tmp_path: Path) -> None:
    table, replay = import_results(OLD / "kit-results.jsonl", tmp_path, name="kit")
    assert table.resolutions(SPACE) == (24,)
    assert table.metadata["runtime"] == replay.run.settings.target.runtime == "litert"
    manifest = json.loads((OLD / "kit-manifest.json").read_text())
    assert replay.run.models == {model["key"]: model["sha256"] for model in manifest["models"]}


@pytest.mark.parametrize("name", ["kit", "interrupted-kit"])
def test_the_agent_reads_an_old_manifest_and_its_results(name: str, tmp_path: Path) -> None:
    shutil.copy(OLD / f"{name}-manifest.json", tmp_path / "manifest.json")
    shutil.copy(OLD / f"{name}-results.jsonl", tmp_path / "results.jsonl")
    kit = Kit(str(tmp_path))
    assert all(len(model["inputs"]) == 1 for model in kit.models.values())
    lines: list[bytes] = []
    results = Results(str(tmp_path / "results.jsonl"), kit.run, 0, lines.append)
    assert len(results.measured) > 140
    assert b"".join(lines) == (tmp_path / "results.jsonl").read_bytes()


@pytest.mark.parametrize("name", JOURNALS)
def test_a_journal_is_continued(name: str, tmp_path: Path) -> None:
    shutil.copy(OLD / name, tmp_path / "t.jsonl")
    run = read_journal(OLD / name)[0].run
    today = Run.from_json({**run.to_json(), "created": "later", "about": {**run.about, "tool_version": "later"}})
    assert request_difference(run, today) == ""
    with Journal(tmp_path / "t.jsonl", today) as journal:
        device = journal.replay.devices[0]
        journal.append(device)
        assert journal.replay.devices == [device, device]


def test_a_table_predicts_what_it_predicted() -> None:
    table = LatencyTable.load(OLD / "table.csv")
    for result in json.loads((OLD / "search.json").read_text())["results"]:
        architecture = Architecture.from_json(result["architecture"])
        assert table.predict_ms([architecture]) == pytest.approx([result["latency_ms"]["table"]], rel=1e-12)
    subnets = json.loads((OLD / "table-verify.json").read_text())["subnets"]
    predicted = table.predict_ms([Architecture.from_json(subnet["architecture"]) for subnet in subnets])
    np.testing.assert_allclose(predicted, [subnet["predicted_ms"] for subnet in subnets], rtol=1e-12)


def test_a_table_can_be_verified_again() -> None:
    """It says how and on what it was measured, and its own journal is of the same device."""
    table = LatencyTable.load(OLD / "table.csv")
    device = read_journal(OLD / "table-verify.jsonl")[0].devices[0]
    assert settings_of(table).threads == 1
    assert other_device(table, device) == ""
    assert difference(DeviceIdentity.from_table(table.metadata), DeviceIdentity.from_device(device)) == ""
