"""Logins with the user's configuration, beside those that `ssh` itself makes with it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sshd
from support.agents import wait_for
from support.sshd import Me, Sshd, connect, make_key

from ofa_profiler.errors import DeviceError

RELAY = """
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        link.sendall(data)
    os._exit(0)
threading.Thread(target=up, daemon=True).start()
while data := link.recv(65536):
    os.write(1, data)
"""
PASS = """
import socket, sys
out = socket.socket(fileno=1)
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
socket.send_fds(out, [b"x"], [link.fileno()])
"""


def logins(log: str) -> list[tuple[str, str, str]]:
    """User, address and key of each login."""
    words = r"Accepted publickey for (\S+) from (\S+) port \d+ ssh2: (.*)"
    return [(found[1], found[2], found[3]) for found in re.finditer(words, log)]


def both(me: Me, server: Sshd, text: str, name: str = "board") -> tuple[str, str, str]:
    """Log in with `ssh` and ourselves, and return what the server has seen, which must be the same."""
    me.configure(text)
    theirs = me.home / "theirs"
    # ssh would take the home folder of the password file.
    default = "" if "IdentityFile" in text else f"\nMatch all\n  IdentityFile {me.key}\n"
    theirs.write_text(text.replace("~", str(me.home)) + default)
    start = len(server.log)
    command = ["ssh", "-F", str(theirs), "-o", f"UserKnownHostsFile={me.known_hosts}", "-o", "BatchMode=yes", name]
    result = subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    middle = len(server.log)
    connect(f"ssh:{name}").close()
    (expected,), (found,) = logins(server.log[start:middle]), logins(server.log[middle:])
    assert found == expected
    return found


def block(server: Sshd, *lines: str) -> str:
    return "\n".join(["Host board # mine", "  HostName 127.0.0.1 # here", f"  Port {server.port}", *lines, ""])


def shown(key: Path) -> str:
    command = ["ssh-keygen", "-lf", f"{key}.pub"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]


def answers(path: Path) -> bool:
    """Whether a program listens at a socket, which is there before one does."""
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(path)) == 0


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "my agent.sock"
    environment = {**os.environ, "SSH_ASKPASS": "/bin/false", "DISPLAY": ":0"}  # it never gets a confirmation
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, env=environment)
    wait_for(lambda: answers(path), timeout_s=20)
    yield path
    process.kill()
    process.wait()


def add(agent: Path, key: Path, *options: str) -> None:
    """Give a key to the agent; one with the passphrase `open sesame`, too."""
    ask = agent.with_name("ask")
    ask.write_text("#!/bin/sh\necho open sesame\n")
    ask.chmod(0o755)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(agent), "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", *options, str(key)], env=environment, check=True, capture_output=True)


def allowed_key(me: Me, server: Sshd, name: str, kind: str = "ed25519", passphrase: str = "") -> Path:
    key = make_key(me.home / ".ssh" / name, kind, passphrase)
    server.allow(key)
    return key


@pytest.fixture(scope="module")
def rsa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that takes long to make."""
    return make_key(tmp_path_factory.mktemp("keys") / "rsa", "rsa")


def copied(key: Path, path: Path) -> Path:
    for suffix in ("", ".pub"):
        shutil.copy(f"{key}{suffix}", f"{path}{suffix}")
    return path


def test_which_key_of_several(ssh_server, me):
    make_key(me.home / ".ssh" / "stranger")
    second = allowed_key(me, ssh_server, "second", "ecdsa")
    config = block(ssh_server, "  IdentityFile ~/.ssh/stranger # not there", "  IdentityFile ~/.ssh/second")
    assert both(me, ssh_server, config)[2].endswith(shown(second))
    assert both(me, ssh_server, block(ssh_server))[2].endswith(shown(me.key))


def test_default_keys_are_not_tried_beside_those_of_the_configuration(ssh_server, me):
    make_key(me.home / ".ssh" / "stranger")
    me.configure(block(ssh_server, "  IdentityFile ~/.ssh/stranger"))
    with pytest.raises(DeviceError, match=r"takes none of these: key \(ssh-ed25519 SHA256:"):
        connect("ssh:board")


