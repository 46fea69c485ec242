"""`ofa-profile` with several devices, and with devices of one model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ofa_profiler import profile
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.base.registry import Registry
from ofa_profiler.cli import profile_devices
from ofa_profiler.cli.profile import main
from ofa_profiler.devices import DeviceKind, FakeDevice
from ofa_profiler.devices import registry as device_registry
from ofa_profiler.errors import UsageError


@dataclass(frozen=True)
class Unit(FakeDevice):
    """One of several devices of a model."""

    unit: str | None = None
    model: str = "Board 3"

    def _device(self, time: str) -> dict[str, Any]:
        return {**super()._device(time), "unit": self.unit}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Progress]:
    """Devices `lab:ADDRESS`, of one model, and what the progress bar gets."""
    kinds: Registry[DeviceKind] = Registry("kind of device")
    kinds.add("lab", DeviceKind("lab", lambda spec, _: Unit(spec=spec, unit=spec), "lab:ADDRESS"))
    monkeypatch.setattr(device_registry, "_KINDS", kinds)
    monkeypatch.setenv("OFA_CACHE_DIR", str(tmp_path / "cache"))
    found: list[Progress] = []

    @contextlib.contextmanager
    def bar() -> Iterator[Reporter]:
        yield found.append

    monkeypatch.setattr(profile_devices, "progress_bar", bar)
    return found


def run(tmp_path: Path, *words: str) -> int:
    return main(["--resolution", "24", "--out", str(tmp_path / "out"), *words])


def test_boards_of_one_model_get_tables_of_their_own(seen, tmp_path, capsys):
    words = ["--device", "lab:pi@10.0.0.7:2222", "--device", "lab:bench-2", "--json"]
    for _ in range(2):  # the second run finds both
        assert run(tmp_path, *words) == 0
        devices = json.loads(capsys.readouterr().out)["devices"]
        assert {spec: document["name"] for spec, document in devices.items()} == {
            "lab:pi@10.0.0.7:2222": "board-3-cifar-mbv3-pi-10.0.0.7-2222",
            "lab:bench-2": "board-3-cifar-mbv3-bench-2",
        }
    assert [document["was_complete"] for document in devices.values()] == [True, True]


def test_the_export_for_several_devices_shows_its_progress(seen, tmp_path):
    assert run(tmp_path, "--device", "lab:a", "--device", "lab:b") == 0
    exported = [(progress.done, progress.total) for progress in seen if progress.phase == "export"]
    assert exported[0] == (1, 96)
    assert exported[95] == (96, 96)
    assert [progress.phase for progress in seen[:97]].index("export") == 0


def test_another_device_of_the_model_does_not_pass_for_the_first(tmp_path):
    """Without a name, both have the same one, and the first one's table is complete."""
    first = profile(Unit(unit="1"), out=tmp_path, resolutions=[24])
    with pytest.raises(UsageError, match=r"measured on another device \(unit '1', now '2'\); use another --name"):
        profile(Unit(unit="2"), out=tmp_path, resolutions=[24])
    assert first.table.metadata["device"]["unit"] == "1"
    assert profile(Unit(unit="1"), out=tmp_path, resolutions=[24]).was_complete
    assert profile(Unit(), out=tmp_path, resolutions=[24]).was_complete, "it does not know which one it is"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--runtime-version", "1"], "expected X.Y"),
        (["--runtime-version", "1.20", "--runtime-on-board", "system"], "give one of them"),
        (["--runtime-version", "1.20", "--benchmark-model", __file__, "--runtime", "litert"], "exclude each other"),
    ],
)
def test_a_wrong_release_is_one_line(seen, tmp_path, capsys, words, line):
    assert run(tmp_path, "--device", "lab:a", *words) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_the_release_is_a_keyword_too(tmp_path):
    with pytest.raises(UsageError, match=r"onnxruntime .* installed here, --runtime-version asks for 0\.1"):
        profile("local", out=tmp_path, runtime_version="0.1")
    with pytest.raises(UsageError, match="has its options"):
        profile(FakeDevice(), out=tmp_path, runtime_version="1.20")
