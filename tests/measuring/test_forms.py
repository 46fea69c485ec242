"""Forms from end to end: tried on the device, kept in journal and table, and used for what follows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tflite
from support.kits import run_agent

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.cli.verify import main as ofa_verify
from ofa_profiler.devices import FakeDevice
from ofa_profiler.export import export_ops
from ofa_profiler.measuring.profile import profile
from ofa_profiler.measuring.trials import trials_of
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_search.cli.search import main as ofa_search

SPACE = get_space("cifar-mbv3").with_resolutions([24])
SPLIT = {"depthwise 7x7, stride 1": "split", "depthwise 7x7, stride 2": "split"}
#: Fast enough for a test: one round per op is complete at once.
WORDS = ["--resolution", "24", "--runtime", "litert", "--time-limit", "1s"]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> LatencyTable:
    """A table of this machine for LiteRT, where the split is several times faster."""
    out = tmp_path_factory.mktemp("tables")
    assert ofa_profile(["--device", "local", "--out", str(out), "--name", "here", *WORDS]) == 0
    return LatencyTable.load(out / "here.csv")


def operators(path: Path) -> list[str]:
    model = tflite.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    names = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    numbers = (graph.Operators(i).OpcodeIndex() for i in range(graph.OperatorsLength()))
    return [names[model.OperatorCodes(number).BuiltinCode()] for number in numbers]


def metadata(path: Path) -> dict[str, str]:
    model = tflite.Model.GetRootAs(path.read_bytes())
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    return {e.Name().decode(): model.Buffers(e.Buffer()).DataAsNumpy().tobytes().decode() for e in entries}


def test_the_device_chooses_and_the_table_says_so(table):
    assert table.forms == Forms(SPLIT)
    forms = table.metadata["forms"]
    assert forms["chosen"] == SPLIT
    for trial in forms["trials"]:
        assert trial["wins"] is True
        assert trial["gain"] > 1.3
    kernels = {
        row.description.attributes.get("kernel_size"): row.description.attributes.get("form") for row in table.rows
    }
    assert (kernels[7], kernels[3], kernels[5]) == ("split", None, None)
    assert "depthwise 7x7, stride 1 split" in repr(table)
    assert table.metadata["runtime_options"] == {"num_threads": 1, "delegate": "XNNPACK"}
    replay, _ = read_journal(table.path.with_suffix(".jsonl"))
    assert replay.forms == Forms(SPLIT)
    assert table.predict_ms([SPACE.largest])[0] > table.predict_ms([SPACE.smallest])[0]


def test_the_measurement_resumes_with_the_same_forms(table, capsys):
    arguments = ["--device", "local", "--out", str(table.path.parent), "--name", "here", *WORDS, "--json"]
    assert ofa_profile(arguments) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["forms"] == SPLIT
    assert "depthwise 7x7, stride 1 split:" in said.err


def test_networks_are_verified_in_the_forms_of_the_table(table, tmp_path, capsys):
    architectures = tmp_path / "search.json"
    networks = [{"architecture": a.to_json()} for a in (SPACE.smallest, SPACE.largest)]
    architectures.write_text(json.dumps({"results": networks}))
    before = table.path.with_suffix(".json").read_bytes()
    words = ["--lut", str(table.path), "--device", "local", "--architecture", str(architectures), "--time-limit", "1s"]
    assert ofa_verify([*words, "--keep-models", str(tmp_path / "models"), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)["subnets"]
    assert [subnet["architecture"] for subnet in found] == [SPACE.smallest.to_json(), SPACE.largest.to_json()]
    assert table.path.with_suffix(".json").read_bytes() == before  # its `validation` is for random networks
    assert "not added to the table: the networks were given" in said.err
    largest = Path(found[1]["model"])
    sevens = sum(7 in stage.kernel_sizes for stage in SPACE.largest.stages)
    assert operators(largest).count("ADD") > 2 * sevens
    assert json.loads(metadata(largest)["forms"]) == SPLIT


def test_architectures_of_the_authors_are_verified_too(table, tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(SPACE.smallest.to_ofa()))
    assert (
        ofa_verify(["--lut", str(table.path), "--device", "local", "--architecture", str(path), "--time-limit", "1s"])
        == 0
    )


def test_a_search_exports_in_the_forms_of_the_table(table, tmp_path):
    budget = table.predict_ms([SPACE.largest])[0]
    words = ["--lut", str(table.path), "--budget", f"{budget:.3f}ms", "--out", str(tmp_path)]
    assert ofa_search(words) == 0
    (result,) = json.loads((tmp_path / "search.json").read_text())["results"]
    assert result["forms"] == {"litert": SPLIT}
    fast = Path(result["files"]["tflite"])
    assert json.loads(metadata(fast)["forms"]) == SPLIT
    assert json.loads(metadata(fast)["runtime_options"]) == {"num_threads": 1, "delegate": "XNNPACK"}
    assert operators(fast).count("DEPTHWISE_CONV_2D") > operators(fast).count("CONV_2D") // 3
    import onnx

    other = onnx.load(result["files"]["onnx"])
    assert {prop.key: prop.value for prop in other.metadata_props}["forms"] == "{}"
    assert not [node for node in other.graph.node if node.op_type == "Resize"]


def test_plain_turns_it_off(tmp_path):
    assert ofa_profile(["--device", "local", "--out", str(tmp_path), "--name", "p", *WORDS, "--forms", "plain"]) == 0
    table = LatencyTable.load(tmp_path / "p.csv")
    assert table.forms == PLAIN
    assert "forms" not in table.metadata
    first = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    assert first["format"] == 1
    assert "forms" not in first


def test_a_journal_without_forms_goes_on_without_forms(tmp_path):
    """So does one of an earlier version."""
    settings = Settings(Target("litert"))
    once = profile(FakeDevice(), SPACE, settings, tmp_path, name="a", try_forms=False)
    again = profile(FakeDevice(), SPACE, settings, tmp_path, name="a")
    assert again.was_complete
    assert again.table.rows == once.table.rows
    assert again.table.forms == PLAIN


@pytest.mark.slow
def test_a_kit_carries_both_and_the_board_decides(tmp_path, capsys):
    kit = tmp_path / "kit"
    assert ofa_profile(["--kit", str(kit), *WORDS]) == 0
    manifest = json.loads((kit / "manifest.json").read_text())
    asked = manifest["forms"]["trials"]
    assert [trial["forms"] for trial in asked] == [
        {group: "split"} for group in ("depthwise 7x7, stride 2", "depthwise 7x7, stride 1")
    ]
    assert all(len(trial["keys"]) <= 3 for trial in asked)
    with_variants = [model for model in manifest["models"] if "variants" in model]
    assert with_variants
    assert all("kernel:7" in model["key"] for model in with_variants)
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    results = kit / "results.jsonl"
    (record,) = [json.loads(line) for line in results.read_text().splitlines() if '"type":"forms"' in line]
    assert record["chosen"] == SPLIT
    assert ofa_profile(["--import", str(results), "--out", str(tmp_path / "out"), "--name", "board"]) == 0
    assert LatencyTable.load(tmp_path / "out" / "board.csv").forms == Forms(SPLIT)
    # Interrupted after the trials, the agent does not repeat them.
    lines = results.read_bytes().splitlines(keepends=True)
    cut = next(i for i, line in enumerate(lines) if b'"type":"visit"' in line)
    results.write_bytes(b"".join(lines[:cut]))
    assert run_agent(kit).returncode == 0
    assert results.read_text().count('"type":"forms"') == 1
    assert capsys.readouterr().err


def test_a_trial_is_on_few_ops_of_each_group(tmp_path):
    ops = get_space("ofa-mbv3-w1.2").unique_ops()
    for runtime, groups in (("litert", set(SPLIT)), ("onnxruntime", {"squeeze-excite"})):
        export_ops(ops[:1], Target(runtime), cache_dir=tmp_path)
        trials = trials_of(ops, Target(runtime))
        assert {group for trial in trials for group in trial.forms.chosen} == groups
        by_key = {op.key: op for op in ops}
        for trial in trials:
            macs = [by_key[key].macs for key in trial.keys]
            assert macs == sorted(macs)
            assert 2 <= len(macs) <= 3
    shutil.rmtree(tmp_path)
