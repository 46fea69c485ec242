"""Logging in to a real OpenSSH server: host keys, keys, agents, passwords."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import paramiko
import pytest
from support import sshd
from support.proxy import Proxy
from support.sshd import Me, Sshd, connect, make_key, spec_of

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.ssh.device import SshDevice
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError


def test_describe_and_an_address_that_is_nobody(ssh_server, me):
    with open_device(spec_of(ssh_server)) as device:
        assert device.describe().time
    with pytest.raises(DeviceError, match=r"cannot reach 127.0.0.1, port \d+: Connection refused") as no:
        open_device(f"ssh:127.0.0.1:{sshd.free_port()}").describe()
    assert not isinstance(no.value, TransientDeviceError), "nothing to wait for"
    with pytest.raises(DeviceError, match=r"cannot reach no\.such\.host\.invalid, port 22"):
        open_device("ssh:no.such.host.invalid").describe()


def test_an_unknown_host_key_is_accepted_by_its_fingerprint_only(ssh_server, me, caplog):
    me.known_hosts.unlink()
    with pytest.raises(DeviceError, match=r"is not known: ssh-ed25519 SHA256:") as no:
        connect(spec_of(ssh_server))
    found = re.search(r"--accept-host-key (\S+)$", str(no.value))
    assert found
    with pytest.raises(DeviceError, match="not SHA256:x"):
        connect(spec_of(ssh_server), accept_host_key="SHA256:x")
    assert not me.known_hosts.exists()
    connect(spec_of(ssh_server), accept_host_key=found[1]).close()
    connect(spec_of(ssh_server)).close()


def test_a_changed_host_key_is_refused(ssh_server, me, tmp_path):
    kind, key = make_key(tmp_path / "k").with_name("k.pub").read_text().split()[:2]
    me.known_hosts.write_text(f"[127.0.0.1]:{ssh_server.port} {kind} {key}\n")
    with pytest.raises(DeviceError, match=r"has CHANGED"):
        connect(spec_of(ssh_server), accept_host_key=sshd_fingerprint(ssh_server))


def sshd_fingerprint(server: Sshd) -> str:
    command = ["ssh-keygen", "-lf", str(server.host_key)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]


def test_of_several_host_keys_the_known_one_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    rsa = make_key(tmp_path / "rsa", "rsa")
    server = Sshd(tmp_path / "board", f"HostKey {rsa}").start()
    try:
        me = Me(tmp_path / "me", server)
        kind, key = rsa.with_name("rsa.pub").read_text().split()[:2]
        me.known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
        connect(spec_of(server)).close()
    finally:
        server.stop()


def test_a_key_that_is_not_let_in(ssh_server, me, monkeypatch):
    me.key.unlink()
    make_key(me.key.with_name("id_rsa"), "rsa")
    with pytest.raises(DeviceError, match=r"refused the login.*OFA_SSH_PASSWORD"):
        connect(spec_of(ssh_server))
    monkeypatch.setenv("OFA_SSH_PASSWORD", "wrong")
    with pytest.raises(DeviceError, match="refused the login"):
        connect(spec_of(ssh_server))


def test_without_any_key(ssh_server, me):
    me.key.unlink()
    with pytest.raises(DeviceError, match="refused the login"):
        connect(spec_of(ssh_server))


DAMAGED_KEYS = [b"", b"hello\n", b"\xa7\xff" * 99, b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", None]


@pytest.mark.parametrize("damage", DAMAGED_KEYS)
def test_a_key_that_is_damaged_does_not_stand_in_the_way_of_others(ssh_server, me, damage):
    content = me.key.read_bytes()[:200] if damage is None else damage
    bad = me.home / ".ssh" / "id_rsa"
    bad.write_bytes(content)
    connect(spec_of(ssh_server)).close()
    me.configure(f"Host *\n  IdentityFile {me.home}/other\n  IdentitiesOnly yes\n")
    bad.rename(me.home / "other")
    with pytest.raises(DeviceError, match=r"refused the login: .*; the key \S*/other cannot be read; copy your") as no:
        connect(spec_of(ssh_server))
    assert not isinstance(no.value, TransientDeviceError)


def test_a_certificate_that_is_damaged_does_not_stand_in_the_way_of_its_key(ssh_server, me):
    me.key.with_name("id_ed25519-cert.pub").write_text("no certificate\n")
    connect(spec_of(ssh_server)).close()
    (ssh_server.folder / "authorized_keys").rename(ssh_server.folder / "hidden")
    try:
        with pytest.raises(DeviceError, match=r"the certificate \S*/id_ed25519-cert.pub cannot be read"):
            connect(spec_of(ssh_server))
    finally:
        (ssh_server.folder / "hidden").rename(ssh_server.folder / "authorized_keys")


def test_a_board_that_lets_nobody_in_while_it_starts_is_waited_for(tmp_path, monkeypatch):
    """Linux's pam_nologin refuses every login until the system has started, though the server listens already."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    server = Sshd(tmp_path / "board")
    sshd.quick_python(server)
    server.start()
    keys = server.folder / "authorized_keys"
    try:
        Me(tmp_path / "me", server)
        said: list[str] = []

        def tell(line: str) -> None:
            said.append(line)
            keys.with_name("hidden").rename(keys)

        with open_device(spec_of(server), DeviceOptions(tell=tell)) as device:
            device.describe()
            device.close()
            keys.rename(keys.with_name("hidden"))
            assert device.describe().time
        assert len(said) == 1
        assert "refused the login" in said[0]
    finally:
        server.stop()


