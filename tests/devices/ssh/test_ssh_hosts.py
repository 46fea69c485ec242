"""known_hosts and ~/.ssh/config, with OpenSSH's own tools as the second opinion."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sshd import make_key

from ofa_profiler.devices.ssh.config import find_route
from ofa_profiler.devices.ssh.known_hosts import KnownHosts, fingerprint, host_name
from ofa_profiler.errors import DeviceError, UsageError

KEY = paramiko.ECDSAKey.generate()
OTHER = paramiko.ECDSAKey.generate()
NAME = "[board]:2222"


def line(name: str, key: paramiko.PKey = KEY) -> str:
    return f"{name} {key.get_name()} {key.get_base64()}\n"


@pytest.fixture
def known(tmp_path: Path) -> KnownHosts:
    return KnownHosts([tmp_path / ".ssh" / "known_hosts", tmp_path / "system"])


def write(known: KnownHosts, *lines: str) -> None:
    known.paths[0].parent.mkdir(exist_ok=True)
    known.paths[0].write_text("".join(lines))


def test_fingerprints_are_those_of_ssh_keygen(tmp_path):
    for kind in ("ed25519", "ecdsa", "rsa"):
        path = make_key(tmp_path / kind, kind)
        printed = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout
        assert fingerprint(paramiko.PKey.from_path(path).asbytes()) == printed.split()[1]


def test_an_unknown_key_is_refused_with_its_fingerprint_and_accepted_by_it(known):
    shown = fingerprint(KEY.asbytes())
    with pytest.raises(DeviceError, match="not known") as no:
        known.check("ssh:x", NAME, KEY, None)
    words = str(no.value)
    assert f"ecdsa-sha2-nistp256 {shown}" in words
    assert words.endswith(f"--accept-host-key {shown}")
    with pytest.raises(DeviceError, match="not SHA256:else"):
        known.check("ssh:x", NAME, KEY, "SHA256:else")
    assert not known.paths[0].exists()
    known.check("ssh:x", NAME, KEY, shown)
    known.check("ssh:x", NAME, KEY, None)
    assert known.paths[0].stat().st_mode & 0o777 == 0o600
    found = subprocess.run(["ssh-keygen", "-F", NAME, "-f", str(known.paths[0])], capture_output=True, text=True)
    assert found.returncode == 0
    assert KEY.get_base64() in found.stdout


def test_a_changed_key_is_refused_whatever_was_accepted(known):
    write(known, line(NAME))
    before = known.paths[0].read_text()
    for accepted in (None, fingerprint(OTHER.asbytes())):
        with pytest.raises(DeviceError, match=r"has CHANGED.*row 1 of .*known_hosts \(ssh-keygen -R \[board\]:2222\)"):
            known.check("ssh:x", NAME, OTHER, accepted)
    assert known.paths[0].read_text() == before


def test_a_revoked_key_is_refused_even_where_it_is_listed(known):
    write(known, line(NAME), "@revoked * " + line("")[1:])
    with pytest.raises(DeviceError, match=r"revoked in .*row 2"):
        known.check("ssh:x", NAME, KEY, fingerprint(KEY.asbytes()))


def test_a_new_line_does_not_run_into_the_last_one(known):
    write(known, line("else", OTHER).rstrip("\n"))
    known.check("ssh:x", NAME, KEY, fingerprint(KEY.asbytes()))
    assert known.paths[0].read_text() == line("else", OTHER) + line(NAME)


def test_hashed_names_are_read(known):
    write(known, line(NAME), line("plain", OTHER))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known.paths[0])], check=True, capture_output=True)
    assert "board" not in known.paths[0].read_text()
    known.check("ssh:x", NAME, KEY, None)
    known.check("ssh:x", "plain", OTHER, None)
    with pytest.raises(DeviceError, match="CHANGED"):
        known.check("ssh:x", NAME, OTHER, None)
    with pytest.raises(DeviceError, match="not known"):
        known.check("ssh:x", "board", KEY, None)


NAMES = st.from_regex(r"[a-z][a-z0-9.]{0,8}", fullmatch=True)
PATTERNS = st.lists(
    st.builds("{}{}".format, st.sampled_from(["", "!"]), st.from_regex(r"[a-z0-9.*?]{1,6}", fullmatch=True)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(patterns=PATTERNS, name=NAMES, port=st.sampled_from([22, 2222]))
def test_patterns_match_as_in_openssh(tmp_path_factory, patterns, name, port):
    path = tmp_path_factory.mktemp("hosts") / "known_hosts"
    path.write_text(line(",".join(patterns)))
    full = host_name(name, port)
    theirs = subprocess.run(["ssh-keygen", "-F", full, "-f", str(path)], capture_output=True, check=False)
    assert bool(KnownHosts([path]).kinds(full)) == (theirs.returncode == 0)


@given(st.binary(max_size=300))
def test_a_file_of_rubbish_is_no_error_and_no_trust(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("hosts") / "known_hosts"
    path.write_bytes(data)
    with pytest.raises(DeviceError, match="not known"):
        KnownHosts([path]).check("ssh:x", NAME, KEY, None)


def test_the_words_after_ssh(home):
    (target,) = find_route("ssh:pi@10.0.0.7:2222")
    assert (target.user, target.host, target.port) == ("pi", "10.0.0.7", 2222)
    (target,) = find_route("ssh:pi@[fe80::1%eth0]:2222")
    assert (target.host, target.port) == ("fe80::1%eth0", 2222)
    assert find_route("ssh:a@b@host")[0].user == "a@b"
    assert find_route("ssh:host")[0].port == 22


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ssh:", "must be ssh:"),
        ("ssh:@host", "must be ssh:"),
        ("ssh:pi@", "must be ssh:"),
        ("ssh:host:", "must be ssh:"),
        ("ssh:host:port", "must be ssh:"),
        ("ssh:host:0", "is not a port"),
        ("ssh:host:70000", "is not a port"),
        ("ssh:-oProxyCommand=x", "must be ssh:"),
        ("ssh:ho st", "must be ssh:"),
        ("ssh:ho\nst", "must be ssh:"),
        ("ssh:pi\x1b@host", "must be ssh:"),
        ("ssh:fe80::1", "in brackets"),
    ],
)
def test_bad_names_are_refused(home, spec, words):
    with pytest.raises(UsageError, match=words):
        find_route(spec)


@given(st.text())
def test_any_name_gives_a_route_or_one_line(text):
    with contextlib.suppress(UsageError):
        assert find_route("ssh:" + text)[-1].host


def test_the_configuration_is_followed(home):
    (home / "key").touch()
    (home / ".ssh" / "more.conf").write_text("Host jet*\n  User nvidia\n  Port 2200\n")
    (home / ".ssh" / "config").write_text(
        "Include more.conf\n"
        "Host jetson\n  HostName 10.0.0.9\n  IdentityFile ~/key\n  IdentityFile ~/missing\n  IdentitiesOnly yes\n"
        "  HostKeyAlias orin\n  UserKnownHostsFile ~/hosts\n  ProxyJump gate,me@second:7\n"
        "Host gate\n  HostName gate.example\n  User door\n"
    )
    first, second, jetson = find_route("ssh:jetson")
    assert (first.user, first.host, first.port) == ("door", "gate.example", 22)
    assert (second.user, second.host, second.port) == ("me", "second", 7)
    assert (jetson.user, jetson.host, jetson.port, jetson.alias) == ("nvidia", "10.0.0.9", 2200, "orin")
    assert jetson.identity_files == (home / "key", home / "missing")
    assert jetson.identities_only
    assert jetson.known_hosts[0] == home / "hosts"
    assert find_route("ssh:pi@jetson:5")[-1].port == 5
    assert find_route("ssh:pi@jetson:5")[-1].user == "pi"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Host a\n  ProxyJump a\n", "forms a circle"),
        ("Host a\n  Port none\n", "cannot be used"),
        ("Include config\n", "too many|Too many"),
        ("Host 'a\n", "config"),
        ("Host\n", "config"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(home, text, words):
    (home / ".ssh" / "config").write_text(text)
    with pytest.raises(UsageError, match=words):
        find_route("ssh:a")


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_any_configuration_is_a_route_or_one_line(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        (folder / ".ssh").mkdir()
        (folder / ".ssh" / "config").write_text(text, encoding="utf-8")
        with contextlib.suppress(UsageError):
            assert find_route("ssh:board")


@pytest.mark.parametrize(
    "spec", ["ssh:a..b", "ssh:.", f"ssh:{'x' * 64}.de", "ssh:pi@h\N{LATIN SMALL LETTER O WITH DIAERESIS}st..x"]
)
def test_what_no_name_of_a_host_can_be_is_refused(home, spec):
    with pytest.raises(UsageError, match="is not a host name"):
        find_route(spec)
    (home / ".ssh" / "config").write_text("Host board\n  HostName a..b\n")
    with pytest.raises(UsageError, match=r"'a\.\.b' is not a host name"):
        find_route("ssh:board")


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_of_the_configuration_that_is_none(home, port):
    (home / ".ssh" / "config").write_text(f"Host board\n  Port {port}\n")
    for spec in ("ssh:board", "ssh:board:22"):  # ssh refuses the file, whatever the port
        with pytest.raises(UsageError, match=f"config.*line 2.*'{port}'"):
            find_route(spec)


@pytest.mark.parametrize(
    ("setting", "files"),
    [
        ("~/hosts", ["hosts"]),
        ('~/hosts "%d/my hosts"', ["hosts", "my hosts"]),
        ("~/known_%h_%p_%r_%n", ["known_10.0.0.7_2222_pi_board"]),
        ("~/%k", ["orin"]),
        ("${HOME}/50%%", ["50%"]),
        ("none", [None]),
    ],
)
def test_where_known_hosts_are(home, setting, files):
    (home / ".ssh" / "config").write_text(
        "Host board\n  HostName 10.0.0.7\n  Port 2222\n  User pi\n  HostKeyAlias orin\n"
        f"  UserKnownHostsFile {setting}\n"
    )
    *found, system, _ = find_route("ssh:board")[-1].known_hosts
    assert found == [Path("/dev/null") if name is None else home / name for name in files]
    assert system == Path("/etc/ssh/ssh_known_hosts")


@pytest.mark.parametrize("setting", ["~/%z", "~/100%", "${NO_SUCH_VARIABLE}/hosts", '"~/hosts', "~no-such-user/hosts"])
def test_known_hosts_that_are_nowhere(home, setting):
    (home / ".ssh" / "config").write_text(f"Host board\n  UserKnownHostsFile {setting}\n")
    with pytest.raises(UsageError, match="cannot be used"):
        find_route("ssh:board")


def test_no_way_round_is_a_way_too(home):
    (home / ".ssh" / "config").write_text("Host *\n  ProxyCommand none\n  ProxyJump none\n")
    assert [target.host for target in find_route("ssh:board")] == ["board"]
