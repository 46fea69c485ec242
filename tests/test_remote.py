"""Measuring over a real ssh connection, with real faults: nothing lost, nothing twice, nothing wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sshd
from counting import Counting
from kits import QUICK, bytes_model, conv_model
from proxy import Proxy
from sshd import Me, Sshd

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.provision import Wheels
from ofa_profiler.devices.remote import RemoteDevice
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.export import Model
from ofa_profiler.journal import read_journal
from ofa_profiler.measure import Progress, measure

#: Enough visits to have a middle.
SETTINGS = replace(QUICK, min_rounds=4, max_rounds=4, visit_s=0.02)
SYSTEM = DeviceOptions(runtime_on_board="system")
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    folder = tmp_path_factory.mktemp("models")
    return [conv_model(folder, f"op {size}", size) for size in (1, 3, 5, 7)]


@pytest.fixture
def store(ssh_server: Sshd) -> Iterator[Path]:
    """The private folder on the device, empty at the start."""
    path = ssh_server.home / ".ofa-profiler"
    subprocess.run(["rm", "-rf", str(path)], check=True)
    yield path
    for pid in agents_of(ssh_server):
        sshd.kill(pid)


@pytest.fixture
def proxy(ssh_server: Sshd, me: Me) -> Iterator[Proxy]:
    proxy = Proxy(ssh_server.port)
    me.know(ssh_server, proxy.port)
    yield proxy
    proxy.close()


@pytest.fixture
def device(ssh_server: Sshd, me: Me, store: Path) -> Iterator[RemoteDevice]:
    with quick(f"ssh:127.0.0.1:{ssh_server.port}") as device:
        yield device


def quick(spec: str) -> RemoteDevice:
    """A device whose agent brings its own runtime, and that is tried again soon."""
    device = open_device(spec, SYSTEM)
    assert isinstance(device, RemoteDevice)
    device.waits_s = (0.2, 0.5, 1, 1, 2, 2)
    return device


def agents_of(server: Sshd) -> list[int]:
    """The processes on the device that run an agent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if any(word.startswith(f"{server.home}/.ofa-profiler/agents/".encode()) for word in words):
                found.append(int(path.parent.name))
    return found


def at(visits: int, act: Callable[[], object]) -> Callable[[Progress], None]:
    """A progress function that acts once, when so many visits are done."""
    done = []

    def progress(state: Progress) -> None:
        if state.visits >= visits and not done:
            done.append(state)
            act()

    return progress


def results_on(store: Path) -> Path:
    (path,) = store.glob("kits/*/results.jsonl")
    return path


def check(journal: Path, store: Path, models: list[Model], settings=SETTINGS) -> None:
    """Everything is there once, here and on the device. (A journal with a visit twice cannot be read.)"""
    log, lines = read_journal(journal)
    assert {key: len(visits) for key, visits in log.visits.items()} == {m.key: settings.min_rounds for m in models}
    assert all(visit["status"] == "ok" for visits in log.visits.values() for visit in visits)
    assert results_on(store).read_bytes() == lines
    assert log.end is not None


# --- without faults -----------------------------------------------------------------------------------


def test_measures_and_leaves_the_results_on_the_device(device, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"
    measured = measure(device, models, SETTINGS, journal=journal)
    assert [m.ok for m in measured.values()] == [True] * 4
    check(journal, store, models)
    assert store.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (store / "models").iterdir()) == sorted(m.path.name for m in models)
    assert not list(store.glob(".incoming*"))


def test_steps_do_not_grow_with_the_number_of_models_and_nothing_is_sent_twice(ssh_server, me, store, tmp_path):
    counts = []
    many = [bytes_model(tmp_path / "m", f"op{i}", os.urandom(20_000)) for i in range(40)]
    for models in (many[:2], many, many):
        device = quick(f"ssh:127.0.0.1:{ssh_server.port}")
        shell = Counting(type(device).connect(device))
        device.connect = lambda shell=shell: shell
        with device:
            measured = measure(device, models, replace(QUICK, min_rounds=1, max_rounds=1))
        assert {m.status for m in measured.values()} == {"failed"}, "random bytes are no models"
        counts.append((shell.opened, shell.sent))
    few, all_, again = counts
    assert again[0] <= all_[0] == few[0] <= 5
    assert all_[1] - few[1] > 34 * 20_000
    assert again[1] < few[1] + 40 * 1000


