"""What a cable, an adb server and a phone may do wrong: one clear line, or it goes on by itself."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.adb_servers import AdbServerLike, Listener, exactly
from support.phones import Phone
from support.sshd import free_port

from ofa_profiler.cli import profile as cli
from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.adb import direct as adb_direct
from ofa_profiler.devices.adb import server as adb_server
from ofa_profiler.devices.adb.connect import list_phones
from ofa_profiler.devices.adb.link import AdbLink
from ofa_profiler.devices.adb.server import AdbServerBridge, find_server, server_phones
from ofa_profiler.devices.android.device import AdbDevice
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for keys, and no adb server that somebody else runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Phone(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Listener], Listener]]:
    """Puts a listener where the adb server is looked for."""
    listeners = []

    def add(listener: Listener) -> Listener:
        listeners.append(listener)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.port))
        return listener

    yield add
    for listener in listeners:
        listener.close()


def http(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n\x1b[31m")


def silent(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def hang_up(_connection: socket.socket) -> None:
    pass


def endless_block(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"OKAYffffonly a part")


def no_length(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"OKAYwhat")


STRANGERS = [http, silent, hang_up, endless_block, no_length]


# --- something else where the adb server should be -----------------------------------------------------


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_on_the_port_of_the_server_does_not_hide_a_phone_on_the_network(
    stranger: Callable[[socket.socket], None],
    listen: Callable[[Listener], Listener],
    phone: Phone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adb_server, "_TIMEOUT_S", 0.5)
    listen(Listener(stranger))
    with contextlib.closing(AdbDevice(phone.spec, DeviceOptions()).connect()) as shell:
        assert isinstance(shell._bridge, AdbLink)
        assert shell.run(["echo", "hi"]).stdout == b"hi\n"


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_on_the_port_of_the_server_is_told_of_a_phone_on_usb(
    stranger: Callable[[socket.socket], None],
    listen: Callable[[Listener], Listener],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(adb_server, "_TIMEOUT_S", 0.5)
    port = listen(Listener(stranger)).port
    words = f"the service on 127.0.0.1:{port} does not answer like an adb server"
    with pytest.raises(DeviceError, match=words) as caught:
        open_device("adb:ABC123").describe()
    assert not isinstance(caught.value, TransientDeviceError)
    assert str(caught.value).isprintable()
    assert words in list_phones()
    assert list_phones().isprintable()
    assert cli.main(["--device", "adb:ABC123", "--space", "cifar-mbv3", "--out", "nowhere"]) == 4
    assert words in " ".join(capsys.readouterr().err.split())


# --- a server that comes and goes ----------------------------------------------------------------------


def test_a_server_that_vanishes_between_two_requests_is_not_started_again(
    listen: Callable[[Listener], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda *words, **_: started.append(words))
    fake = listen(AdbServerLike({"ABC123": "device"}))
    server = find_server()
    assert server is not None
    bridge = AdbServerBridge("adb:ABC123", server, "ABC123")
    fake.close()
    with contextlib.closing(bridge), pytest.raises(TransientDeviceError, match="the adb server does not answer"):
        bridge.open("shell,v2,raw:true")
    with pytest.raises(TransientDeviceError, match="does not answer"):
        server_phones(server)
    assert find_server() is None
    assert not started


def test_a_phone_on_usb_that_was_there_may_come_back(
    listen: Callable[[Listener], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cable pulled, the server ended or restarted: worth another try. Not for one that never was there."""
    monkeypatch.setattr(adb_direct, "usb_phones", lambda: iter(()))
    with pytest.raises(DeviceError, match="no such phone on USB") as caught:
        AdbDevice("adb:ABC123", DeviceOptions()).connect()
    assert not isinstance(caught.value, TransientDeviceError)

    fake = listen(AdbServerLike({"ABC123": "device"}))
    assert isinstance(fake, AdbServerLike)
    device = AdbDevice("adb:ABC123", DeviceOptions())
    device.connect().close()
    for state in "offline", "unauthorized", None:
        fake.phones = {"ABC123": state} if state else {}
        with pytest.raises(TransientDeviceError):
            device.connect()
    fake.close()  # and now it would be for us to open, but nothing is plugged in
    with pytest.raises(TransientDeviceError, match="no such phone on USB"):
        device.connect()
    listen(AdbServerLike({"ABC123": "device"}))
    device.connect().close()


# --- which phone, and in which state ---------------------------------------------------------------------


