"""The agent with LiteRT: real models by the real runtime, and stand-ins for runtimes that are not here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ai_edge_litert
import pytest
from support.kits import QUICK, bytes_model, make_kit, records, run_agent, visits

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.cli.verify import main as ofa_verify
from ofa_profiler.export import Model, export_ops
from ofa_profiler.protocol.target import Target

SETTINGS = replace(QUICK, target=Target("litert"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    space = get_space("cifar-mbv3")
    return export_ops(
        space.ops(space.smallest)[:3], target=Target("litert"), cache_dir=tmp_path_factory.mktemp("cache")
    )


@pytest.mark.parametrize("how", [[], ["--no-fork"]])
@pytest.mark.parametrize(("provider", "named"), [(None, "XNNPACK"), ("default", "XNNPACK"), ("CPU", "CPU")])
def test_measures_every_model_in_rounds(models, tmp_path, how, provider, named):
    kit = make_kit(tmp_path / "kit", models, replace(SETTINGS, provider=provider))
    done = run_agent(kit, *how)
    assert done.returncode == 0, done.stderr
    (device,) = (record for record in records(done.stdout) if record["type"] == "device")
    options = {"num_threads": 1, "delegate": "none" if named == "CPU" else "XNNPACK"}
    version = ai_edge_litert.__version__
    assert device["runtime"] == {"name": "litert", "version": version, "provider": named, "options": options}
    found = visits(done.stdout)
    assert found.keys() == {model.key for model in models}
    for seen in found.values():
        assert len(seen) >= SETTINGS.min_rounds
        assert all(visit["status"] == "ok" and min(visit["samples_ns"]) > 0 for visit in seen)


def test_what_is_no_model_and_another_input_fail_alone(models, tmp_path):
    bad = bytes_model(tmp_path / "bad", "bad", b"no model at all")
    other = replace(
        models[0], key="other", inputs=(models[0].inputs[0]._replace(shape=(2, *models[0].inputs[0].shape[1:])),)
    )
    found = visits(run_agent(make_kit(tmp_path / "kit", [bad, other, models[1]], SETTINGS)).stdout)
    assert "ValueError" in found["bad"][0]["error"]
    assert "but the kit describes" in found["other"][0]["error"]
    assert all(visit["status"] == "ok" for visit in found[models[1].key])


def test_a_provider_that_litert_lacks_is_one_fatal_record(models, tmp_path):
    done = run_agent(make_kit(tmp_path / "kit", models, replace(SETTINGS, provider="CUDAExecutionProvider")))
    assert done.returncode == 1
    fatal = records(done.stdout)[-1]
    assert (fatal["type"], fatal["usage"]) == ("fatal", True)
    assert "choose from XNNPACK, CPU" in fatal["error"]


#: Delegates nothing when the model is "alone".
STUB = """
class Interpreter:
    def __init__(self, model_content, num_threads):
        self.alone = model_content == b"alone"
    def allocate_tensors(self):
        pass
    def _get_ops_details(self):
        return [{"op_name": "CONV_2D"}] + [{"op_name": "DELEGATE"}] * (not self.alone)
    def get_input_details(self):
        return [{"name": "input", "shape": [1, 4, 8, 8], "dtype": "float32", "index": 0}]
    def set_tensor(self, index, value):
        pass
    def invoke(self):
        sum(range(1000))
"""


def predecessor(folder: Path, *, broken: bool = False) -> dict[str, str]:
    """An environment without ai_edge_litert, and with a tflite_runtime unless that is `broken`, too."""
    for name in ("ai_edge_litert", "tflite_runtime"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("__version__ = '2.14.0'\n")
    refused = "raise ImportError('GLIBC_2.27 not found')"
    (folder / "ai_edge_litert" / "interpreter.py").write_text(refused)
    (folder / "tflite_runtime" / "interpreter.py").write_text(refused if broken else STUB)
    return {"PYTHONPATH": str(folder)}


def test_the_predecessor_runs_where_it_is_what_there_is(tmp_path):
    kit = make_kit(
        tmp_path / "kit", [bytes_model(tmp_path, "one", b"one"), bytes_model(tmp_path, "alone", b"alone")], SETTINGS
    )
    done = run_agent(kit, env=predecessor(tmp_path / "stub"))
    (device,) = (record for record in records(done.stdout) if record["type"] == "device")
    runtime = device["runtime"]
    assert (runtime["name"], runtime["version"], runtime["provider"]) == ("litert", "tflite_runtime 2.14.0", "XNNPACK")
    found = visits(done.stdout)
    assert found["one"][-1]["status"] == "ok"
    assert "XNNPACK does not run this model on this device" in found["alone"][0]["error"]


def test_a_runtime_that_does_not_load_is_one_line_with_every_reason(tmp_path):
    kit = make_kit(tmp_path / "kit", [bytes_model(tmp_path, "one", b"one")], SETTINGS)
    done = run_agent(kit, env=predecessor(tmp_path / "stub", broken=True))
    assert done.returncode == 1
    assert records(done.stdout)[-1]["error"].count("GLIBC_2.27 not found") == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_table_by_the_command_and_its_verification(tmp_path, capsys, monkeypatch):
    """What a user types: a table says what ran it, and networks are verified by the same."""
    monkeypatch.setattr(
        "ofa_profiler.cli.profile.Settings", lambda target, **how: replace(SETTINGS, target=target, **how)
    )
    where = ["--device", "local", "--resolution", "24", "--space", "cifar-mbv3", "--out", str(tmp_path)]
    assert ofa_profile([*where, "--name", "t", "--runtime", "litert", "--time-limit", "10ms", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] == 96
    table = LatencyTable.load(tmp_path / "t.csv")
    told = [table.metadata[name] for name in ("runtime", "runtime_version", "provider", "precision")]
    assert told == ["litert", ai_edge_litert.__version__, "XNNPACK", "fp32"]

    monkeypatch.setattr(
        "ofa_profiler.verification.conditions._SAMPLING", {"min_rounds": 2, "max_rounds": 2, "visit_s": 0.01}
    )
    kept = tmp_path / "models"
    verify = ["--lut", str(tmp_path / "t.csv"), "--device", "local", "--subnets", "3", "--keep-models", str(kept)]
    assert ofa_verify([*verify, "--json"]) == 0
    subnets = json.loads(capsys.readouterr().out)["subnets"]
    assert all(subnet["measured_ms"] > 0 and subnet["model"].endswith(".tflite") for subnet in subnets)


def test_a_kit_says_what_the_board_needs(models, tmp_path):
    kit = make_kit(tmp_path / "kit", models, SETTINGS)
    assert "`ai-edge-litert`" in (kit / "README.md").read_text()
