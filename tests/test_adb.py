"""Phones through the adb daemon and through an adb server: commands, faults, keys, hostile answers."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from adb_shell.exceptions import UsbReadFailedError
from faulty_proxy import FaultyProxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phones import Phone
from sshd import free_port

from ofa_profiler.devices import DeviceOptions, adb_bridge, adb_direct, adb_link, open_device
from ofa_profiler.devices.adb import ROOT, AdbDevice, AdbShell, attached_phones, which_phone
from ofa_profiler.devices.adb_bridge import Stream
from ofa_profiler.devices.adb_direct import connect_tcp
from ofa_profiler.devices.adb_keys import load_signer, public_key_text
from ofa_profiler.devices.adb_link import AdbLink, WholeTcpTransport
from ofa_profiler.devices.adb_process import AdbProcess
from ofa_profiler.devices.adb_server import AdbServerBridge, find_server
from ofa_profiler.devices.android_state import AndroidState, restore_state
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError


@pytest.fixture(scope="module", autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own for keys, and no adb server that somebody else runs."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        yield home


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Phone(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


def shell_to(spec: str) -> AdbShell:
    return AdbDevice(spec, DeviceOptions()).connect()


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


# --- commands -----------------------------------------------------------------------------------------


def test_a_command_gives_its_output_its_errors_and_its_exit_code_apart(shell: AdbShell) -> None:
    done = shell.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", "err\n")


def test_a_program_that_is_not_there_says_so(shell: AdbShell) -> None:
    done = shell.run(["no-such-program"])
    assert done.exit_code == 127
    assert "no-such-program" in done.stderr


def test_bytes_pass_unchanged_in_both_directions(shell: AdbShell) -> None:
    # Line ends, control characters and what a terminal would take for an end of input among them.
    data = bytes(range(256)) * 20 + random.Random(0).randbytes(3 << 20)
    assert shell.run(["cat"], data).stdout == data


def test_a_large_input_arrives_whole(shell: AdbShell) -> None:
    data = random.Random(1).randbytes(12 << 20)
    assert shell.run(["sha256sum"], data).stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_a_program_that_does_not_read_its_input_does_not_block(shell: AdbShell) -> None:
    done = shell.run(["sh", "-c", "exit 5"], b"x" * (4 << 20))
    assert done.exit_code == 5


def test_several_programs_run_at_once(shell: AdbShell) -> None:
    running = [shell.spawn(["sh", "-c", f"read line; echo {number} $line"]) for number in range(5)]
    for number, one in reversed(list(enumerate(running))):
        one.process.write(b"hello\n")
        assert one.output.read_line(100) == f"{number} hello\n".encode()
        assert one.process.wait() == 0
        one.process.close()


def test_silence_is_no_failure_and_the_phone_is_asked_meanwhile(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_bridge, "_PING_EVERY_S", 0.2)
    with contextlib.closing(shell_to(phone.spec)) as shell:
        asked = []
        bridge = shell._bridge
        ping = bridge.ping
        monkeypatch.setattr(bridge, "ping", lambda: (asked.append(1), ping()))
        assert shell.run(["sh", "-c", "sleep 3; echo done"]).stdout == b"done\n"
        assert len(asked) >= 5


def test_output_that_nobody_reads_waits_on_the_phone(phone: Phone) -> None:
    with contextlib.closing(shell_to(phone.spec)) as shell:
        running = shell.spawn(["cat", "/dev/zero"])
        time.sleep(1.0)
        stream: Any = running.process._stream
        assert sum(map(len, stream._packets)) < 4 << 20
        running.process.close()
        assert shell.run(["echo", "still", "there"]).stdout == b"still there\n"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    words=st.lists(
        st.one_of(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
            st.text(" '\"\\$();|&<>`*?[]{}~!#\n\t\r=%-", max_size=12),
            st.sampled_from(["", "$(id)", "'; rm -rf /; '", "a b", "~", "*", "\n", "é漢字🙂", "-n", "\\", "$PATH"]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_arguments_reach_a_program_unchanged(quoting_shell: AdbShell, words: list[str]) -> None:
    done = quoting_shell.run(["printf", "%s\\0", *words])
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words), done.stderr


@pytest.fixture(scope="module")
def quoting_shell(phone: Phone) -> Iterator[AdbShell]:
    with contextlib.closing(shell_to(phone.spec)) as shell:
        yield shell


def test_a_zero_byte_in_an_argument_is_refused(shell: AdbShell) -> None:
    with pytest.raises(DeviceError, match="zero byte"):
        shell.run(["echo", "a\0b"])


class Chunks(Stream):
    """A stream that gives its bytes in pieces of any size."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes = data, itertools.cycle(sizes)

    def read(self, limit: int, silence_s: float) -> bytes:
        size = min(limit, next(self._sizes))
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def write(self, data: bytes) -> None:
        raise AssertionError(data)

    def close(self) -> None:
        self._data = b""