def test_several_phones_are_listed_and_none_is_chosen(
    listen: Callable[[Listener], Listener], capsys: pytest.CaptureFixture[str]
) -> None:
    listen(AdbServerLike({"ABC": "device", "DEF": "unauthorized", "GHI": "offline", "a b\x1b[31m": "device"}))
    assert cli.main(["--device", "adb:", "--space", "cifar-mbv3", "--out", "nowhere"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "attached are adb:ABC, adb:DEF (not authorized yet" in said
    assert "adb:GHI (does not answer the adb server" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("offline", "plug it in again"),
        ("unauthorized", "accept 'Allow USB debugging'"),
        (
            "no permissions (missing udev rules? user is in the plugdev group)",
            "server reports the state no perm",
        ),
        ("recovery", "the adb server reports the state recovery"),
    ],
)
def test_a_phone_that_is_not_ready_ends_with_code_4_and_what_to_do(
    state: str, words: str, listen: Callable[[Listener], Listener], capsys: pytest.CaptureFixture[str]
) -> None:
    listen(AdbServerLike({"ABC": state, "DEF": "device"}))
    assert cli.main(["--device", "adb:ABC", "--space", "cifar-mbv3", "--out", "nowhere"]) == 4
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("serial", ["a b", "it's", '"; rm -rf /; $(id)', "Gerät漢字", "x" * 300, "..", "%s"])
def test_an_odd_serial_number_is_passed_on_as_it_is(serial: str, listen: Callable[[Listener], Listener]) -> None:
    fake = listen(AdbServerLike({"other": "device", serial: "device"}))
    assert isinstance(fake, AdbServerLike)
    with contextlib.closing(AdbDevice(f"adb:{serial}", DeviceOptions()).connect()) as shell:
        assert shell.run(["true"]).exit_code == 0
    assert f"host:transport:{serial}" in fake.requests


@pytest.mark.parametrize(
    "spec",
    ["adb:a\nb", "adb:\x1b[31m", "adb:\udcff", "adb:" + "x" * 400, "adb:h:-1", "adb:h:5555x", "adb:h:1:", "adb:[::1]"],
)
def test_what_can_be_no_phone_is_bad_usage_before_anything_is_done(spec: str) -> None:
    with pytest.raises(UsageError, match=r"adb:HOST:PORT") as caught:
        open_device(spec)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("host", ["[::1]", "::1", "127.0.0.1"])
def test_an_address_may_be_of_either_internet_protocol(host: str) -> None:
    with pytest.raises(DeviceError, match="connection refused"):
        open_device(f"adb:{host}:{free_port()}").describe()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "ü..x", "x" * 250, " ", ";", "$(id)"])
def test_a_host_that_is_none_ends_in_one_line(host: str) -> None:
    with pytest.raises(DeviceError) as caught:
        open_device(f"adb:{host}:5555").describe()
    assert not isinstance(caught.value, TransientDeviceError)
    assert str(caught.value).isprintable()


# --- a phone that is too old -------------------------------------------------------------------------------


def test_a_phone_without_the_shell_protocol_says_what_it_needs_through_a_server(
    listen: Callable[[Listener], Listener],
) -> None:
    listen(AdbServerLike({"OLD": "device"}, shell_v2=False))
    device = AdbDevice("adb:OLD", DeviceOptions())
    with (
        contextlib.closing(device.connect()) as shell,
        pytest.raises(DeviceError, match="must have Android 7 or newer") as caught,
    ):
        shell.run(["true"])
    assert not isinstance(caught.value, TransientDeviceError)


def test_a_phone_without_the_shell_protocol_says_what_it_needs_directly() -> None:
    def packet(command: bytes, arg0: int, arg1: int, data: bytes = b"") -> bytes:
        word = struct.unpack("<I", command)[0]
        return struct.pack("<6I", word, arg0, arg1, len(data), sum(data), word ^ 0xFFFFFFFF) + data

    def old_daemon(connection: socket.socket) -> None:
        while True:
            command, arg0, _, length, *_ = struct.unpack("<4s5I", exactly(connection, 24))
            exactly(connection, length)
            if command == b"CNXN":
                connection.sendall(packet(b"CNXN", 0x01000000, 4096, b"device::ro.product.model=Old;\0"))
            elif command == b"OPEN":
                connection.sendall(packet(b"CLSE", 0, arg0))

    daemon = Listener(old_daemon)
    device = AdbDevice(f"adb:127.0.0.1:{daemon.port}", DeviceOptions())
    with (
        contextlib.closing(daemon),
        contextlib.closing(device.connect()) as shell,
        pytest.raises(DeviceError, match="must have Android 7 or newer") as caught,
    ):
        shell.run(["true"])
    assert not isinstance(caught.value, TransientDeviceError)