def test_options_reach_the_agent(ssh_server, me, store, models):
    core = max(os.sched_getaffinity(0))
    options = replace(SYSTEM, cores=(core,))
    with open_device(f"ssh:127.0.0.1:{ssh_server.port}", options) as device:
        records = {}
        journal = store.parent / "cores.jsonl"
        measure(device, models[:1], QUICK, journal=journal)
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        journal.unlink()
    assert records[1]["cores_used"] == [core]
    with (
        open_device(f"ssh:127.0.0.1:{ssh_server.port}", replace(SYSTEM, cores=(4000,))) as device,
        pytest.raises(UsageError, match="cores"),
    ):
        measure(device, models[:1], QUICK)


def test_a_model_that_crashes_the_worker_fails_alone(device, models, store, tmp_path):
    broken = bytes_model(tmp_path, "broken", b"no model")
    measured = measure(device, [models[0], broken], QUICK)
    assert measured["op 1"].ok
    assert not measured["broken"].ok


# --- faults on the way --------------------------------------------------------------------------------


@pytest.mark.parametrize("visits", [0, 7])
def test_a_cut_connection_is_made_again(proxy, models, store, tmp_path, visits):
    journal = tmp_path / "j.jsonl"
    told: list[str] = []
    cut = at(visits, proxy.cut)

    def progress(state: Progress) -> None:
        cut(state)
        told.append(state.waiting)

    # Long visits: a slow host must not find everything measured by the time that it cuts.
    longer = replace(SETTINGS, visit_s=0.3, max_visit_samples=1_000_000)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        measure(device, models, longer, journal=journal, progress=progress)
    assert proxy.accepted == 2
    assert any("connection is lost" in words and "trying again" in words for words in told)
    check(journal, store, models)


def test_a_connection_that_was_cut_before_anything_began(proxy, models, store):
    """While models are exported, for instance, which takes minutes."""
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        proxy.cut()
        assert device.describe()["type"] == "device"
    assert proxy.accepted == 2


def test_a_connection_that_is_cut_at_the_very_first(proxy, models, store):
    proxy.cut_after = 9000  # we were let in, and have sent half of the first question
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        assert device.describe()["type"] == "device"
    assert proxy.accepted == 2


