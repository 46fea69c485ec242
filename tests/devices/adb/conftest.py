"""Fixtures of the tests of adb: a home without keys, phones, Google's server, a shell either way."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.phones import Phone, shell_to
from support.sshd import free_port

from ofa_profiler.devices.adb.link import AdbLink
from ofa_profiler.devices.adb.server import AdbServerBridge
from ofa_profiler.devices.adb.shell import AdbShell


@pytest.fixture(scope="module", autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own for keys, and no adb server that somebody else runs."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        patch.delenv("ADB_SERVER_SOCKET", raising=False)
        yield home


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Phone(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest.fixture(scope="module")
def server(phone: Phone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Google's adb, connected to the phone -> its port."""
    program = shutil.which("adb")
    if program is None:
        pytest.skip("needs Google's adb (apt-get install adb)")
    port = free_port()
    words = [program, "-P", str(port)]
    subprocess.run([*words, "connect", phone.spec.removeprefix("adb:")], check=True, capture_output=True)
    yield port
    subprocess.run([*words, "kill-server"], check=True, capture_output=True)


@pytest.fixture(params=["direct", "server"])
def shell(request: pytest.FixtureRequest, phone: Phone, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbShell]:
    if request.param == "server":
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(request.getfixturevalue("server")))
    shell = shell_to(phone.spec)
    assert isinstance(shell._bridge, AdbServerBridge if request.param == "server" else AdbLink)
    with contextlib.closing(shell):
        yield shell


@pytest.fixture
def own_phone(tmp_path: Path) -> Iterator[Phone]:
    """A phone for a test that breaks it."""
    with Phone(tmp_path) as phone:
        yield phone
