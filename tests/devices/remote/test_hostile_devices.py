"""A device that lies, or whose disk is full, or whose cable is pulled: told in one line, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import sshd
from support.kits import QUICK, bytes_model
from support.remotes import SETTINGS, SYSTEM, at, check, quick
from support.sshd import Me, Sshd

from ofa_profiler.devices import open_device
from ofa_profiler.errors import DeviceError
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import measure

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
        ("exit 127", "the device has no python3"),
        ("echo 'Python 3.7 or newer is needed, this is 3.5' >&2; exit 1", "Python 3.7 or newer"),
        ("head -c 100000 /dev/urandom; exit 0", "ended with code 0"),
        ('printf \'%s\\n\' \'{"type":"store","error":"no\\u001b[2J\\nway"}\'', "no.*way"),
        ('echo \'{"type":"store"}\'', "does not report its folder"),
        ('echo \'{"type":"store","root":"/x","python":"3.9"}\'', "does not report its Python"),
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
        ("hello", "ended before it was finished"),
        ("[" * 100_000, "deeply|not JSON"),
        ('{"type":"visit","key":"op 1","round":0,"status":"failed","error":"no"}', "seconds"),
        ('{"type":"visit","key":"else","round":0,"status":"failed","error":"no","seconds":1}', "no such model"),
        (
            '{"type":"visit","key":"op 1","round":0,"status":"ok","seconds":1,"samples_ns":[0],"warmup_ns":1}',
            "is not a time",
        ),
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
    big = [bytes_model(tmp_path / "big", f"big{i}", os.urandom(650_000)) for i in range(4)]
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


@pytest.mark.long
def test_a_pulled_cable_is_noticed_in_seconds_and_plugged_in_again(cable, models, tmp_path):
    server, link = cable
    Me(tmp_path / "me", server)
    journal = tmp_path / "j.jsonl"
    noticed: list[str] = []

    def pull() -> None:
        link("down")
        threading.Timer(25, link, ["up"]).start()

    act = at(5, pull)

    def progress(state: MeasuringProgress) -> None:
        act(state)
        if state.waiting:
            noticed.append(state.waiting)

    settings = replace(SETTINGS, visit_s=0.5, max_visit_samples=1_000_000)
    with quick(f"ssh:10.213.0.2:{server.port}") as device:
        device.waits_s = (1, 2, 4, 8, 15)
        measure(device, models, settings, journal=journal, progress=progress)
    assert "connection is lost" in noticed[0], "and not 45 s of silence"
    check(journal, server.home / ".ofa-profiler", models)