def test_a_connection_that_is_cut_while_models_are_sent(proxy, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"
    heavy = [conv_model(tmp_path / "heavy", f"heavy {size}", size) for size in (9, 11)]
    ballast = bytes_model(tmp_path / "heavy", "ballast", os.urandom(3_000_000))
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        device.describe()
        proxy.cut_after = 1_500_000
        measured = measure(device, [*models, *heavy, ballast], SETTINGS, journal=journal)
    assert proxy.accepted == 2
    assert [m.ok for m in measured.values()] == [True] * 6 + [False]
    assert not list(store.glob(".incoming*"))
    assert results_on(store).read_bytes() == journal.read_bytes()


def test_a_link_that_never_lasts_for_one_file(proxy, store, tmp_path):
    """What arrived of a large file need not come again, so every connection brings its end nearer."""
    ballast = bytes_model(tmp_path / "heavy", "ballast", os.urandom(12_000_000))
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        # An ssh server takes 2 MB before a program has read them, and a cut takes them away again.
        proxy.life = 3_500_000
        measured = measure(device, [ballast], SETTINGS)
    assert proxy.accepted > 5
    assert not measured["ballast"].ok, "it has arrived, and is no model"
    assert (store / "models" / ballast.path.name).read_bytes() == ballast.path.read_bytes()
    assert not list((store / "pieces").iterdir())


def test_a_link_that_brings_nothing_is_given_up(proxy, store, tmp_path):
    ballast = bytes_model(tmp_path / "heavy", "ballast", os.urandom(3_000_000))
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        device.describe()
        device.waits_s = (0.2,)
        proxy.life = 500_000
        with pytest.raises(DeviceError, match="the connection is lost"):
            measure(device, [ballast], SETTINGS)


def test_a_link_that_dies_without_a_word(proxy, models, store, tmp_path, monkeypatch):
    monkeypatch.setattr("ofa_profiler.devices.shell.SILENCE_S", 2.0)
    monkeypatch.setattr("ofa_profiler.devices.remote._HEARTBEAT_S", 0.3)
    monkeypatch.setattr("ofa_profiler.devices.remote._AGENT_PATIENCE_S", 2)
    monkeypatch.setattr("ofa_profiler.devices.remote._FAREWELL_S", 0.5)
    journal = tmp_path / "j.jsonl"
    settings = replace(SETTINGS, visit_s=0.3, max_visit_samples=100_000)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device:
        measure(device, models, settings, journal=journal, progress=at(5, proxy.stall))
    check(journal, store, models)
    assert proxy.accepted == 2


def test_an_agent_outlives_a_silent_link_only_for_its_patience(proxy, ssh_server, models, store, tmp_path, monkeypatch):
    monkeypatch.setattr("ofa_profiler.devices.remote._AGENT_PATIENCE_S", 2)
    monkeypatch.setattr("ofa_profiler.devices.remote._HEARTBEAT_S", 0.3)
    monkeypatch.setattr("ofa_profiler.devices.remote._FAREWELL_S", 0.5)
    gone: list[float] = []

    def pull() -> None:
        proxy.stall()
        assert agents_of(ssh_server)
        deadline = time.monotonic() + 300
        while agents_of(ssh_server) and time.monotonic() < deadline:
            time.sleep(0.05)
        gone.append(deadline - time.monotonic())
        raise KeyboardInterrupt

    settings = replace(SETTINGS, visit_s=5.0, max_visit_samples=1000, min_visit_samples=1000)
    with quick(f"ssh:127.0.0.1:{proxy.port}") as device, pytest.raises(KeyboardInterrupt):
        measure(device, models, settings, progress=at(1, pull))
    assert gone[0] > 0


def test_no_agent_survives_its_connection(ssh_server, proxy, models, store):
    def pull() -> None:
        proxy.cut()
        deadline = time.monotonic() + 300
        while agents_of(ssh_server):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise KeyboardInterrupt

    with quick(f"ssh:127.0.0.1:{proxy.port}") as device, pytest.raises(KeyboardInterrupt):
        measure(device, models, replace(SETTINGS, max_rounds=4), progress=at(3, pull))


def test_two_hosts_never_measure_at_once(ssh_server, me, store, models, tmp_path):
    """The second waits for the first, says so, and then does its own."""
    spec = f"ssh:127.0.0.1:{ssh_server.port}"
    waited: list[str] = []
    second: list[dict] = []

    def start_second() -> None:
        def run() -> None:
            with quick(spec) as other:
                second.append(measure(other, models[:1], QUICK, progress=lambda state: waited.append(state.waiting)))

        thread.append(threading.Thread(target=run))
        thread[0].start()
        deadline = time.monotonic() + 300
        while not any(waited):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    thread: list[threading.Thread] = []
    longer = replace(SETTINGS, visit_s=0.4, max_visit_samples=1_000_000)
    with quick(spec) as device:
        first = measure(device, models, longer, progress=at(2, start_second))
    thread[0].join(300)
    assert len(first) == 4
    assert second[0]["op 1"].ok
    assert "waiting for another measurement on this device" in waited


# --- faults on the device -----------------------------------------------------------------------------


def test_a_killed_agent_is_started_again(device, ssh_server, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"

    def strike() -> None:
        for pid in sorted(agents_of(ssh_server))[:1]:
            sshd.kill(pid)

    measure(device, models, SETTINGS, journal=journal, progress=at(6, strike))
    check(journal, store, models)


def test_a_killed_worker_costs_no_model(device, ssh_server, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"

    def strike() -> None:
        for pid in agents_of(ssh_server):
            if not sshd.children({pid}):
                sshd.kill(pid)

    longer = replace(SETTINGS, visit_s=0.3, max_visit_samples=1_000_000)
    measure(device, models, longer, journal=journal, progress=at(5, strike))
    check(journal, store, models)


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
    monkeypatch.setattr("ofa_profiler.devices.remote.find_wheels", lambda *_, **__: Wheels("onnxruntime", (wheel,)))
    said: list[str] = []
    with open_device(f"ssh:127.0.0.1:{ssh_server.port}", DeviceOptions(tell=said.append)) as device:
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
from test_remote import SETTINGS, measure, quick
from ofa_profiler.export import Model
models = [Model.from_file(f"op {size}", Path(path), (1, 4, 8, 8)) for size, path in zip((1, 3, 5, 7), sys.argv[4:])]
with quick(sys.argv[2]) as device:
    measure(device, models, SETTINGS, journal=Path(sys.argv[3]), progress=lambda state: print(state.visits, flush=True))
"""


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


# --- what a device may do wrong -----------------------------------------------------------------------


def test_what_others_print_between_the_lines_of_an_agent(device, ssh_server, models, store, tmp_path):
    """A login script may leave a program behind that prints; a forced command may print when all is done."""
    journal = tmp_path / "j.jsonl"
    agent = f"""case "$*" in *--kit*) ;; *) exec "{sys.executable}" "$@";; esac
(for i in 1 2 3 4 5 6 7 8; do echo "It is $i o'clock"; sleep 0.05; done) &
"{sys.executable}" "$@"
status=$?; wait; echo "Good bye"; exit $status"""
    with fake_python(ssh_server, agent):
        measure(device, models, SETTINGS, journal=journal)
    check(journal, store, models)


def test_a_line_that_somebody_printed_into_is_asked_for_again(device, ssh_server, models, store, tmp_path):
    journal = tmp_path / "j.jsonl"
    once = ssh_server.folder / "once"
    agent = f"""case "$*" in *--kit*) ;; *) exec "{sys.executable}" "$@";; esac
