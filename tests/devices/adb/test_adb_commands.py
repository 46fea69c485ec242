"""Commands on a phone, through its own daemon and through an adb server."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.phones import Phone, shell_to

from ofa_profiler.devices.adb import bridge as adb_bridge
from ofa_profiler.devices.adb.bridge import Stream
from ofa_profiler.devices.adb.process import AdbProcess
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.errors import DeviceError, TransientDeviceError

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


@pytest.mark.slow
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
