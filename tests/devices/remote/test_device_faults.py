"""Measuring over a real ssh connection, with faults of the device or the host: nothing lost, nothing twice."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from support import sshd
from support.kits import QUICK
from support.remotes import SETTINGS, TESTS, agents_of, at, check, quick, results_on
from support.sshd import Me, Sshd

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.remote.device import RemoteDevice
from ofa_profiler.devices.remote.wheels import Wheels
from ofa_profiler.errors import DeviceError
from ofa_profiler.export import Model
from ofa_profiler.measuring.session import measure
from ofa_profiler.protocol.journal import read_journal


def test_a_killed_agent_is_started_again(device, ssh_server, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"

    def strike() -> None:
        for pid in sorted(agents_of(ssh_server))[:1]:
            sshd.kill(pid)

    measure(device, models, SETTINGS, journal=journal, progress=at(6, strike))
    check(journal, store, models)


@pytest.mark.slow
def test_a_killed_worker_costs_no_model(device, ssh_server, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"

    def strike() -> None:
        for pid in agents_of(ssh_server):
            if not sshd.children({pid}):
                sshd.kill(pid)

    longer = replace(SETTINGS, visit_s=0.3, max_visit_samples=1_000_000)
    measure(device, models, longer, journal=journal, progress=at(5, strike))
    check(journal, store, models)


@pytest.mark.slow
def test_a_reboot(tmp_path, models, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    server = Sshd(tmp_path / "board")
    sshd.quick_python(server)
    server.start()
    me = Me(tmp_path / "me", server)
    journal = tmp_path / "j.jsonl"

    def reboot() -> None:
        for pid in agents_of(server):
            sshd.kill(pid)
        server.stop()
        threading.Timer(1.5, server.start).start()

    try:
        with quick(f"ssh:127.0.0.1:{server.port}") as device:
            measure(device, models, SETTINGS, journal=journal, progress=at(6, reboot))
        check(journal, server.home / ".ofa-profiler", models)
        assert me.server is server
    finally:
        server.stop()


@pytest.mark.slow
def test_a_device_that_stays_away_is_given_up(tmp_path, models, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    server = Sshd(tmp_path / "board")
    sshd.quick_python(server)
    server.start()
    Me(tmp_path / "me", server)
    journal = tmp_path / "j.jsonl"
    longer = replace(SETTINGS, visit_s=0.3, max_visit_samples=1_000_000)  # it must not be done before it is away
    with quick(f"ssh:127.0.0.1:{server.port}") as device:
        device.waits_s = (0.1, 0.2)
        with pytest.raises(DeviceError, match=r"cannot reach.*refused"):
            measure(device, models, longer, journal=journal, progress=at(3, server.stop))
    kept = read_journal(journal)[0].n_visits
    assert kept >= 3
    server.start()
    try:
        with quick(f"ssh:127.0.0.1:{server.port}") as device:
            measure(device, models, longer, journal=journal)
        check(journal, server.home / ".ofa-profiler", models)
    finally:
        server.stop()


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_damaged_model_on_the_device_is_sent_again(device, models, store, tmp_path, damage):
    journal = tmp_path / "j.jsonl"
    measure(device, models, QUICK)
    path = store / "models" / models[2].path.name
    path.write_bytes(damage)
    subprocess.run(["rm", "-r", str(store / "kits")], check=True)
    measure(device, models, SETTINGS, journal=journal)
    check(journal, store, models)
    assert path.read_bytes() == models[2].path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"truncated", None])
def test_a_model_that_is_damaged_while_measuring_is_sent_again(device, models, store, tmp_path, damage):
    journal = tmp_path / "j.jsonl"
    path = store / "models" / models[1].path.name

    def harm() -> None:
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)

    longer = replace(SETTINGS, visit_s=0.3, max_visit_samples=1_000_000)
    measure(device, models, longer, journal=journal, progress=at(2, harm))
    check(journal, store, models)
    assert path.read_bytes() == models[1].path.read_bytes()


def test_everything_is_removed_while_connected(device, models, store, tmp_path):
    device.describe()
    subprocess.run(["rm", "-r", str(store)], check=True)
    measure(device, models, SETTINGS, journal=tmp_path / "j.jsonl")
    check(tmp_path / "j.jsonl", store, models)


def test_a_damaged_runtime_on_the_device_is_sent_again(ssh_server, me, models, store, tmp_path, monkeypatch):
    """This device has a runtime, so the one that is brought may be any files."""
    wheel = tmp_path / "onnxruntime-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("here.py", "x = 1")
        archive.writestr("folder/there.py", "")
    monkeypatch.setattr(
        "ofa_profiler.devices.remote.provision.find_wheels", lambda *_, **__: Wheels("onnxruntime", (wheel,))
    )
    said: list[str] = []
    with open_device(f"ssh:127.0.0.1:{ssh_server.port}", DeviceOptions(like_release="1", tell=said.append)) as device:
        assert measure(device, models[:1], QUICK)["op 1"].ok
        (folder,) = (store / "runtimes").iterdir()
        (folder / "here.py").write_bytes(b"")
        assert measure(device, models[:1], QUICK)["op 1"].ok
        assert (folder / "here.py").stat().st_size > 0
        (folder / "here.py").write_bytes(b"x = 2")  # as long as before
        assert measure(device, models[:1], QUICK)["op 1"].ok
        assert (folder / "here.py").read_bytes() == b"x = 1"
        (folder / "folder" / "there.py").unlink()
        assert measure(device, models[:1], QUICK)["op 1"].ok
        assert (folder / "folder" / "there.py").exists()
    assert not said, "little is sent, so nothing is said"


@pytest.mark.parametrize("keep", [1, 5])
def test_a_device_that_is_behind_gets_what_it_lacks(device, models, store, tmp_path, keep):
    """A power cut may cost the device lines that the host has."""
    journal = tmp_path / "j.jsonl"
    stop_after(device, models, journal, 10)
    results = results_on(store)
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join(lines[:keep]) + lines[keep][:20])
    measure(device, models, SETTINGS, journal=journal)
    check(journal, store, models)


@pytest.mark.parametrize("keep", [1, 5])
def test_a_device_that_is_ahead_gives_what_it_has(device, models, store, tmp_path, keep):
    """A host that is killed may miss lines that the device wrote."""
    journal = tmp_path / "j.jsonl"
    stop_after(device, models, journal, 10)
    had = results_on(store).read_bytes()
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:keep]))
    measure(device, models, SETTINGS, journal=journal)
    check(journal, store, models)
    assert journal.read_bytes().startswith(had[: had.rfind(b"\n") + 1])


@pytest.mark.parametrize("rubbish", [b"\0" * 300 + b"\n", b'{"no":"type"}\n{"a":'])
def test_rubbish_behind_the_results_is_dropped(device, models, store, tmp_path, rubbish):
    journal = tmp_path / "j.jsonl"
    stop_after(device, models, journal, 6)
    with results_on(store).open("ab") as file:
        file.write(rubbish)
    measure(device, models, SETTINGS, journal=journal)
    check(journal, store, models)


def stop_after(device: RemoteDevice, models: list[Model], journal: Path, visits: int) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(device, models, SETTINGS, journal=journal, progress=at(visits, stop))


HOST = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.kits import INPUTS
from support.remotes import SETTINGS, quick
from ofa_profiler.export import Model
from ofa_profiler.measuring.session import measure
models = [Model.from_file(f"op {size}", Path(path), INPUTS) for size, path in zip((1, 3, 5, 7), sys.argv[4:])]
with quick(sys.argv[2]) as device:
    measure(device, models, SETTINGS, journal=Path(sys.argv[3]), progress=lambda state: print(state.visits, flush=True))
"""


@pytest.mark.slow
def test_a_host_that_is_killed_goes_on_when_run_again(ssh_server, me, store, models, tmp_path):
    journal = tmp_path / "j.jsonl"
    paths = [str(model.path) for model in models]
    command = [sys.executable, "-c", HOST, str(TESTS), f"ssh:127.0.0.1:{ssh_server.port}", str(journal), *paths]
    seen = []
    for visits in (3, 8):
        host = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert host.stdout is not None
        for line in host.stdout:
            seen.append(int(line))
            if seen[-1] >= visits:
                break
        host.kill()
        host.wait()
        host.stdout.close()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout.split()[0]) >= 8, "it went on where it was"
    check(journal, store, models)
