"""Random configurations and key files: read as by OpenSSH, and never a traceback."""

from __future__ import annotations

import base64
import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ssh_configs import ours, theirs, write

from ofa_profiler.devices.ssh.config import find_route
from ofa_profiler.devices.ssh.keys import read_key
from ofa_profiler.errors import UsageError

NAMES = st.sampled_from(["board", "Board", "b", "board.lan", "10.0.0.1", "other"])
NAME_PATTERNS = [
    "board",
    "Board",
    "BOARD",
    "b*",
    "*",
    "?oard",
    "*.lan",
    "10.0.0.?",
    "!board",
    "!*.lan",
    "[b]oard",
    "other",
]
PATTERN = st.sampled_from([*NAME_PATTERNS, '"board"', "b\\oard", "#board"])
# Releases of OpenSSH differ in quotes within a list of `Match`.
MATCHED = st.sampled_from(NAME_PATTERNS)
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
CRITERIA = st.lists(st.builds(criterion, CASE, CRITERION, st.sampled_from([" ", "="])), min_size=1, max_size=3).map(
    " ".join
)
ALL = st.sampled_from(["all", "final all", "canonical all", "!all"])
MATCH = st.builds(
    line, CASE, st.just("Match"), st.just(" "), st.one_of(ALL, CRITERIA), st.sampled_from(["", " # board"])
)


def setting(case, pair, separator, comment):
    # OpenSSH 9.2 takes `ProxyJump none # comment` for a host of that name.
    return line(case, pair[0], separator, pair[1], "" if pair == ("ProxyJump", "none") else comment)


SETTING = st.builds(setting, CASE, OPTION, SEPARATOR, COMMENT)
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