PACKETS = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8)


@given(packets=PACKETS, code=st.integers(0, 255), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_packets_are_put_together_however_they_come(
    packets: list[tuple[int, bytes]], code: int, sizes: list[int]
) -> None:
    whole = b"".join(struct.pack("<BI", kind, len(body)) + body for kind, body in [*packets, (3, bytes([code]))])
    process = AdbProcess("adb:x", Chunks(whole, sizes))
    stdout = b"".join(iter(lambda: process.read(7), b""))
    assert stdout == b"".join(body for kind, body in packets if kind == 1)
    assert process.wait() == code
    assert process.last_words() == b"".join(body for kind, body in packets if kind == 2).decode("utf-8", "replace")
    cut = AdbProcess("adb:x", Chunks(whole[:-1], sizes))
    with pytest.raises(TransientDeviceError):
        cut.wait()


@given(data=st.binary(max_size=200), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_no_bytes_make_it_fail_in_another_way(data: bytes, sizes: list[int]) -> None:
    process = AdbProcess("adb:x", Chunks(data, sizes))
    with contextlib.suppress(DeviceError):
        assert 0 <= process.wait() <= 255


# --- the short write, and a phone that hangs up -------------------------------------------------------


def test_a_slow_link_loses_nothing(phone: Phone) -> None:
    """The kernel takes a part of what is sent; adb-shell's own transport forgets the rest."""
    proxy = FaultyProxy(phone.port)
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


@pytest.fixture
def own_phone(tmp_path: Path) -> Iterator[Phone]:
    """A phone for a test that breaks it."""
    with Phone(tmp_path) as phone:
        yield phone


#: Found out by something else than 45 s of silence. Durations are not asserted: a busy machine takes its time.
AT_ONCE = r"^(?!.*no sign of life)"


def test_a_daemon_that_dies_is_noticed_at_once(own_phone: Phone) -> None:
    with contextlib.closing(shell_to(own_phone.spec)) as shell:
        running = shell.spawn(["cat"])
        threading.Timer(0.5, own_phone.kill).start()
        with pytest.raises(TransientDeviceError, match=AT_ONCE):
            running.output.read_line(100)
        with pytest.raises(TransientDeviceError):
            shell.run(["true"])


def test_a_dead_link_is_noticed_by_asking(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_bridge, "_PING_EVERY_S", 0.5)
    monkeypatch.setattr(AdbLink.ping, "__defaults__", (2.0,))
    proxy = FaultyProxy(phone.port)
    with contextlib.closing(proxy), contextlib.closing(shell_to(f"adb:127.0.0.1:{proxy.port}")) as shell:
        running = shell.spawn(["cat"])
        proxy.stalled = True
        with pytest.raises(TransientDeviceError, match="does not answer"):
            running.output.read_line(100)


def test_a_cut_during_a_push_is_an_error_that_may_be_tried_again(phone: Phone) -> None:
    proxy = FaultyProxy(phone.port)
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


# --- keys ---------------------------------------------------------------------------------------------


def test_a_key_is_made_for_us_alone_and_is_the_same_afterwards(tmp_path: Path) -> None:
    path = tmp_path / ".android" / "adbkey"
    signer = load_signer(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = path.with_name("adbkey.pub").read_text()
    assert public.endswith("\n")
    assert public.count("\n") == 1
    assert public.strip() == signer.GetPublicKey() == load_signer(path).GetPublicKey()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["adbkey", "adbkey.pub"]


def test_the_public_key_is_what_google_s_adb_makes_of_it(tmp_path: Path) -> None:
    program = shutil.which("adb")
    if program is None:
        pytest.skip("needs Google's adb (apt-get install adb)")
    path = tmp_path / "adbkey"
    subprocess.run([program, "keygen", str(path)], check=True, capture_output=True)
    assert public_key_text(path).split()[0] == path.with_name("adbkey.pub").read_text().split()[0]
    load_signer(path)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_broken_key_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "adbkey"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not an RSA key"):
        load_signer(path)


def test_an_unauthorized_phone_says_what_to_do_and_works_once_allowed(
    tmp_path: Path, private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_direct, "ACCEPT_TIMEOUT_S", 2.0)
    told: list[str] = []
    with Phone(tmp_path, "--auth") as phone:
        with pytest.raises(DeviceError, match="look at its screen, accept") as caught:
            AdbDevice(phone.spec, DeviceOptions(tell=told.append)).connect()
        assert not isinstance(caught.value, TransientDeviceError)
        assert len(told) == 1
        assert "accept" in told[0]
        phone.allow(private_home / ".android" / "adbkey.pub")
        with contextlib.closing(shell_to(phone.spec)) as shell:
            assert shell.run(["echo", "hi"]).stdout == b"hi\n"


# --- which phone --------------------------------------------------------------------------------------


def test_adb_alone_lists_the_phones_of_the_server(phone: Phone, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server))
    with pytest.raises(UsageError, match=phone.spec):
        open_device("adb:")


def test_states_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    phones = {"ABC": "device", "DEF": "unauthorized", "\x1b[31mevil\n" * 3: "weird"}
    monkeypatch.setattr("ofa_profiler.devices.adb.attached_phones", lambda: phones)
    words = which_phone()
    assert "adb:ABC," in words
    assert "adb:DEF (not allowed yet" in words
    assert words.isprintable()


def test_without_server_and_usb_it_says_how_to_attach_one() -> None:
    assert find_server() is None
    words = which_phone()
    assert "adb:HOST:PORT" in words
    assert "\n" not in words


@pytest.mark.parametrize("spec", ["adb:host:", "adb::5555", "adb:host:0", "adb:host:70000", "adb:host:५"])
def test_an_address_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="adb:HOST:PORT"):
        open_device(spec).describe()


def test_a_serial_that_is_not_attached(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server))
    with pytest.raises(DeviceError, match="no such phone is attached"):
        open_device("adb:NOSUCH").describe()
    assert list(attached_phones().values()) == ["device"]


