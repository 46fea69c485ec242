"""Our own reading of ssh configurations, compared with that of `ssh -G`."""

from __future__ import annotations

import pytest
from support.ssh_configs import ours, theirs, write

#: What people write, and what follows for `board`.
CONFIGS = {
    "a comment in a Host line": (
        "Host other # and board\n User wrong\nHost board\n HostName 192.0.2.10\n User pi\n",
        "pi@192.0.2.10:22",
    ),
    "an apostrophe in a comment": (
        "Host board\n User pi\nHost 172.16.0.1  # Bob's server\n User bob\n",
        "pi@board:22",
    ),
    "comments after values": (
        "Host board\n HostName 10.0.0.1 # here\n Port 24 # there\n User pi # me\n",
        "pi@10.0.0.1:24",
    ),
    "Match final all": ("Match final all\n Compression yes\nHost board\n User pi\n", "pi@board:22"),
    "Match final all sets what is missing": ("Match final all\n User late\nHost *\n Port 7\n", "late@board:7"),
    "Match all with a comment": ("Match all # comment\n Port 8\nHost board\n User pi\n", "pi@board:8"),
    "criteria with =": ("Match host=*.lab\n User no\nMatch originalhost = board\n User pi\n", "pi@board:22"),
    "criteria in capitals": (
        "Match HOST other\n User no\nMatch !Host other OriginalHost BOARD\n User pi\n",
        "pi@board:22",
    ),
    "keys in capitals and with =": ('HOST=board\n\tUSER = pi\n  port="25"\n', "pi@board:25"),
    "a hash within a word": ("Host board#2\n User no\nHost board\n User p#i\n", "p#i@board:22"),
    "the first value counts": ("Host b*\n Port 1\nHost board\n Port 2\n User pi\n", "pi@board:1"),
    "negation": ("Host * !board\n User no\nHost !other *\n User pi\n", "pi@board:22"),
    "HostName before canonical names": (
        "CanonicalizeHostname yes\nCanonicalDomains invalid\nHost board\n HostName 192.0.2.10\n User pi\n",
        "pi@192.0.2.10:22",
    ),
    "canonical names without domains": (
        "Host *\n CanonicalizeHostname yes\nHost board\n HostName 192.0.2.10\n User pi\n",
        "pi@192.0.2.10:22",
    ),
    "Host sees the HostName in a second pass": (
        "Host board\n HostName b.lan\nMatch final\n Port 9\nHost b.lan\n User pi\n",
        "pi@b.lan:9",
    ),
    "Match sees values above": ("Host board\n User pi\nMatch user pi\n Port 2200\n", "pi@board:2200"),
    "line ends of Windows": ("Host board\r\n  User pi\r\n  Port 23\r\n", "pi@board:23"),
    "quotes": ('Host "other" "bo*d"\n User "pi"\n', "pi@board:22"),
    "no brackets in patterns": ("Host [a-z]oard\n User no\nHost ?oard\n User pi\n", "pi@board:22"),
    "capitals in HostName": ("Host board\n HostName Pi.LAN\n User pi\n", "pi@pi.lan:22"),
    "a token in HostName": ("Host board\n HostName %h.lan\n User pi\n", "pi@board.lan:22"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_people_write(home, name):
    text, expected = CONFIGS[name]
    write(home, {"config": text})
    target = theirs("board")
    assert target is not None
    assert f"{target}:{target.port}" == expected
    assert ours("board") == target


#: Files, from which `pi` follows as the user for `board`.
INCLUDES = {
    "the block goes on after it": {
        "config": "Include extra\nUser pi\nHost board\n HostName 10.0.0.1\n",
        "extra": "Host lab\n User lab\n",
    },
    "first in a block": {"config": "Host board\n Include extra\n User pi\n", "extra": "Host lab\n User lab\n"},
    "in a block that is not met": {
        "config": "Host other\n Include extra\nHost board\n User pi\n",
        "extra": "Host *\n User no\n",
    },
    "in a Match that is not met": {
        "config": "Match host other\n Include extra\nMatch all\n User pi\n",
        "extra": "Match all\n User no\n",
    },
    "hidden files": {
        "config": "Include config.d/*\nHost board\n User pi\n",
        "config.d/.old": "Host *\n User no\n",
        "config.d/.DS_Store": "\x00\x00\x00Bud1\n",
    },
    "folders": {"config": "Include config.d/* config.d\nUser pi\n", "config.d/archive/old": "Host *\n User no\n"},
    "in order": {"config": "Include config.d/*\n", "config.d/20": "User no\n", "config.d/10": "User pi\n"},
    "in each other": {"config": "Include a\nUser no\n", "a": "Host board\n Include b\n", "b": "User pi\n"},
    "with ~ and quotes": {"config": 'Include "~/.ssh/my files/*"\n', "my files/a": "User pi\n"},
    "in capitals and with =": {"config": "INCLUDE=extra # more\n", "extra": "User pi\n"},
    "nothing": {"config": "Include none/*\nUser pi\n"},
}


@pytest.mark.parametrize("name", INCLUDES)
def test_included_files(home, name):
    write(home, INCLUDES[name])
    target = theirs("board")
    assert target is not None
    assert target.user == "pi"
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
