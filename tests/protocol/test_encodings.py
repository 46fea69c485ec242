"""Encodings of int8: chosen by the host for a device, and by the agent for a kit, by one rule."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.kits import QUICK, run_agent

from device_agents.ofa_agent import encodings as agent
from device_agents.ofa_agent.kit import Kit
from ofa_profiler import LatencyTable, get_space
from ofa_profiler.devices import LocalDevice
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.export import expected_bytes, export_ops
from ofa_profiler.measuring.offline import import_results
from ofa_profiler.measuring.profile import profile
from ofa_profiler.protocol.encodings import ENCODINGS, encoding_for, encodings_of
from ofa_profiler.protocol.kit import KitWheels
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.verification.conditions import settings_of
from ofa_profiler.verification.kit import make_kit

SPACE = get_space("cifar-mbv3").with_resolutions([24])
INT8 = Target(precision="int8")
SETTINGS = replace(QUICK, target=INT8, time_limit_s=20)


def test_host_and_agent_have_one_rule():
    machines = ("x86_64", "AMD64", "i686", "aarch64", "arm64", "armv7l", "riscv64", "", None)
    for machine, vnni in itertools.product(machines, (True, False, None)):
        facts = {"machine": machine, "vnni": vnni}
        assert agent.encoding_for(facts) == encoding_for(machine, facts).name
        assert encoding_for(machine, facts) in encodings_of(machine)
    assert agent.encoding_for({}) == encoding_for(None, {}).name


def integers(path: Path) -> str:
    """The encoding of a model."""
    values = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    largest = max(np.abs(array.astype(int)).max() for array in values if array.dtype == np.int8 and array.ndim > 1)
    activations = {array.dtype.name for array in values if array.ndim == 0 and array.dtype.kind in "iu"}
    found = next(e for e in ENCODINGS.values() if (e.activations, e.max_weight) == (min(activations), largest))
    return found.name


@pytest.mark.slow
def test_a_kit_has_each_encoding_and_the_agent_chooses(tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    make_kit(SPACE, SETTINGS, folder, networks=0)
    entry = json.loads((folder / "manifest.json").read_text())["models"][0]
    assert list(entry["encodings"]) == list(ENCODINGS)
    kit = Kit(str(folder))
    assert kit.has_encodings
    for name in (None, *ENCODINGS):
        kit.encoding = name
        for model in (model for model in kit.models.values() if "conv" in model["key"]):
            for forms in ({}, {"activation h_swish": "hard_sigmoid"}):
                assert integers(Path(kit.model(model["key"], forms)["path"])) == (name or "u8s7")
    assert run_agent(folder).returncode == 0
    table, replay = import_results(folder / "results.jsonl", tmp_path / "out", name="t")
    device = replay.devices[0].json
    assert device["encoding"] == table.metadata["encoding"] == agent.encoding_for(device)
    assert settings_of(table).target == Target(precision="int8", encoding=device["encoding"])


@pytest.mark.parametrize(("machine", "names"), [("aarch64", ["s8s8"]), ("x86_64", ["u8s8", "u8s7"])])
def test_wheels_tell_the_architecture_and_with_it_the_encodings(machine, names, tmp_path: Path) -> None:
    wheel = tmp_path / "runtime.whl"
    wheel.write_bytes(b"a wheel")
    folder = tmp_path / "kit"
    make_kit(SPACE, SETTINGS, folder, networks=0, wheels=KitWheels(f"{machine}-cp311", [wheel]))
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(entry for entry in manifest["models"] if "conv" in entry["key"])
    if len(names) > 1:
        assert list(entry["encodings"]) == names
        assert all(list(variant["encodings"]) == names for variant in entry.get("variants", ()))
    else:
        assert "encodings" not in entry
        assert manifest["settings"]["encoding"] == names[0]
        assert integers(folder / "models" / entry["file"]) == names[0]


def test_the_plan_of_a_kit_has_the_size_of_all_encodings(tmp_path: Path) -> None:
    plain = export_ops(SPACE.unique_ops(), INT8, cache_dir=tmp_path)
    each = export_ops(SPACE.unique_ops(), INT8, with_encodings=True, cache_dir=tmp_path)
    size = sum(model.path.stat().st_size for model in plain)
    assert {model.sha256 for model in plain} <= {m.sha256 for model in each for m in model.encodings.values()}
    ratio = expected_bytes(SPACE.unique_ops(), INT8, with_encodings=True) / expected_bytes(SPACE.unique_ops(), INT8)
    whole = sum(m.path.stat().st_size for model in each for m in model.encodings.values())
    assert whole / size == pytest.approx(ratio, rel=0.02)


def test_models_of_one_encoding_need_no_choice(tmp_path: Path) -> None:
    for target in (Target(precision="int8", encoding="s8s8"), Target("litert", "int8"), Target()):
        (model,) = export_ops(SPACE.unique_ops()[:1], target, with_encodings=True, cache_dir=tmp_path)
        assert not model.encodings


def test_a_table_keeps_its_encoding(tmp_path: Path) -> None:
    with LocalDevice() as device:
        done = profile(device, SPACE, SETTINGS, tmp_path, name="t", try_forms=False)
        described = device.describe().json
    assert done.table.metadata["ranges"] == "table"
    assert done.table.metadata["encoding"] == encoding_for(described["machine"], described).name
    assert {name: done.table.metadata["device"][name] for name in ("vnni", "avx512", "dotprod", "i8mm")} == {
        name: described[name] for name in ("vnni", "avx512", "dotprod", "i8mm")
    }
    settings = settings_of(LatencyTable.load(tmp_path / "t.csv"))
    assert Settings.from_json(settings.to_json()) == settings
    assert "encoding" not in Settings(Target("litert", "int8")).to_json()
    wrong = replace(done.table, metadata={**done.table.metadata, "encoding": 8})
    with pytest.raises(InputFileError, match="encoding must be str, not 8"):
        settings_of(wrong)
    with pytest.raises(UsageError, match="has no encoding 'u9'"):
        export_ops(SPACE.unique_ops()[:1], Target(precision="int8", encoding="u9"), cache_dir=tmp_path)