[ -e {once} ] && exec "{sys.executable}" "$@"
: > {once}
"{sys.executable}" "$@" | sed -u '5s/^/Welcome! /'"""
    with fake_python(ssh_server, agent):
        measure(device, models, SETTINGS, journal=journal)
    check(journal, store, models)


def fake_python(server: Sshd, text: str) -> contextlib.AbstractContextManager[None]:
    """Another `python3` on the device for a while."""

    @contextlib.contextmanager
    def changed() -> Iterator[None]:
        path = server.folder / "bin" / "python3"
        path.write_text("#!/bin/sh\n" + text)
        try:
            yield
        finally:
            sshd.quick_python(server)

    return changed()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 127", "there is no python3"),
        ("echo 'Python 3.7 or newer is needed, this is 3.5' >&2; exit 1", "Python 3.7 or newer"),
        ("head -c 100000 /dev/urandom; exit 0", "ended with code 0"),
        ('printf \'%s\\n\' \'{"type":"store","error":"no\\u001b[2J\\nway"}\'', "no.*way"),
        ('echo \'{"type":"store"}\'', "where its folder is"),
        ('echo \'{"type":"store","root":"/x","python":"3.9"}\'', "which Python"),
        ('echo \'{"type":"store","root":"/x","python":[3,6]}\'', r"3\.6, the agent needs 3\.7"),
        ("exec cat /dev/zero", "prints without end"),
    ],
)
def test_a_strange_python_is_one_clear_line(ssh_server, me, store, script, words):
    device = open_device(f"ssh:127.0.0.1:{ssh_server.port}", SYSTEM)
    device.waits_s = (0.1,)
    with fake_python(ssh_server, script), pytest.raises(DeviceError, match=words) as no:
        device.describe()
    assert "\n" not in str(no.value)
    assert "\x1b" not in str(no.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"type":"visit","key":"op 1","round":0,"status":"ok","seconds":NaN}', "NaN"),
        ("hello", "stopped before it was done"),
        ("[" * 100_000, "deeply|not JSON"),
        ('{"type":"visit","key":"else","round":0}', "no such model"),
        ('{"type":"visit","key":"op 1","round":0,"status":"ok","seconds":1,"samples_ns":[0],"warmup_ns":1}', "no time"),
    ],
)
def test_what_an_agent_says_is_not_trusted(device, ssh_server, models, store, line, words):
    (ssh_server.folder / "line").write_text(line + "\n")
    agent = f'case "$*" in *--kit*) cat {ssh_server.folder}/line; sleep 1; exit 0;; esac\nexec "{sys.executable}" "$@"'
    device.waits_s = ()
    with fake_python(ssh_server, agent), pytest.raises(DeviceError, match=words):
        measure(device, models, QUICK)


# --- a full disk --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(ssh_server: Sshd, store: Path) -> Iterator[Path]:
    """2 MB for the private folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(store)], check=True)
    yield store
    subprocess.run(["umount", "-l", str(store)], check=True)


