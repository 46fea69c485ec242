"""Our own reading of ssh configurations, compared with that of `ssh -G`."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler.devices.ssh import config_files, openssh
from ofa_profiler.devices.ssh.config import find_route
from ofa_profiler.devices.ssh.keys import read_key
from ofa_profiler.devices.ssh.target import Target, make_target
from ofa_profiler.errors import InputFileError, UsageError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def write(home: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = home / ".ssh" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def ours(name: str, user: str | None = None, port: int | None = None) -> Target | None:
    try:
        return make_target(name, config_files.read(name, user, port)[0])
    except (InputFileError, ValueError):
        return None


def theirs(name: str, user: str | None = None, port: int | None = None) -> Target | None:
    try:
        return make_target(name, openssh.ask(name, user, port))
    except (UsageError, ValueError, openssh.CannotAsk):
        return None


#: What people write, and the user, host and port that follow for `board`.
CONFIGS = {
    "a comment in a Host line": (
        "Host other # and board\n User wrong\nHost board\n HostName 192.0.2.10\n User pi\n",
        "pi",
        "192.0.2.10",
        22,
    ),
    "an apostrophe in a comment": (
        "Host board\n User pi\nHost 172.16.0.1  # Bob's server\n User bob\n",
        "pi",
        "board",
        22,
    ),
    "comments after values": (
        "Host board\n HostName 10.0.0.1 # here\n Port 24 # there\n User pi # me\n",
        "pi",
        "10.0.0.1",
        24,
    ),
    "Match final all": (
        "Match final all\n Compression yes\nHost board\n User pi\n",
        "pi",
        "board",
        22,
    ),
    "Match final all sets what is missing": (
        "Match final all\n User late\nHost *\n Port 7\n",
        "late",
        "board",
        7,
    ),
    "Match all with a comment": (
        "Match all # comment\n Port 8\nHost board\n User pi\n",
        "pi",
        "board",
        8,
    ),
    "criteria with =": (
        "Match host=*.lab\n User no\nMatch originalhost = board\n User pi\n",
        "pi",
        "board",
        22,
    ),
    "criteria in capitals": (
        "Match HOST other\n User no\nMatch !Host other OriginalHost BOARD\n User pi\n",
        "pi",
        "board",
        22,
    ),
    "keys in capitals and with =": (
        'HOST=board\n\tUSER = pi\n  port="25"\n',
        "pi",
        "board",
        25,
    ),
    "a hash within a word": (
        "Host board#2\n User no\nHost board\n User p#i\n",
        "p#i",
        "board",
        22,
    ),
    "the first value counts": (
        "Host b*\n Port 1\nHost board\n Port 2\n User pi\n",
        "pi",
        "board",
        1,
    ),
    "negation": (
        "Host * !board\n User no\nHost !other *\n User pi\n",
        "pi",
        "board",
        22,
    ),
    "HostName before canonical names": (
        "CanonicalizeHostname yes\nCanonicalDomains invalid\nHost board\n HostName 192.0.2.10\n User pi\n",
        "pi",
        "192.0.2.10",
        22,
    ),
    "canonical names without domains": (
        "Host *\n CanonicalizeHostname yes\nHost board\n HostName 192.0.2.10\n User pi\n",
        "pi",
        "192.0.2.10",
        22,
    ),
    "Host sees the HostName in a second pass": (
        "Host board\n HostName b.lan\nMatch final\n Port 9\nHost b.lan\n User pi\n",
        "pi",
        "b.lan",
        9,
    ),
    "Match sees values above": (
        "Host board\n User pi\nMatch user pi\n Port 2200\n",
        "pi",
        "board",
        2200,
    ),
    "a byte order of Windows": (
        "Host board\r\n  User pi\r\n  Port 23\r\n",
        "pi",
        "board",
        23,
    ),
    "quotes": (
        'Host "other" "bo*d"\n User "pi"\n',
        "pi",
        "board",
        22,
    ),
    "no brackets in patterns": (
        "Host [a-z]oard\n User no\nHost ?oard\n User pi\n",
        "pi",
        "board",
        22,
    ),
    "capitals in HostName": (
        "Host board\n HostName Pi.LAN\n User pi\n",
        "pi",
        "pi.lan",
        22,
    ),
    "a token in HostName": (
        "Host board\n HostName %h.lan\n User pi\n",
        "pi",
        "board.lan",
        22,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_people_write(home, name):
    text, user, host, port = CONFIGS[name]
    write(home, {"config": text})
    target = theirs("board")
    assert target is not None
    assert (target.user, target.host, target.port) == (user, host, port)
    assert ours("board") == target


INCLUDES = {
    "the block goes on after it": (
        {"config": ("Include extra\nUser pi\nHost board\n HostName 10.0.0.1\n"), "extra": "Host lab\n User lab\n"},
        "pi",
    ),
    "first in a block": (
        {"config": "Host board\n Include extra\n User pi\n", "extra": "Host lab\n User lab\n"},
        "pi",
    ),
    "in a block that is not met": (
        {"config": ("Host other\n Include extra\nHost board\n User pi\n"), "extra": "Host *\n User no\n"},
        "pi",
    ),
    "in a Match that is not met": (
        {"config": ("Match host other\n Include extra\nMatch all\n User pi\n"), "extra": "Match all\n User no\n"},
        "pi",
    ),
    "hidden files": (
        {
            "config": ("Include config.d/*\nHost board\n User pi\n"),
            "config.d/.old": "Host *\n User no\n",
            "config.d/.DS_Store": "\x00\x00\x00Bud1\n",
        },
        "pi",
    ),
    "folders": (
        {"config": "Include config.d/* config.d\nUser pi\n", "config.d/archive/old": "Host *\n User no\n"},
        "pi",
    ),
    "in order": (
        {"config": "Include config.d/*\n", "config.d/20": "User no\n", "config.d/10": "User pi\n"},
        "pi",
    ),
    "in each other": (
        {"config": "Include a\nUser no\n", "a": "Host board\n Include b\n", "b": "User pi\n"},
        "pi",
    ),
    "with ~ and quotes": (
        {"config": 'Include "~/.ssh/my files/*"\n', "my files/a": "User pi\n"},
        "pi",
    ),
    "in capitals and with =": (
        {"config": "INCLUDE=extra # more\n", "extra": "User pi\n"},
        "pi",
    ),
    "nothing": (
        {"config": "Include none/*\nUser pi\n"},
        "pi",
    ),
}


@pytest.mark.parametrize("name", INCLUDES)
def test_included_files(home, name):
    files, user = INCLUDES[name]
    write(home, files)
    target = theirs("board")
    assert target is not None
    assert target.user == user
    assert ours("board") == target


OPTIONS = [
    "HostKeyAlias Orin # a",
    "IdentityFile ~/.ssh/k1 # ed25519\nIdentityFile %d/k2\nIdentityFile ~/.ssh/k1\nIdentityFile none",
    'IdentityFile "~/my keys/%u@%h-%r"\nCertificateFile ~/c-cert.pub',
    "IdentityFile ${HOME}/k",
    "IdentitiesOnly yes # only",
    "IdentitiesOnly TRUE",
    'IdentityAgent "~/Library/Group Containers/X/agent.sock"',
    "IdentityAgent none",
    "IdentityAgent SSH_AUTH_SOCK",
    "IdentityAgent $OTHER_AGENT",
    "IdentityAgent %d/%n.sock",
    "ProxyJump gw # via",
    "ProxyJump me@gw:2200,%h-door",
    'ProxyJump "gw"',
    "ProxyJump gw\nProxyCommand nc %h %p",
    "ProxyCommand nc %h %p # a comment of the shell's\nProxyJump gw",
    "ProxyCommand none\nProxyJump gw",
    "ProxyJump none\nProxyCommand nc %h %p",
    "ProxyJump none\nProxyJump gw",
    "ProxyCommand = sh -c 'exec nc \"%n\" %p 100%%'",
    "UserKnownHostsFile ~/hosts '%d/my hosts' ~/known_%h_%k",
    "UserKnownHostsFile none\nGlobalKnownHostsFile /nowhere",
    "UserKnownHostsFile ~/50%%",
    "ConnectTimeout 1m30\nAddressFamily inet6\nBindAddress 127.0.0.1",
    "ConnectTimeout none\nAddressFamily INET",
    "PubkeyAuthentication no\nPreferredAuthentications password,publickey",
    "PasswordAuthentication no\nChallengeResponseAuthentication no",
    "Port ssh",
    "Port 0",
    "Port 65536",
    "Port none",
    "User a b",
    "User",
    "User 'a",
    "HostName %n.lan",
    "IdentitiesOnly maybe",
    "Include config",
    "Match",
    "Match host",
    "Match host a all x",
    "ConnectTimeout soon",
    "CanonicalizeHostname maybe",
    "CanonicalizeMaxDots few",
    "AddressFamily 4",
]


@pytest.mark.parametrize("text", OPTIONS)
def test_every_option_that_counts(home, monkeypatch, text):
    monkeypatch.setenv("OTHER_AGENT", "/run/agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/first")
    write(home, {"config": f"Host board\n{text}\n"})
    assert ours("board") == theirs("board")
    assert ours("board", "me", 2222) == theirs("board", "me", 2222)


NAMES = st.sampled_from(["board", "Board", "b", "board.lan", "10.0.0.1", "other"])
PATTERN = st.sampled_from(
    [
        "board",
        "Board",
        "b*",
        "*",
        "?oard",
        "*.lan",
        "10.0.0.?",
        "!board",
        "!*.lan",
        '"board"',
        "BOARD",
        "[b]oard",
        "b\\oard",
        "other",
        "#board",
    ]
)
# Releases of OpenSSH differ in quotes within a list of `Match`.
MATCHED = PATTERN.filter(lambda pattern: not set('"\\\\#') & set(pattern))
USERS = st.sampled_from(["pi", "root", "r*", "!pi", "PI"])
COMMENT = st.sampled_from(["", "", "", " # board", " #", "#x", " # it's"])
SEPARATOR = st.sampled_from([" ", " ", "=", " = ", "\t", "  "])
CASE = st.sampled_from([str, str, str.upper, str.lower])
OPTION = st.one_of(
    st.tuples(st.just("HostName"), st.sampled_from(["board.lan", "%h.lan", "10.0.0.1", "X%%", "Other", '"b"'])),
    st.tuples(st.just("User"), st.sampled_from(["pi", "root", '"a b"', "'pi'", "p\\'i", "x#y", "%u"])),
    st.tuples(st.just("Port"), st.sampled_from(["22", "2222", "022", "ssh", '"23"'])),
    st.tuples(st.just("IdentityFile"), st.sampled_from(["~/a", "%d/b", "none", '"~/my key"', "/k/%h-%n-%p-%r%%"])),
    st.tuples(st.just("IdentitiesOnly"), st.sampled_from(["yes", "no", "YES", '"yes"'])),
    st.tuples(st.just("ProxyJump"), st.sampled_from(["gw", "none", "a@b:1,c", "%n.gw"])),
    st.tuples(st.just("ProxyCommand"), st.sampled_from(["none", "nc %h %p", "NONE"])),
    st.tuples(st.just("HostKeyAlias"), st.sampled_from(["Key", "%h"])),
    st.tuples(st.just("UserKnownHostsFile"), st.sampled_from(["~/h", "~/h /x/%h", "none", '"~/a b"'])),
    st.tuples(st.just("IdentityAgent"), st.sampled_from(["none", "~/s", "%d/%h", "SSH_AUTH_SOCK"])),
    st.tuples(st.just("CanonicalizeHostname"), st.sampled_from(["yes", "no", "always"])),
    st.tuples(st.just("ForwardAgent"), st.just("yes")),
)
CRITERION = st.one_of(
    st.tuples(st.sampled_from(["host", "originalhost", "!host"]), st.lists(MATCHED, min_size=1).map(",".join)),
    st.tuples(st.sampled_from(["user", "localuser", "!user"]), USERS),
    st.tuples(st.sampled_from(["final", "canonical", "!final", "!canonical"]), st.just("")),
)


def line(case, key, separator, value, comment):
    return f"{case(key)}{separator}{value}{comment}"


def criterion(case, pair, equals):
    return f"{case(pair[0])}{equals if pair[1] else ''}{pair[1]}"


HOST = st.builds(
    line, CASE, st.just("Host"), SEPARATOR, st.lists(PATTERN, min_size=1, max_size=3).map(" ".join), COMMENT
)
MATCH = st.builds(
    line,
    CASE,
    st.just("Match"),
    st.just(" "),
    st.one_of(
        st.sampled_from(["all", "final all", "canonical all", "!all"]),
        st.lists(st.builds(criterion, CASE, CRITERION, st.sampled_from([" ", "="])), min_size=1, max_size=3).map(
            " ".join
        ),
    ),
    st.sampled_from(["", " # board"]),
)
SETTING = st.builds(
    lambda case, pair, separator, comment: line(case, pair[0], separator, pair[1], comment),
    CASE,
    OPTION,
    SEPARATOR,
    COMMENT,
)
INCLUDE = st.sampled_from(
    ["Include one", "Include two", "include config.d/*", "INCLUDE=~/.ssh/one # x", "Include one two"]
)
INDENT = st.sampled_from(["", "  ", "\t"])
LINES = st.lists(st.builds("{}{}\n".format, INDENT, st.one_of(HOST, MATCH, SETTING, SETTING, SETTING)), max_size=7).map(
    "".join
)
MAIN = st.lists(st.builds("{}{}\n".format, INDENT, st.one_of(HOST, MATCH, SETTING, SETTING, INCLUDE)), max_size=9).map(
    "".join
)


@settings(max_examples=int(os.environ.get("SSH_CONFIG_EXAMPLES", "150")))
@given(config=MAIN, one=LINES, two=LINES, name=NAMES, user=st.sampled_from([None, None, "pi"]))
def test_random_configurations_are_read_as_by_openssh(tmp_path_factory, config, one, two, name, user):
    home = tmp_path_factory.getbasetemp() / "random"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        write(home, {"config": config, "one": one, "config.d/2": two, "config.d/.hidden": "User hidden\n", "two": two})
        assert ours(name, user) == theirs(name, user)


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


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_without_ssh_any_configuration_is_a_route_or_one_line(tmp_path_factory, text):
    home = tmp_path_factory.getbasetemp() / "random"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("PATH", str(home))
        write(home, {"config": text})
        with contextlib.suppress(UsageError):
            assert find_route("ssh:board")


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=90).map(lambda data: MAGIC + base64.b64encode(data))))
def test_any_file_is_a_key_or_none(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random key"
    path.write_bytes(data)
    found = read_key(path)
    assert found.private is None
    assert found.problem or found.public


MAGIC = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.b64encode(b"openssh-key-v1\0")
