"""The way to a phone: writes that are cut short, phones that hang up, USB, daemons that lie."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from adb_shell.exceptions import UsbReadFailedError
from support.phones import AT_ONCE, Phone, shell_to
from support.proxy import Proxy
from support.sshd import free_port

from ofa_profiler.devices.adb import bridge as adb_bridge
from ofa_profiler.devices.adb import direct as adb_direct
from ofa_profiler.devices.adb import link as adb_link
from ofa_profiler.devices.adb.direct import connect_tcp
from ofa_profiler.devices.adb.keys import load_signer
from ofa_profiler.devices.adb.link import AdbLink, WholeTcpTransport
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.errors import DeviceError, TransientDeviceError

# --- the short write, and a phone that hangs up -------------------------------------------------------


@pytest.mark.slow
def test_a_slow_link_loses_nothing(phone: Phone) -> None:
    """The kernel takes a part of what is sent; adb-shell's own transport forgets the rest."""
    proxy = Proxy(phone.port)
    proxy.upstream_rate = 1.5e6
    data = random.Random(2).randbytes(3 << 20)
    with contextlib.closing(proxy), contextlib.closing(shell_to(f"adb:127.0.0.1:{proxy.port}")) as shell:
        assert shell.run(["sha256sum"], data).stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_transport_sends_all_when_the_socket_takes_parts() -> None:
    """Without the loop, a full socket takes a part of 8 MB."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = WholeTcpTransport("127.0.0.1", listener.getsockname()[1])
        transport.connect(5.0)
        receiver, _ = listener.accept()
        data = random.Random(3).randbytes(8 << 20)
        got = bytearray()

        def receive() -> None:
            time.sleep(0.3)
            while len(got) < len(data):
                got.extend(receiver.recv(1 << 16))

        thread = threading.Thread(target=receive)
        thread.start()
        assert transport.bulk_write(data, 5.0) == len(data)
        thread.join(20)
        assert bytes(got) == data
        receiver.close()
        with pytest.raises(ConnectionError):  # and the end of the stream is an error, not an empty read for ever
            transport.bulk_read(24, 5.0)
        transport.close()


def test_a_daemon_that_dies_is_noticed_at_once(own_phone: Phone) -> None:
    with contextlib.closing(shell_to(own_phone.spec)) as shell:
        running = shell.spawn(["cat"])
        threading.Timer(0.5, own_phone.kill).start()
        with pytest.raises(TransientDeviceError, match=AT_ONCE):
            running.output.read_line(100)
        with pytest.raises(TransientDeviceError):
            shell.run(["true"])


@pytest.mark.slow
def test_a_dead_link_is_noticed_by_asking(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_bridge, "_PING_EVERY_S", 0.5)
    monkeypatch.setattr(AdbLink.ping, "__defaults__", (2.0,))
    proxy = Proxy(phone.port)
    with contextlib.closing(proxy), contextlib.closing(shell_to(f"adb:127.0.0.1:{proxy.port}")) as shell:
        running = shell.spawn(["cat"])
        proxy.held = True
        with pytest.raises(TransientDeviceError, match="does not answer"):
            running.output.read_line(100)


def test_a_cut_during_a_push_is_an_error_that_may_be_tried_again(phone: Phone) -> None:
    proxy = Proxy(phone.port)
    proxy.cut_after = 1 << 20
    with contextlib.closing(proxy):
        shell = shell_to(f"adb:127.0.0.1:{proxy.port}")
        with contextlib.closing(shell), pytest.raises(TransientDeviceError):
            shell.run(["sha256sum"], bytes(8 << 20))


def test_a_server_that_dies_is_no_success(own_phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("adb") is None:
        pytest.skip("needs Google's adb (apt-get install adb)")
    port = free_port()
    address = own_phone.spec.removeprefix("adb:")
    subprocess.run(["adb", "-P", str(port), "connect", address], check=True, capture_output=True)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    with contextlib.closing(shell_to(own_phone.spec)) as shell:
        running = shell.spawn(["cat"])
        subprocess.run(["adb", "-P", str(port), "kill-server"], check=True, capture_output=True)
        with pytest.raises(TransientDeviceError):
            running.process.wait()
    with contextlib.closing(shell_to(own_phone.spec)) as shell:  # without a server, directly
        assert isinstance(shell._bridge, AdbLink)
        assert shell.run(["echo", "hi"]).stdout == b"hi\n"


# --- USB ----------------------------------------------------------------------------------------------


class USBErrorTimeout(Exception):  # libusb's name, by which it is known
    received = b""


class UsbLikeTransport(WholeTcpTransport):
    """TCP that times out as libusb does: with an exception that holds what has come so far."""

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        half = max(1, numbytes // 2)
        try:
            data = super().bulk_read(half, 0.05)
        except ConnectionError:
            raise
        except Exception:
            raise UsbReadFailedError("timed out", USBErrorTimeout()) from None
        if random.random() < 0.3:
            partial = USBErrorTimeout()
            partial.received = data
            raise UsbReadFailedError("timed out in the middle", partial)
        return data


def test_usb_timeouts_in_the_middle_of_a_packet_lose_nothing(phone: Phone, private_home: Path) -> None:
    random.seed(0)
    link = AdbLink.__new__(AdbLink)
    transport = UsbLikeTransport("127.0.0.1", phone.port)
    connected = False

    def plain_until_connected(numbytes: int, timeout_s: float | None) -> bytes:
        read = UsbLikeTransport.bulk_read if connected else WholeTcpTransport.bulk_read
        return read(transport, numbytes, timeout_s)

    transport.bulk_read = plain_until_connected  # type: ignore[method-assign]
    AdbLink.__init__(link, "adb:usb", transport, [load_signer()], None, 5.0)
    connected = True
    with contextlib.closing(AdbShell("adb:usb", link)) as shell:
        data = random.Random(4).randbytes(1 << 20)
        assert shell.run(["cat"], data).stdout == data


# --- a daemon that lies -------------------------------------------------------------------------------


def packet(command: bytes, arg0: int, arg1: int, data: bytes = b"", length: int | None = None) -> bytes:
    word = struct.unpack("<I", command)[0]
    length = len(data) if length is None else length
    return struct.pack("<6I", word, arg0, arg1, length, sum(data), word ^ 0xFFFFFFFF) + data


def take_packet(source: BinaryIO) -> None:
    source.read(struct.unpack("<6I", source.read(24))[3])


class LyingDaemon:
    """Lets anybody in, answers the first OPEN with OKAY and then with `answer`."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rb") as source:
                take_packet(source)
                connection.sendall(packet(b"CNXN", 0x01000000, 1 << 20, b"device::\0"))
                take_packet(source)
                connection.sendall(packet(b"OKAY", 7, 1) + self.answer)
                time.sleep(20)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 4096,
        packet(b"WRTE", 7, 1, length=1 << 31),
        packet(b"WRTE", 7, 1, b"abc")[:-1] + b"x",  # its checksum is wrong
        packet(b"WRTE", 7, 1, struct.pack("<BI", 1, 1 << 31)),
        packet(b"WRTE", 7, 1, struct.pack("<BI", 77, 1) + b"x"),
        packet(b"WRTE", 7, 1, struct.pack("<BI", 3, 9) + bytes(9)),
        packet(b"WRTE", 7, 1, b"x") * 100,
        packet(b"CLSE", 7, 1),
    ],
    ids=["garbage", "huge", "checksum", "huge-inner", "unknown-inner", "long-exit", "flood", "no-exit-code"],
)
def test_a_daemon_that_lies_is_an_error_and_no_result(answer: bytes) -> None:
    daemon = LyingDaemon(answer)
    with contextlib.closing(daemon.listener):
        shell = AdbShell("adb:liar", connect_tcp("adb:liar", "127.0.0.1", daemon.port))
        with contextlib.closing(shell), pytest.raises(DeviceError, match=AT_ONCE):
            shell.open("echo hi").wait()


def test_something_that_is_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2 and more\r\n")
            time.sleep(3)

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(DeviceError, match="supports no direct connection"):
            connect_tcp("adb:x", "127.0.0.1", listener.getsockname()[1])


def test_something_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_link, "CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(adb_direct, "ACCEPT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TransientDeviceError, match="no answer"):
        connect_tcp("adb:x", "127.0.0.1", listener.getsockname()[1])
