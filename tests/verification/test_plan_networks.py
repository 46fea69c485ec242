"""The plan of a calibration: how many networks, their size, and how long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofa_profiler import get_space, profile
from ofa_profiler.cli.profile import main
from ofa_profiler.devices import FakeDevice
from ofa_profiler.export import expected_bytes
from ofa_profiler.measuring.plan import plan
from ofa_profiler.protocol.forms import PLAIN
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.verification.networks import export_networks
from ofa_profiler.verification.plan import plan_calibration
from ofa_profiler.verification.profile import ops_settings

SPACE = get_space("cifar-mbv3").with_resolutions([24])
OPTIONS = ("--space", "cifar-mbv3", "--resolution", "24", "--plan", "--json")
N = 10


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated table `t`, and a table `ops` that is not."""
    out = tmp_path_factory.mktemp("out")
    profile(FakeDevice(), SPACE, out, name="t", calibrate=N)
    profile(FakeDevice(), SPACE, out, name="ops", calibrate=0)
    return out


def planned_in(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert main(["--device", "ssh:board", "--out", str(folder), *OPTIONS, *options]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_networks_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with_networks = planned_in(tmp_path, capsys, "--calibrate", "32")
    networks = with_networks["networks"]
    assert isinstance(networks, dict)
    assert (networks["fitted"], networks["validated"], networks["complete"]) == (32, 20, False)
    alone = planned_in(tmp_path, capsys, "--no-calibration")
    assert alone["networks"] is None
    # The size does not depend on the device: 52 networks of 0.4 to 2.2 million parameters.
    assert 52 * 0.4 * 4 < networks["models_mb"] < 52 * 2.2 * 4
    assert with_networks["seconds"]["expected"] == pytest.approx(  # type: ignore[index]
        alone["seconds"]["expected"] + networks["seconds"],  # type: ignore[index]
        rel=0.1,
    )


def test_the_size_is_that_of_the_real_networks(tmp_path: Path) -> None:
    networks = [SPACE.smallest, SPACE.largest]
    for runtime in ("onnxruntime", "litert"):
        target = Target(runtime)
        models = export_networks(SPACE, networks, tmp_path, target, PLAIN, None, packed=False)
        expected = [expected_bytes(SPACE.ops(network), target) for network in networks]
        sizes = [model.path.stat().st_size for model in models]
        assert expected == pytest.approx(sizes, rel=0.05)
        for model, size in zip(models, sizes, strict=True):
            assert 15 < size / model.packed().path.stat().st_size < 40  # "a twentieth", says --plan


def test_the_time_keeps_the_limit() -> None:
    def seconds(settings: Settings) -> float:
        found = plan_calibration(plan(SPACE, ops_settings(settings, N)), SPACE, settings, N)
        assert found is not None
        return found.seconds

    # 30 networks of 0.2 to 0.7 ms with about 18 rounds of 40 ms.
    assert 15 < seconds(Settings()) < 60
    assert seconds(Settings(time_limit_s=4.0)) < 4


def test_what_is_measured_already_takes_no_time(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = planned_in(measured, capsys, "--name", "t", "--calibrate", str(N))
    assert (done["complete"], done["seconds"]["expected"]) == (True, 0)  # type: ignore[index]
    more = planned_in(measured, capsys, "--name", "t", "--calibrate", str(N + 2))
    assert more["complete"] is False
    assert more["seconds"]["expected"] == more["networks"]["seconds"] > 0  # type: ignore[index]
    ops = planned_in(measured, capsys, "--name", "ops", "--calibrate", str(N))
    assert ops["complete"] is False
    assert ops["seconds"]["expected"] == ops["networks"]["seconds"] > 0  # type: ignore[index]


def test_half_the_networks_leave_the_other_half(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (measured / "t-networks.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "t.jsonl").write_bytes((measured / "t.jsonl").read_bytes())
    (tmp_path / "t-networks.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    half = planned_in(tmp_path, capsys, "--name", "t", "--calibrate", str(N))
    whole_s = read_journal(measured / "t-networks.jsonl")[0].used_s
    assert 0.2 * whole_s < half["seconds"]["expected"] < whole_s  # type: ignore[index]


def test_the_summary_names_ops_and_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "local", *OPTIONS[:-1], "--calibrate", "32"]) == 0
    *_, ops, networks, measuring = capsys.readouterr().out.splitlines()
    assert ops.startswith("models to export")
    assert ops.endswith("all models, in all forms: about 27 MB")
    assert networks.startswith("networks: 52 (32 to fit the correction, 20 to validate it), about ")
    assert "MB, a twentieth of that on the device, about " in networks
    assert measuring.startswith("measuring: about ")
