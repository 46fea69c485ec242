"""Where the configuration comes from: `ssh -G`, our own reading without it, the files of the system."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.ssh_configs import ours, theirs, write

from ofa_profiler.devices.ssh import config_files, openssh
from ofa_profiler.devices.ssh.config import find_route
from ofa_profiler.errors import InputFileError, UsageError


@pytest.fixture
def without_ssh(home, monkeypatch):
    """A machine without an ssh program."""
    monkeypatch.setenv("PATH", str(home))
    return home


def test_without_an_ssh_program_the_configuration_counts_too(without_ssh):
    write(without_ssh, {"config": "Host board # mine\n  HostName 10.0.0.1\n  ProxyJump gw\nHost gw\n  User door\n"})
    said: list[str] = []
    door, board = find_route("ssh:pi@board", said.append)
    assert (door.user, door.host) == ("door", "gw")
    assert (board.user, board.host) == ("pi", "10.0.0.1")
    assert said == []


def test_one_line_names_what_could_not_be_used(without_ssh):
    config = without_ssh / ".ssh" / "config"
    write(
        without_ssh,
        {
            "config": "Match host other exec never\n  User wrong\nMatch exec true\n  User wrong\n"
            "Match !localnetwork 10.0.0.0/8\n  User wrong\nMatch tagged office\n  User wrong\n"
            "Match host board\n  User pi\n  ProxyJump gw\n  Compression yes\n  KnownHostsCommand x\n"
            "Host other\n  Colour blue\n"
        },
    )
    said: list[str] = []
    board = find_route("ssh:board", said.append)[-1]
    assert board.user == "pi"
    unused = f"Match exec in {config}, row 3, Match localnetwork in {config}, row 5, Match tagged in {config}, row 7, "
    unused += f"knownhostscommand in {config}, row 13"
    assert said == [f"ssh:board: there is no ssh program here; not used of the ssh configuration: {unused}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("User pi\nUser 'a\n", "row 2: a quote is not closed"),
        ("Match wind north\n", "row 1: Match wind is not known"),
        ("\ufeffHost board\n", "row 1: .* is not an option"),
        ("Port 0\n", "row 1: 0 is not a port"),
        ("Include config\n", "includes itself"),
    ],
)
def test_a_wrong_line_is_named(without_ssh, text, words):
    write(without_ssh, {"config": text})
    with pytest.raises(InputFileError, match=words):
        find_route("ssh:board")


def test_a_configuration_that_others_may_write_is_refused(without_ssh):
    """It can contain commands."""
    write(without_ssh, {"config": "User pi\n"})
    (without_ssh / ".ssh" / "config").chmod(0o666)
    with pytest.raises(InputFileError, match="chmod 600"):
        find_route("ssh:board")


def system_config(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    folder = home / "etc"
    folder.mkdir()
    (folder / "ssh_config").write_text(text)
    for module in (openssh, config_files):
        monkeypatch.setattr(module, "SYSTEM_CONFIG", folder / "ssh_config")


FEDORA = "Match final all\n  GSSAPIAuthentication yes\n  SendEnv LANG LC_CTYPE\n  Port 2200\n"


def test_the_configuration_of_fedora(home, monkeypatch):
    """It applies in a second pass, where only what is still missing counts."""
    system_config(home, monkeypatch, f"Include {home}/etc/more.d/*.conf\n")
    (home / "etc" / "more.d").mkdir()
    (home / "etc" / "more.d" / "50-redhat.conf").write_text(FEDORA)
    write(home, {"config": "Host board\n  HostName 192.0.2.10\n  User pi\nHost other\n  Port 7\n"})
    for name, port in (("board", 2200), ("other", 7)):
        target = theirs(name)
        assert target is not None
        assert target.port == port
        assert ours(name) == target


def test_nothing_in_a_file_of_the_system_prevents_a_login(without_ssh, monkeypatch):
    system_config(without_ssh, monkeypatch, "Match all 'x\n")
    write(without_ssh, {"config": "User pi\n"})
    said: list[str] = []
    assert find_route("ssh:board", said.append)[0].user == "pi"
    assert "ssh_config, row 1: a quote is not closed" in said[0]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "echo 'OpenSSL version mismatch. Built against 30000020' >&2; exit 255",
            "ssh -G fails (OpenSSL version mismatch",
        ),
        (
            "echo '/etc/ssh/ssh_config line 4: Bad configuration option: new' >&2; exit 255",
            "ssh -G fails (/etc/ssh/ssh_c",
        ),
        ("echo 'WARNING: Ignoring unknown option -G' >&2; exit 1", "ssh -G fails (WARNING"),
        ("exit 0", "ssh -G fails (exit code 0)"),
    ],
)
def test_an_ssh_program_that_cannot_be_asked(without_ssh, script, reason):
    """One of another make, or one that does not start: then the files are read without it."""
    program = without_ssh / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    write(without_ssh, {"config": "User pi\nMatch exec x\n"})
    said: list[str] = []
    assert find_route("ssh:board", said.append)[0].user == "pi"
    assert said[0].startswith(f"ssh:board: {reason}")


def test_what_ssh_refuses_is_refused_with_its_words(home):
    write(home, {"config": "Host board\n  Colour blue\n"})
    with pytest.raises(UsageError, match=r"\.ssh/config.*line 2: Bad configuration option: colour"):
        find_route("ssh:board")


def test_the_home_folder_is_that_of_the_environment(home):
    """OpenSSH takes that of the password file."""
    (home / ".ssh" / "known_hosts").touch()
    write(home, {"config": "IdentityFile ~/k\nIdentityAgent ~/agent.sock\nHost x\n UserKnownHostsFile ~/hosts\n"})
    (target,) = find_route("ssh:board")
    assert target.identity_files == (home / "k",)
    assert target.agent == home / "agent.sock"
    assert target.known_hosts[0] == home / ".ssh" / "known_hosts"
    assert find_route("ssh:x")[0].known_hosts[0] == home / "hosts"


@pytest.mark.parametrize("spec", ["ssh:a;b", "ssh:$(x)@board", "ssh:`x`", "ssh:a|b@board"])
def test_no_name_is_a_command(home, spec):
    write(home, {"config": "ProxyCommand nc %h %r\n"})
    with pytest.raises(UsageError, match="cannot be part of"):
        find_route(spec)
    write(home, {"config": "Host board\n ProxyJump " + spec.removeprefix("ssh:") + "\n"})
    with pytest.raises(UsageError):
        find_route("ssh:board")


@pytest.mark.parametrize("path", ["", None])
def test_a_jump_host_for_all_hosts(home, monkeypatch, path):
    """OpenSSH would go from the jump host to the jump host; it can only mean: directly."""
    if path is not None:
        monkeypatch.setenv("PATH", path)
    write(home, {"config": "User pi\nProxyJump gw\nHost board\n  HostName 10.0.0.1\nHost far\n  ProxyJump a,gw,b\n"})
    assert [str(target) for target in find_route("ssh:board")] == ["pi@gw", "pi@10.0.0.1"]
    write(home, {"config": "Host far\n  ProxyJump a,gw,b\nHost * !a\n  ProxyJump gw\n"})
    assert [target.host for target in find_route("ssh:far")] == ["a", "gw", "b", "far"]
    with pytest.raises(UsageError, match="forms a circle"):
        find_route("ssh:gw")
    write(home, {"config": "Host a\n ProxyJump b\nHost b\n ProxyJump a\n"})
    with pytest.raises(UsageError, match="forms a circle"):
        find_route("ssh:a")


def test_a_domain_may_end_with_a_dot(without_ssh, monkeypatch):
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_args, **_more: asked.append(host) or [()])
    monkeypatch.setattr("ofa_profiler.devices.ssh.config_files.is_address", lambda _host: False)
    write(without_ssh, {"config": "CanonicalizeHostname yes\nCanonicalDomains lab.example.org.\n"})
    (target,) = find_route("ssh:board")
    assert (target.host, asked) == ("board.lab.example.org", ["board.lab.example.org."])


def test_what_openssh_follows_and_we_do_not_is_said(home):
    write(home, {"config": "Host board\n  User pi\n  RevokedHostKeys /etc/gone # lost\n  KnownHostsCommand none\n"})
    said: list[str] = []
    assert find_route("ssh:board", said.append)[0].user == "pi"
    assert said == ["ssh:board: not used of the ssh configuration: revokedhostkeys"]