@pytest.mark.parametrize("with_public", [True, False])
def test_a_locked_key_in_the_agent_with_identities_only(ssh_server, me, agent, monkeypatch, with_public):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    for number in range(8):  # more than the server's MaxAuthTries
        add(agent, make_key(me.home / f"other{number}"))
    locked = allowed_key(me, ssh_server, "locked", passphrase="open sesame")
    add(agent, locked)
    if not with_public:
        locked.with_name("locked.pub").rename(me.home / "locked.pub")
    config = "Host *\n  IdentitiesOnly yes\n" + block(ssh_server, "  IdentityFile ~/.ssh/locked")
    fingerprint = both(me, ssh_server, config)[2]
    assert fingerprint.endswith(shown(locked if with_public else me.home / "locked"))
    me.configure(block(ssh_server, "  IdentityFile ~/.ssh/none", "  IdentityAgent none"))
    with pytest.raises(DeviceError, match=r"there is no key to offer; the key \S*/none does not exist"):
        connect("ssh:board")


@pytest.mark.parametrize("name", ["id_yk.pub", "id_yk"])
def test_a_public_key_chooses_one_of_the_agent(ssh_server, me, agent, monkeypatch, name):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    add(agent, me.key)
    key = allowed_key(me, ssh_server, "id_yk")
    add(agent, key)
    key.unlink()
    config = "IdentitiesOnly yes\n" + block(ssh_server, f"  IdentityFile ~/.ssh/{name}")
    assert both(me, ssh_server, config)[2].endswith(shown(key))
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(DeviceError, match="the agent does not hold the key of"):
        connect("ssh:board")


@pytest.mark.parametrize("form", ['"{}"', "$OUR_AGENT", "SSH_AUTH_SOCK"])
def test_the_agent_of_the_configuration(ssh_server, me, rsa, agent, monkeypatch, form):
    monkeypatch.setenv("OUR_AGENT", str(agent))
    if form == "SSH_AUTH_SOCK":
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    me.key.unlink()
    key = copied(rsa, me.home / ".ssh" / "held")
    ssh_server.allow(key)
    add(agent, key)
    key.rename(me.home / "elsewhere")
    assert both(me, ssh_server, block(ssh_server, f"  IdentityAgent {form.format(agent)}"))[2].endswith(shown(key))


def test_an_agent_that_is_none(ssh_server, me):
    me.key.rename(me.home / "elsewhere")
    me.configure(block(ssh_server, "  IdentityAgent ~/nowhere.sock"))
    with pytest.raises(DeviceError, match=r"no ssh agent answers at \S*/nowhere.sock \(No such file"):
        connect("ssh:board")


