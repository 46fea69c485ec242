"""Kits with whole networks: the real agent measures ops and networks, and the import is a calibrated table."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.kits import QUICK, bytes_model, run_agent
from support.kits import make_kit as kit_of

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.measuring.offline import import_results
from ofa_profiler.measuring.probes import probe_ops
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.corrections import Regression, Sum
from ofa_profiler.verification import kit as kits
from ofa_profiler.verification.calibrate import restore_calibration
from ofa_profiler.verification.conditions import network_settings

SPACE = get_space("cifar-mbv3").with_resolutions([24])


@pytest.fixture
def few_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kits, "DEFAULT_VALIDATED", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("few_validated")
def test_the_results_of_a_kit_calibrate_the_table(tmp_path: Path) -> None:
    kit, said = tmp_path / "kit", []
    settings = replace(QUICK, target=Target("litert"), time_limit_s=400)
    made = kits.make_kit(SPACE, settings, kit, networks=10, tell=said.append)
    assert (made.ops, made.networks) == (len(SPACE.unique_ops()), 14)
    assert f"{made.ops} ops and 14 networks" in said[0]
    assert "MB" in said[0]
    models = sum(path.stat().st_size for path in (kit / "networks" / "models").iterdir())
    whole = sum(len(gzip.decompress(path.read_bytes())) for path in (kit / "networks" / "models").iterdir())
    assert whole > 20 * models
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    ops, networks = (read_journal(kit / name)[0] for name in ("results.jsonl", "results-networks.jsonl"))
    assert ops.trials is not None
    (trial,) = ops.trials.trials  # all forms or none
    assert set(trial.forms.chosen) == {"depthwise 7x7, stride 1", "depthwise 7x7, stride 2"}
    assert networks.forms == ops.forms
    assert networks.devices[0].json["cores_used"] == ops.devices[0].json["cores_used"]
    assert set(networks.measurements()) > {op.key for op in probe_ops()}
    assert len(networks.measurements()) == 14 + len(probe_ops())
    rounds = {len(found.rounds_ms) for found in networks.measurements().values()}
    asked = network_settings(settings)  # as for networks of a device that can be reached, not as for ops
    assert rounds <= set(range(asked.min_rounds, asked.max_rounds + 1))
    table, replay = import_results(kit / "results.jsonl", tmp_path / "out", name="t")
    table = restore_calibration(table, replay.run.created, kit / "results.jsonl")
    assert isinstance(table.correction, Regression)
    assert table.metadata["validation"]["subnets"] == 4
    assert table.metadata["peaks"]["gmacs_per_s"] > 0
    # A second start has nothing to do, and a table without the networks is the plain sum.
    kept = (kit / "results-networks.jsonl").read_bytes()
    assert run_agent(kit).returncode == 0
    assert read_journal(kit / "results-networks.jsonl")[0].n_visits == networks.n_visits
    assert (kit / "results-networks.jsonl").read_bytes().startswith(kept)
    (tmp_path / "results.jsonl").write_bytes((kit / "results.jsonl").read_bytes())
    assert ofa_profile(["--import", str(tmp_path / "results.jsonl"), "--out", str(tmp_path / "o"), "--name", "u"]) == 0
    assert LatencyTable.load(tmp_path / "o" / "u.csv").correction == Sum()


def test_a_kit_without_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--kit", str(tmp_path / "kit"), "--resolution", "24", "--no-calibration", "--json"]
    assert ofa_profile(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["networks"] == 0
    assert not (tmp_path / "kit" / "networks").exists()


@pytest.mark.parametrize("damage", [b"", b"no gzip", "cut", "other"])
def test_a_damaged_compressed_model_fails_alone(tmp_path: Path, damage: bytes | str) -> None:
    good = [bytes_model(tmp_path / "models", f"m{i}", b"x" * 1000 * (i + 1)) for i in range(2)]
    kit = kit_of(tmp_path / "kit", [model.packed() for model in good])
    path = kit / "models" / f"{good[0].sha256}.onnx.gz"
    data = path.read_bytes()
    path.unlink()  # a link to the original
    path.write_bytes(
        {"cut": data[: len(data) // 2], "other": gzip.compress(b"another model")}.get(damage, damage)  # type: ignore[call-overload]
    )
    done = run_agent(kit)
    visits = [json.loads(line) for line in done.stdout.splitlines() if '"visit"' in line]
    errors = {visit["key"]: visit["error"] for visit in visits}
    assert f"{good[0].sha256}.onnx.gz" in errors["m0"]
    assert ".gz" not in errors["m1"]  # it reaches the runtime, which cannot read it