def test_a_key_with_a_passphrase(ssh_server, me, monkeypatch):
    me.key.unlink()
    key = make_key(me.home / ".ssh" / "locked", passphrase="open sesame")
    ssh_server.allow(key)
    me.configure(f"Host *\n  IdentityFile {key}\n")
    with pytest.raises(DeviceError, match=r"refused the login: .*; the key \S*/locked has a passphrase: ssh-add"):
        connect(spec_of(ssh_server))
    monkeypatch.setenv("OFA_SSH_PASSWORD", "wrong")
    with pytest.raises(DeviceError, match="refused the login"):
        connect(spec_of(ssh_server))
    monkeypatch.delenv("OFA_SSH_PASSWORD")
    asked = []

    def answer(question: str) -> str:
        asked.append(question)
        return "open sesame"

    device = SshDevice(spec_of(ssh_server), DeviceOptions(ask_password=answer))
    device.connect().close()
    device.connect().close()
    assert len(asked) == 1
    assert "@127.0.0.1" in asked[0]
    monkeypatch.setenv("OFA_SSH_PASSWORD", "open sesame")
    connect(spec_of(ssh_server)).close()


def test_a_key_of_the_agent(ssh_server, me, monkeypatch):
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"SSH_AUTH_SOCK=([^;]+);.*SSH_AGENT_PID=(\d+);", agent, re.DOTALL)
    assert found
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", found[1])
        subprocess.run(["ssh-add", "-q", str(me.key)], check=True, capture_output=True)
        me.key.unlink()
        connect(spec_of(ssh_server)).close()
    finally:
        sshd.kill(int(found[2]))