def test_an_agent_that_does_not_sign(ssh_server, me, agent, monkeypatch):
    """Because nobody confirms, or a hardware key is not there: the next key has its turn."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    add(agent, allowed_key(me, ssh_server, "guarded"), "-c")
    assert both(me, ssh_server, block(ssh_server))[2].endswith(shown(me.key))
    me.key.unlink()
    with pytest.raises(DeviceError, match="with which the agent does not sign"):
        connect("ssh:board")


def test_too_many_keys(ssh_server, me, agent, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    for number in range(8):
        add(agent, make_key(me.home / f"other{number}"))
    with pytest.raises(
        DeviceError, match=r"closed the connection after \d keys \(MaxAuthTries there\); in ~/.ssh/config"
    ):
        connect(sshd.spec_of(ssh_server))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_keys_in_pkcs8(ssh_server, me, rsa, monkeypatch, kind, passphrase):
    key = copied(rsa, me.home / ".ssh" / "id") if kind == "rsa" else make_key(me.home / ".ssh" / "id", kind)
    ssh_server.allow(key)
    command = ["ssh-keygen", "-q", "-p", "-m", "PKCS8", "-N", passphrase, "-f", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    assert b"PRIVATE KEY" in key.read_bytes().splitlines()[0]
    config = block(ssh_server, "  IdentityFile ~/.ssh/id")
    if not passphrase:
        assert both(me, ssh_server, config)[2].endswith(shown(key))
        return
    me.configure(config)
    with pytest.raises(DeviceError, match="has a passphrase"):
        connect("ssh:board")
    monkeypatch.setenv("OFA_SSH_PASSWORD", passphrase)
    connect("ssh:board").close()


def test_a_key_of_putty_is_named(ssh_server, me):
    (me.home / "key.ppk").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    me.configure(block(ssh_server, "  IdentityFile ~/key.ppk"))
    with pytest.raises(DeviceError, match="puttygen -O private-openssh"):
        connect("ssh:board")


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.parametrize("place", ["beside", "file", "agent"])
def test_a_certificate(tmp_path, me, rsa, agent, monkeypatch, kind, place):
    authority = make_key(tmp_path / "authority")
    server = Sshd(tmp_path / "board", f"TrustedUserCAKeys {authority}.pub")
    sshd.quick_python(server)
    server.start()
    try:
        me.know(server)
        key = me.home / ".ssh" / "signed"
        key = copied(rsa, key) if kind == "rsa" else make_key(key)
        sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", server.user, f"{key}.pub"]
        subprocess.run(sign, check=True, capture_output=True)
        certificate = key.with_name("signed-cert.pub")
        lines = ["  IdentityFile ~/.ssh/signed"]
        if place == "agent":
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
            add(agent, key)
            lines = []
            key.unlink()
        elif place == "file":
            certificate.rename(me.home / "my-cert.pub")
            lines.append("  CertificateFile ~/my-cert.pub")
        assert "-CERT" in both(me, server, block(server, *lines))[2]
    finally:
        server.stop()


def test_from_which_address(ssh_server, me):
    assert both(me, ssh_server, block(ssh_server, "  BindAddress 127.0.0.9"))[1] == "127.0.0.9"


def test_a_host_key_under_an_alias_with_capitals(ssh_server, me):
    kind, key = ssh_server.host_key.with_name("host_key.pub").read_text().split()[:2]
    me.known_hosts.write_text(f"board-in-the-lab {kind} {key}\n")
    both(me, ssh_server, block(ssh_server, "  HostKeyAlias Board-in-the-Lab # a"))


def test_an_unknown_host_key_is_refused_whatever_the_configuration_says(ssh_server, me):
    me.known_hosts.unlink()
    proxy = f"ProxyCommand {script(me.home, RELAY)}"
    for line in ("StrictHostKeyChecking no", "UserKnownHostsFile none", "UserKnownHostsFile /dev/null", proxy):
        me.configure(block(ssh_server, f"  {line}", "  StrictHostKeyChecking accept-new"))
        with pytest.raises(DeviceError, match="is not known: ssh-ed25519"):
            connect("ssh:board")
    assert not me.known_hosts.exists()


def script(folder: Path, text: str) -> str:
    path = folder / "relay.py"
    path.write_text(text)
    return f"{sys.executable} {path} %h %p"


@pytest.mark.parametrize("name", ["no-such-name", "127.0.0.1"])
def test_a_proxy_command(ssh_server, me, tmp_path, name):
    """It is a command of the shell, its tokens are expanded, and it ends with the connection."""
    mark = tmp_path / "%n"
    command = f"sh -c 'touch {mark}; exec {script(tmp_path, RELAY)} # 100%% ' | cat".replace("%h", "127.0.0.1")
    config = f"Host board\n  HostName {name}\n  Port {ssh_server.port}\n  ProxyCommand {command}\n"
    kind, key = ssh_server.host_key.with_name("host_key.pub").read_text().split()[:2]
    me.known_hosts.write_text(f"[{name}]:{ssh_server.port} {kind} {key}\n")
    both(me, ssh_server, config)
    assert (tmp_path / "board").exists()
    shell = connect("ssh:board")
    assert shell.run(["cat"], b"y" * 500_000).stdout == b"y" * 500_000
    running = [pid for pid in sshd.descendants(os.getpid()) if "relay.py" in command_of(pid)]
    assert running
    shell.close()
    wait_for(lambda: not [pid for pid in running if "relay.py" in command_of(pid)], timeout_s=20)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_proxy_command_that_hands_over_the_connection(ssh_server, me, tmp_path):
    both(me, ssh_server, block(ssh_server, f"  ProxyCommand {script(tmp_path, PASS)}", "  ProxyUseFdpass yes"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program %h", r"no-such-program: not found|no-such-program: command not found"),
        ("sh -c 'echo the VPN is down >&2; exit 3'", "the VPN is down"),
        ("sh -c 'exit 3'", "it ended with exit code 3"),
    ],
)
def test_a_proxy_command_that_fails(ssh_server, me, monkeypatch, command, words):
    monkeypatch.setenv("SHELL", "/bin/sh")
    me.configure(block(ssh_server, f"  ProxyCommand {command}"))
    start = time.monotonic()
    with pytest.raises(DeviceError, match=f"through the ProxyCommand.*({words})"):
        connect("ssh:board")
    assert time.monotonic() - start < 20


def test_a_jump_host_behind_a_proxy_command(ssh_server, me, tmp_path):
    door = Sshd(tmp_path / "door")
    door.allow(me.key)
    door.start()
    try:
        me.know(door)
        config = block(ssh_server, "  ProxyJump door # via", "Host *", "  ProxyCommand false").replace(
            "Host *",
            f"Host door\n  HostName 127.0.0.1\n  Port {door.port}\n  ProxyCommand {script(tmp_path, RELAY)}\nHost *",
        )
        me.configure(config)
        connect("ssh:board").close()
        assert len(logins(door.log)) == 1
    finally:
        door.stop()


def test_canonical_names_leave_an_address_alone(ssh_server, me):
    both(me, ssh_server, "CanonicalizeHostname yes\nCanonicalDomains lab.invalid\n" + block(ssh_server))


def test_a_changed_user(ssh_server, me):
    """The configuration's user reaches the server, comment or not."""
    me.configure(block(ssh_server, "  User nobody-here # deploy"))
    start = len(ssh_server.log)
    with pytest.raises(DeviceError, match=r"nobody-here@127.0.0.1 refused the login"):
        connect("ssh:board")
    assert "Invalid user nobody-here from" in ssh_server.log[start:]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("KexAlgorithms diffie-hellman-group14-sha1", r"only SHA-1 \(key exchange: diffie-hellman-group14-sha1\)"),
        ("HostKeyAlgorithms ssh-rsa", r"only SHA-1 \(host key: ssh-rsa\)"),
        ("PubkeyAcceptedAlgorithms ssh-rsa", r"takes the key \(ssh-rsa .*\) with SHA-1 signatures only"),
    ],
)
def test_a_board_that_has_only_sha1(tmp_path, me, rsa, line, words):
    server = Sshd(tmp_path / "board", line, f"HostKey {rsa}").start()
    key = copied(rsa, me.home / ".ssh" / "id_rsa")
    try:
        me.know(server)
        server.allow(key)
        with pytest.raises(DeviceError, match=f"{words}.*pip install 'paramiko<5'"):
            connect(sshd.spec_of(server))
        if "Pubkey" in line:
            (server.folder / "authorized_keys").write_text("")
            with pytest.raises(DeviceError, match=r"takes none of these.*copy your public key there"):
                connect(sshd.spec_of(server))
    finally:
        server.stop()


def test_a_list_of_ciphers_that_nobody_has(tmp_path, me):
    server = Sshd(tmp_path / "board", "Ciphers chacha20-poly1305@openssh.com").start()
    try:
        me.know(server)
        with pytest.raises(DeviceError, match=r"ciphers: chacha20-poly1305@openssh.com\).*update the ssh server there"):
            connect(sshd.spec_of(server))
    finally:
        server.stop()