def test_a_full_disk_while_models_are_sent(ssh_server, me, small_disk, models, tmp_path):
    big = [bytes_model(tmp_path / "big", f"big{i}", os.urandom(700_000)) for i in range(4)]
    with quick(f"ssh:127.0.0.1:{ssh_server.port}") as device:
        with pytest.raises(DeviceError, match=r"the disk is full: 3 MB are needed in .*, \d MB are free"):
            measure(device, big, QUICK)
        assert not list(small_disk.glob("models/*"))
        assert not list(small_disk.glob(".incoming*"))
        assert measure(device, models[:1], QUICK)["op 1"].ok


def test_a_full_disk_while_measuring(ssh_server, me, small_disk, models, tmp_path):
    journal = tmp_path / "j.jsonl"
    filler = small_disk / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()

    settings = replace(SETTINGS, min_visit_samples=300, max_visit_samples=300)
    with quick(f"ssh:127.0.0.1:{ssh_server.port}") as device:
        with pytest.raises(DeviceError, match=r"cannot write .*results.jsonl: No space left on device"):
            measure(device, models, settings, journal=journal, progress=at(3, fill))
        filler.unlink()
        measure(device, models, settings, journal=journal)
    check(journal, small_disk, models)


# --- a cable ------------------------------------------------------------------------------------------


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sshd, Callable[[str], None]]]:
    """A server in a network of its own, and a function that sets the cable to it `up` or `down`."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 for a network namespace")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    name = f"ofa{os.getpid()}"
    here, there = f"{name}a", f"{name}b"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("address", "add", "10.213.0.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "address", "add", "10.213.0.2/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        server = Sshd(tmp_path / "board", address="10.213.0.2", launcher=["ip", "netns", "exec", name])
        sshd.quick_python(server)
        server.start()
        yield server, lambda how: ip("link", "set", here, how)
        server.stop()
    finally:
        ip("netns", "del", name)


@pytest.mark.slow
def test_a_pulled_cable_is_noticed_in_seconds_and_plugged_in_again(cable, models, tmp_path):
    server, link = cable
    Me(tmp_path / "me", server)
    journal = tmp_path / "j.jsonl"
    noticed: list[str] = []

    def pull() -> None:
        link("down")
        threading.Timer(25, link, ["up"]).start()

    act = at(5, pull)

    def progress(state: Progress) -> None:
        act(state)
        if state.waiting:
            noticed.append(state.waiting)

    settings = replace(SETTINGS, visit_s=0.5, max_visit_samples=1_000_000)
    with quick(f"ssh:10.213.0.2:{server.port}") as device:
        device.waits_s = (1, 2, 4, 8, 15)
        measure(device, models, settings, journal=journal, progress=progress)
    assert "connection is lost" in noticed[0], "and not 45 s of silence"
    check(journal, server.home / ".ofa-profiler", models)