class PasswordServer(paramiko.ServerInterface):
    """Lets in whoever knows the word; Debian's server would need an account with a password."""

    def __init__(self, heard: list[str], *, is_open: bool) -> None:
        self.heard, self.is_open = heard, is_open

    def check_auth_none(self, username: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL if self.is_open else paramiko.common.AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        self.heard.append(password)
        good = (username, password) == ("pi", "raspberry")
        return paramiko.common.AUTH_SUCCESSFUL if good else paramiko.common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password"


@contextlib.contextmanager
def password_server(me: Me, heard: list[str], *, is_open: bool = False) -> Iterator[int]:
    """A server for passwords, or for everybody; `heard` gets the passwords. Its host key is known."""
    key = paramiko.ECDSAKey.generate()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    transport = paramiko.Transport(listener.accept()[0])
                    transport.add_server_key(key)
                    transport.start_server(server=PasswordServer(heard, is_open=is_open))

        threading.Thread(target=serve, daemon=True).start()
        me.known_hosts.write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")
        yield port


def test_a_password_from_the_environment_or_asked_for(me, monkeypatch):
    with password_server(me, []) as port:
        spec = f"ssh:pi@127.0.0.1:{port}"
        with pytest.raises(DeviceError, match="refused the login"):
            connect(spec)
        with pytest.raises(DeviceError, match="refused the login"):
            connect(spec, ask_password=lambda question: "wrong")
        connect(spec, ask_password=lambda question: "raspberry").close()
        monkeypatch.setenv("OFA_SSH_PASSWORD", "raspberry")
        connect(spec).close()


def test_the_password_of_the_board_is_not_offered_to_a_jump_host(ssh_server, me, monkeypatch):
    monkeypatch.setenv("OFA_SSH_PASSWORD", "raspberry")
    heard: list[str] = []
    with password_server(me, heard) as port:
        me.configure(f"Host board\n  HostName 127.0.0.1\n  ProxyJump pi@127.0.0.1:{port}\n")
        with pytest.raises(DeviceError, match=r"pi@127.0.0.1 refused the login.*\(ssh-copy-id\)$"):
            connect("ssh:board")
        assert heard == []
        asked: list[str] = []

        def answer(question: str) -> str:
            asked.append(question)
            return "wrong"

        with pytest.raises(DeviceError, match="refused the login"):
            connect("ssh:board", ask_password=answer)
        assert heard == ["wrong"]
        assert "pi@127.0.0.1" in asked[0]


def test_a_board_that_asks_for_nothing(me):
    """Boards with an empty password for root let everybody in."""
    me.key.unlink()
    with password_server(me, [], is_open=True) as port:
        connect(f"ssh:root@127.0.0.1:{port}").close()


def test_an_alias_with_a_jump_over_another_server(ssh_server, me, tmp_path):
    door = Sshd(tmp_path / "door")
    door.allow(me.key)
    door.start()
    try:
        me.configure(
            f"Host board\n  HostName 127.0.0.1\n  Port {ssh_server.port}\n  ProxyJump door\n"
            f"Host door\n  HostName 127.0.0.1\n  Port {door.port}\n"
        )
        with pytest.raises(DeviceError, match=rf"the host key of \[127.0.0.1\]:{door.port} is not known"):
            connect("ssh:board")
        me.know(door)
        shell = connect("ssh:board")
        assert shell.run(["sh", "-c", "echo $SSH_CONNECTION"]).stdout.split()[3] == str(ssh_server.port).encode()
        assert shell.run(["cat"], b"y" * 500_000).stdout == b"y" * 500_000
    finally:
        door.stop()
    with pytest.raises(TransientDeviceError):
        shell.run(["true"])
    shell.close()


def test_one_who_is_not_an_ssh_server(me):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" * 200)
            connection.close()

        threading.Thread(target=speak, daemon=True).start()
        with pytest.raises(DeviceError, match="cannot reach"):
            open_device(f"ssh:127.0.0.1:{listener.getsockname()[1]}").describe()


def test_a_connection_that_is_cut_is_no_exit_code(ssh_server, me):
    proxy = Proxy(ssh_server.port)
    me.know(ssh_server, proxy.port)
    shell = connect(f"ssh:127.0.0.1:{proxy.port}")
    running = shell.spawn([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"])
    assert running.output.read_line(100) == b"1\n"
    proxy.cut()
    with pytest.raises(TransientDeviceError, match="connection is lost"):
        running.output.read_line(100)
    with pytest.raises(TransientDeviceError, match="connection is lost"):
        running.process.wait()
    with pytest.raises(TransientDeviceError):
        shell.run(["true"])
    shell.close()
    proxy.close()


def test_a_link_that_goes_silent_is_noticed(ssh_server, me, monkeypatch):
    proxy = Proxy(ssh_server.port)
    me.know(ssh_server, proxy.port)
    shell = connect(f"ssh:127.0.0.1:{proxy.port}")
    running = shell.spawn([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"])
    assert running.output.read_line(100) == b"1\n"
    monkeypatch.setattr("ofa_profiler.devices.remote.shell.SILENCE_S", 2.0)
    proxy.stall()
    with pytest.raises(TransientDeviceError, match="no output for 2 s"):
        running.output.read_line(100)
    shell.close()
    proxy.close()


def test_paramiko_says_nothing_on_stderr(me, capfd):
    assert logging.getLogger("paramiko").handlers
    with pytest.raises(DeviceError):
        open_device(f"ssh:127.0.0.1:{sshd.free_port()}").describe()
    assert capfd.readouterr().err == ""


def test_a_bad_name_is_bad_usage():
    with pytest.raises(UsageError):
        open_device("ssh:")


@pytest.mark.slow
def test_the_command_refuses_and_accepts_a_host_key_in_one_line(ssh_server, me, tmp_path):
    me.known_hosts.unlink()
    command = [
        sys.executable,
        "-m",
        "ofa_profiler.cli.profile",
        "--device",
        spec_of(ssh_server),
        "--out",
        str(tmp_path / "out"),
    ]
    more = ["--resolution", "24", "--time-limit", "1ms", "--no-calibration", "--runtime-on-board", "system"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    *_, option, key = refused.stderr.split()
    accepted = subprocess.run([*command, *more, option, key], capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stderr
    assert len(list((tmp_path / "out").glob("*.csv"))) == 1
    assert subprocess.run([*command, *more], capture_output=True, check=False).returncode == 0, "and it is remembered"
