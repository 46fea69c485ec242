"""Where the adb server is looked for: the environment variables of Google's adb, and its forms of addresses."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adb_servers import AdbServerLike
from support.phones import Phone
from support.sshd import free_port

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.adb import direct as adb_direct
from ofa_profiler.devices.adb.address import AdbServer, server_address
from ofa_profiler.devices.adb.connect import attached_phones, list_phones
from ofa_profiler.devices.adb.server import AdbServerBridge, find_server
from ofa_profiler.devices.android.device import AdbDevice
from ofa_profiler.errors import DeviceError, UsageError

NAMES = "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_HOST", "ANDROID_ADB_SERVER_PORT"


def address(**variables: str) -> AdbServer:
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        return server_address()


@pytest.mark.parametrize(
    ("spec", "host", "port"),
    [
        ("tcp:5037", "127.0.0.1", 5037),
        ("tcp:127.0.0.1:5997", "127.0.0.1", 5997),
        ("tcp:host.docker.internal:5037", "host.docker.internal", 5037),
        ("tcp:localhost:1", "localhost", 1),
        ("tcp:[::1]:5037", "::1", 5037),
        ("tcp:[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
    ],
)
def test_a_socket_of_the_network(spec: str, host: str, port: int) -> None:
    found = address(ADB_SERVER_SOCKET=spec, ANDROID_ADB_SERVER_PORT="1", ANDROID_ADB_SERVER_ADDRESS="elsewhere")
    assert (found.host, found.port, found.path) == (host, port, "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux's own")
def test_a_socket_of_this_machine() -> None:
    assert address(ADB_SERVER_SOCKET="localfilesystem:/run/adb.sock").path == "/run/adb.sock"
    assert address(ADB_SERVER_SOCKET="local:/run/a b:c").path == "/run/a b:c"
    assert address(ADB_SERVER_SOCKET="localabstract:adb").path == "\0adb"


@pytest.mark.parametrize(
    "spec",
    [
        *("5037", "tcp", "tcp:", "tcp:0", "tcp:65536", "tcp:host", "tcp:host:", "tcp::5037", "tcp:-1", "tcp:::1"),
        *("tcp:५", "localfilesystem:", "localabstract:", "localfilesystem:" + "x" * 200, "vsock:2:5037", "\x1b[31m"),
    ],
)
def test_what_is_no_address_is_refused_and_not_ignored(spec: str) -> None:
    with pytest.raises(UsageError, match="ADB_SERVER_SOCKET=") as caught:
        address(ADB_SERVER_SOCKET=spec)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=120))
def test_any_text_is_an_address_or_bad_usage(spec: str) -> None:
    with contextlib.suppress(UsageError):
        found = address(ADB_SERVER_SOCKET=spec)
        assert found.path or 0 < found.port < 65536
        assert found.source == ("ADB_SERVER_SOCKET" if spec else "")


@given(st.sampled_from(["127.0.0.1", "localhost", "a.b-c.example", "::1", "fe80::2%1"]), st.integers(1, 65535))
def test_an_address_is_read_as_it_was_written(host: str, port: int) -> None:
    written = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    found = address(ADB_SERVER_SOCKET=f"tcp:{written}")
    assert (found.host, found.port, str(found)) == (host, port, written)


def test_the_older_variables_count_without_it() -> None:
    assert (address().host, address().port) == ("127.0.0.1", 5037)
    assert address(ADB_SERVER_SOCKET="", ANDROID_ADB_SERVER_PORT="").port == 5037
    found = address(ANDROID_ADB_SERVER_ADDRESS="10.0.0.1", ANDROID_ADB_SERVER_PORT="99")
    assert (found.host, found.port) == ("10.0.0.1", 99)
    with pytest.raises(UsageError, match="ANDROID_ADB_SERVER_PORT='70000' is not a port"):
        address(ANDROID_ADB_SERVER_PORT="70000")


# --- servers there -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "localfilesystem", "localabstract"])
def test_a_phone_of_a_server_anywhere(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = {"tcp": "", "localfilesystem": str(tmp_path / "adb"), "localabstract": "\0" + secrets.token_hex(8)}[kind]
    fake = AdbServerLike({"ABC": "device"}, path=path)
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"{kind}:{path.removeprefix(chr(0)) or f'127.0.0.1:{fake.port}'}")
    with contextlib.closing(fake):
        assert list_phones() == "attached are adb:ABC"
        with contextlib.closing(AdbDevice("adb:ABC", DeviceOptions()).connect()) as shell:
            assert shell.run(["true"]).exit_code == 0


@pytest.fixture
def google(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Google's adb, which listens on a Unix socket and has the phone -> the name of its address."""
    program = shutil.which("adb")
    if program is None:
        pytest.skip("needs Google's adb (apt-get install adb)")
    spec = f"localfilesystem:{tmp_path / 'adb.sock'}"
    monkeypatch.setenv("ADB_SERVER_SOCKET", spec)
    subprocess.run([program, "connect", phone.spec.removeprefix("adb:")], check=True, capture_output=True)
    yield spec
    subprocess.run([program, "kill-server"], check=True, capture_output=True)


def test_google_s_server_is_found_where_google_s_client_finds_it(google: str, phone: Phone) -> None:
    assert str(find_server()) == google
    assert [found.serial for found in attached_phones()] == [phone.spec.removeprefix("adb:")]
    with contextlib.closing(AdbDevice(phone.spec, DeviceOptions()).connect()) as shell:
        assert isinstance(shell._bridge, AdbServerBridge)
        assert shell.run(["echo", "hi"]).stdout == b"hi\n"


def test_where_nothing_listens_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(adb_direct, "usb_phones", lambda: iter(()))
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
    words = rf"no adb server listens on 127.0.0.1:{port} \(ADB_SERVER_SOCKET\); start it there"
    with pytest.raises(DeviceError, match=words):
        open_device("adb:ABC").describe()
    with pytest.raises(UsageError, match=words):
        open_device("adb:")
