"""Command lines on a board, through a real OpenSSH server and whatever shell is there."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sshd import Me, Sshd, connect, spec_of

from ofa_profiler.devices import DeviceOptions
from ofa_profiler.devices.remote.shell import Shell
from ofa_profiler.devices.ssh.device import SshDevice
from ofa_profiler.errors import DeviceError, TransientDeviceError

ECHO = "import json,sys; print(json.dumps([[ord(c) for c in a] for a in sys.argv[1:]]))"


@pytest.fixture
def shell(ssh_server: Sshd, me: Me) -> Iterator[Shell]:
    shell = connect(spec_of(ssh_server))
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def long_shell(ssh_server: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("me")
        patch.setenv("HOME", str(home))
        Me(home, ssh_server)
        shell = connect(spec_of(ssh_server))
        yield shell
        shell.close()


NASTY = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "`id`",
    "$(id)",
    "${HOME}",
    ";id",
    "a;b|c&d>e<f",
    "\n",
    "a\nb\n",
    "\\",
    "\\n",
    "!!",
    "#",
]
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [*NASTY, "~", "*", "?", "[a]", "{a,b}", "-n", "--", "=", "\t", "\r", "\x1b[2J", "é", "日本", "😀", "a'b\"c$d"]
)


@settings(max_examples=60, deadline=None)
@given(words=st.lists(WORDS, max_size=6))
def test_words_reach_a_program_unchanged(long_shell, words):
    done = long_shell.run([sys.executable, "-c", ECHO, *words])
    assert done.exit_code == 0
    assert ["".join(map(chr, word)) for word in json.loads(done.stdout)] == words


def test_a_zero_byte_is_refused(shell):
    with pytest.raises(DeviceError, match="zero byte"):
        shell.run(["echo", "a\0b"])


def test_input_output_errors_and_exit_codes(shell):
    program = "import sys; d = sys.stdin.buffer.read(); sys.stderr.write('wo\\nrds'); print(len(d)); sys.exit(7)"
    done = shell.run([sys.executable, "-c", program], b"x" * 3_000_000)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"3000000\n", "wo\nrds")


def test_large_output_and_much_stderr_at_once(shell):
    program = "import sys\nfor _ in range(300): sys.stdout.write('o' * 10000); sys.stderr.write('e' * 20000)"
    done = shell.run([sys.executable, "-c", program])
    assert done.stdout == b"o" * 3_000_000
    assert set(done.stderr) == {"e"}


def test_a_program_that_does_not_read_its_input(shell):
    done = shell.run([sys.executable, "-c", "print(1)"], b"x" * 8_000_000)
    assert (done.exit_code, done.stdout) == (0, b"1\n")


def test_a_program_that_was_killed_has_no_exit_code(shell):
    done = shell.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert done.exit_code == -1


def test_a_program_that_is_not_there(shell):
    assert shell.run(["no-such-program"]).exit_code == 127


def test_what_login_scripts_print_is_dropped(ssh_server, shell):
    rc = Path(ssh_server.folder / "home" / ".ssh" / "rc")
    rc.parent.mkdir(exist_ok=True)
    rc.write_text("echo Welcome to the board\nprintf 'no line end: '\n")
    try:
        assert b"Welcome" in subprocess.run(["sh", str(rc)], capture_output=True, check=True).stdout
        done = shell.run(["echo", "mine"])
    finally:
        rc.unlink()
    assert done.stdout == b"mine\n"


def test_who_may_not_run_commands_is_told_what_the_server_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    server = Sshd(tmp_path / "board", "ForceCommand echo This account is not available; exit 1").start()
    try:
        Me(tmp_path / "me", server)
        with pytest.raises(DeviceError, match=r"shell ended \(exit code 1\): This account is not available$"):
            connect(spec_of(server)).run(["true"])
    finally:
        server.stop()


@pytest.mark.parametrize("login_shell", ["bash", "dash", "zsh", "tcsh", "fish"])
def test_words_reach_a_program_unchanged_whatever_the_login_shell(tmp_path, monkeypatch, login_shell):
    if shutil.which(login_shell) is None:
        pytest.skip(f"needs {login_shell}")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    server = Sshd(tmp_path / "board", f'ForceCommand {login_shell} -c "$SSH_ORIGINAL_COMMAND"').start()
    words = [*NASTY, "a!b", "!$", "\\\\", "\\'", "a\\", "\\!", "'!'\n", "\\0041", "%b", "^a^b", "é😀", "\udcff"]
    try:
        Me(tmp_path / "me", server)
        shell = connect(spec_of(server))
        done = shell.run([sys.executable, "-c", ECHO, *words])
        assert ["".join(map(chr, word)) for word in json.loads(done.stdout)] == words
        for word in ("!!", "a\nb", "\\", "a\\"):  # what one undoes in another is not seen when all go together
            done = shell.run([sys.executable, "-c", ECHO, word])
            assert json.loads(done.stdout) == [[ord(character) for character in word]], word
        shell.close()
    finally:
        server.stop()


def test_a_login_script_that_waits_for_input_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setattr("ofa_profiler.devices.remote.shell.SILENCE_S", 2.0)
    server = Sshd(tmp_path / "board", 'ForceCommand read -r answer; sh -c "$SSH_ORIGINAL_COMMAND"').start()
    try:
        Me(tmp_path / "me", server)
        with pytest.raises(TransientDeviceError, match=r"no output for 2 s, .* login script there waits for input"):
            connect(spec_of(server)).run(["true"])
    finally:
        server.stop()


def take_the_only_place(server: Sshd) -> socket.socket:
    deadline = time.monotonic() + 300
    while True:  # whoever asked last whether it listens may still have it
        other = socket.create_connection((server.address, server.port))
        if other.recv(100).startswith(b"SSH"):
            return other
        other.close()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_with_too_many_logins_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    server = Sshd(tmp_path / "board", "MaxStartups 1").start()
    try:
        Me(tmp_path / "me", server)
        words = r"cannot reach .*too many logins at the same time \(MaxStartups\)$"
        with take_the_only_place(server), pytest.raises(TransientDeviceError, match=words):
            SshDevice(spec_of(server), DeviceOptions()).open_shell()
    finally:
        server.stop()


@pytest.mark.parametrize("sessions", [0, 1])
def test_a_server_with_room_for_one_program_at_a_time(tmp_path, monkeypatch, sessions):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setattr("ofa_profiler.devices.ssh.shell._SESSION_TIMEOUT_S", 0.2 + 20 * sessions)
    server = Sshd(tmp_path / "board", f"MaxSessions {sessions}").start()
    try:
        Me(tmp_path / "me", server)
        shell = connect(spec_of(server))
        if sessions:
            assert [shell.run(["echo", str(i)]).stdout for i in range(5)] == [b"%d\n" % i for i in range(5)]
        else:
            with pytest.raises(DeviceError, match=r"opens no session .*MaxSessions"):
                shell.run(["true"])
        shell.close()
    finally:
        server.stop()