def test_a_port_where_nothing_listens_is_told_at_once() -> None:
    with pytest.raises(DeviceError, match="nothing listens there") as no:
        open_device(f"adb:127.0.0.1:{free_port()}").describe()
    assert not isinstance(no.value, TransientDeviceError), "nothing to wait for"


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
        with pytest.raises(DeviceError, match="cannot be used directly"):
            connect_tcp("adb:x", "127.0.0.1", listener.getsockname()[1])


def test_something_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_link, "CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(adb_direct, "ACCEPT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TransientDeviceError, match="no answer"):
        connect_tcp("adb:x", "127.0.0.1", listener.getsockname()[1])


# --- the phone's state --------------------------------------------------------------------------------

FIXED, AWAKE = "data/local/fixed_performance_mode", "data/local/stay_on"


def state(phone: Phone) -> tuple[str, str]:
    return phone.text(FIXED), phone.text(AWAKE)


def wait_for(condition: Any, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_state_is_set_and_set_back(shell: AdbShell, phone: Phone) -> None:
    with AndroidState(shell, ROOT) as held:
        assert held.settings == {"fixed_performance_mode": True, "stay_awake": True}
        assert state(phone) == ("true", "true")
    assert state(phone) == ("false", "false")
    assert not (phone.root / ROOT[1:] / "state-before").exists()


def test_the_state_is_set_back_when_the_connection_is_lost(phone: Phone) -> None:
    proxy = FaultyProxy(phone.port)
    with contextlib.closing(proxy):
        shell = shell_to(f"adb:127.0.0.1:{proxy.port}")
        with contextlib.closing(shell), AndroidState(shell, ROOT):
            assert state(phone) == ("true", "true")
            proxy.cut()
            wait_for(lambda: state(phone) == ("false", "false"))


def test_the_state_is_set_back_by_the_next_run_when_the_phone_went_off(own_phone: Phone) -> None:
    with contextlib.closing(shell_to(own_phone.spec)) as shell, AndroidState(shell, ROOT):
        own_phone.kill()
    assert state(own_phone) == ("true", "true")
    own_phone.start()
    with contextlib.closing(shell_to(own_phone.spec)) as shell:
        with AndroidState(shell, ROOT):
            assert state(own_phone) == ("true", "true")
        assert state(own_phone) == ("false", "false")


def test_a_run_that_comes_after_takes_the_state_over(phone: Phone) -> None:
    """The phone may notice late, or never, that an earlier connection is dead."""
    with contextlib.closing(shell_to(phone.spec)) as first, contextlib.closing(shell_to(phone.spec)) as second:
        earlier, later = AndroidState(first, ROOT), AndroidState(second, ROOT)
        with later:
            pass
        earlier.__enter__()
        later.__enter__()
        earlier.__exit__()
        assert state(phone) == ("true", "true")
        later.__exit__()
        assert state(phone) == ("false", "false")
        assert not list((phone.root / ROOT[1:]).glob("state-before*"))


def test_removing_sets_the_state_back_and_leaves_nothing(own_phone: Phone) -> None:
    with contextlib.closing(shell_to(own_phone.spec)) as shell, AndroidState(shell, ROOT):
        own_phone.kill()
    own_phone.start()
    AdbDevice(own_phone.spec, DeviceOptions()).remove()
    assert state(own_phone) == ("false", "false")
    assert not (own_phone.root / ROOT[1:]).exists()


def test_a_system_without_the_modes_is_measured_all_the_same(own_phone: Phone) -> None:
    for name in ("cmd", "svc"):
        (own_phone.root / "system/bin" / name).unlink()
    with contextlib.closing(shell_to(own_phone.spec)) as shell:
        with AndroidState(shell, ROOT) as held:
            assert held.settings == {"fixed_performance_mode": False, "stay_awake": False}
        restore_state(shell, ROOT)


def test_the_setting_for_staying_awake_gets_its_own_value_back(own_phone: Phone) -> None:
    program = own_phone.root / "system/bin/settings"
    program.write_text(
        '#!/system/bin/sh\nf=/data/local/$3\ncase $1 in get) cat $f;; put) print -r -- "$4" > $f;; *) exit 1;; esac\n'
    )
    program.chmod(0o755)
    setting = own_phone.root / "data/local/stay_on_while_plugged_in"
    setting.write_text("6\n")
    os.chown(setting, 2000, 2000)
    with contextlib.closing(shell_to(own_phone.spec)) as shell, AndroidState(shell, ROOT):
        setting.write_text("7\n")
    assert setting.read_text() == "6\n"
