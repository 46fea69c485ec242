"""The machines behind `ssh:[user@]host[:port]`, according to `~/.ssh/config`."""

from __future__ import annotations

import getpass
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import paramiko

from ofa_profiler.devices.ssh.known_hosts import SYSTEM_FILE
from ofa_profiler.errors import InputFileError, UsageError

_MOST_INCLUDES = 16
_MOST_HOPS = 8
#: Criteria that paramiko does not know and treats as met, and a replacement that is never met.
_OTHER_MATCH = re.compile(r"\s*match\b.*[\s=]!?(tagged|localnetwork|version|sessiontype|command)\b", re.IGNORECASE)
_NO_MATCH = "Match originalhost -"


@dataclass(frozen=True)
class Target:
    """One machine to log in to."""

    host: str
    port: int
    user: str
    #: Its name in `known_hosts`, if it differs.
    alias: str | None
    identity_files: tuple[str, ...]
    #: Use only these keys: neither those of the ssh agent nor the default files.
    identities_only: bool
    known_hosts: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


def find_route(spec: str) -> list[Target]:
    """Return the jump hosts to a device, and the device as the last. Raises `UsageError` for a wrong name."""
    user, host, port = _split(spec, spec.removeprefix("ssh:"))
    try:
        return _route(spec, _load_config(), user, host, port, _MOST_HOPS)
    except RuntimeError as error:  # a `~user` without such a user
        raise UsageError(f"device {spec!r}: ~/.ssh/config cannot be used: {error}") from error


def _route(
    spec: str, config: paramiko.SSHConfig, user: str | None, host: str, port: int | None, hops: int
) -> list[Target]:
    if hops == 0:
        raise UsageError(f"device {spec!r}: ProxyJump in ~/.ssh/config forms a circle")
    try:
        found = config.lookup(host)
        proxy_jump = found.get("proxyjump") or "none"
        name, alias = found["hostname"], found.get("hostkeyalias")
        port = port or int(found.get("port", 22))
        user = user or found.get("user") or getpass.getuser()
        tokens = {"d": str(Path.home()), "h": name, "k": alias or host, "n": host, "p": str(port), "r": user}
        tokens["u"] = getpass.getuser()
        target = Target(
            host=name,
            port=port,
            user=user,
            alias=alias and _expand(alias, tokens),
            identity_files=tuple(path for path in found.get("identityfile", ()) if Path(path).is_file()),
            identities_only=found.get("identitiesonly", "no").lower() == "yes",
            known_hosts=_known_hosts(found.get("userknownhostsfile"), tokens),
        )
    except (paramiko.SSHException, ValueError, KeyError, OSError) as error:
        raise UsageError(f"device {spec!r}: ~/.ssh/config cannot be used: {error}") from error
    _check_address(spec, target)
    if (found.get("proxycommand") or "none").lower() != "none":
        raise UsageError(f"device {spec!r}: ProxyCommand in ~/.ssh/config is not supported; use ProxyJump")
    if proxy_jump.lower() == "none":
        return [target]
    *before, last = [_split(spec, jump.strip()) for jump in proxy_jump.split(",")]
    # As in OpenSSH, only the first machine of the list may have jump hosts of its own.
    first, *middle = [*before, last]
    route = _route(spec, config, *first, hops - 1)
    for jump in middle:
        route.append(_route(spec, config, *jump, hops - 1)[-1])
    return [*route, target]


def _check_address(spec: str, target: Target) -> None:
    """Check the host and the port that the configuration gives. Raises `UsageError`."""
    if not 0 < target.port < 1 << 16:
        raise UsageError(f"device {spec!r}: {target.port} is not a port")
    try:
        target.host.encode("idna")
    except UnicodeError:
        raise UsageError(f"device {spec!r}: {target.host!r} is not a host name") from None


def _known_hosts(setting: str | None, tokens: Mapping[str, str]) -> tuple[Path, ...]:
    files = shlex.split(setting) if setting else ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
    files = [os.devnull if file.lower() == "none" else _expand(file, tokens) for file in files]
    return (*(Path(file).expanduser() for file in files), SYSTEM_FILE)


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    """Replace tokens like `%h`, and `${VARIABLE}`, where paramiko does not. Raises `ValueError` for an unknown one."""

    def meaning(found: re.Match[str]) -> str:
        value = os.environ.get(found[1]) if found[1] else {**tokens, "%": "%"}.get(found[2])
        if value is None:
            raise ValueError(f"{found[0]} in {text!r} has no value")
        return value

    return re.sub(r"\$\{(\w+)\}|%(.?)", meaning, text)


def _split(spec: str, words: str) -> tuple[str | None, str, int | None]:
    """Split `[user@]host[:port]` into its parts."""
    words = words.removeprefix("ssh://").rstrip("/")
    user, _, rest = words.rpartition("@")
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:/\[\]]+))(?::(\d{1,5}))?", rest)
    if rest.count(":") > 1 and not rest.startswith("["):
        raise UsageError(f"device {spec!r}: write an IPv6 address in brackets, like ssh:pi@[fe80::1]:22")
    host = (found[1] or found[2]) if found else ""
    if not found or host.startswith("-") or not (host + user).isprintable() or ("@" in words and not user):
        raise UsageError(f"device {spec!r} must be ssh:[user@]host[:port]")
    port = int(found[3]) if found[3] else None
    if port is not None and not 0 < port < 1 << 16:
        raise UsageError(f"device {spec!r}: {port} is not a port")
    return user or None, host, port


def _load_config() -> paramiko.SSHConfig:
    config = paramiko.SSHConfig()
    for path in (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")):
        text = "\n".join(_lines(path, path.parent, _MOST_INCLUDES))
        try:
            config.parse(StringIO(text))
        except (paramiko.SSHException, ValueError, IndexError) as error:
            raise InputFileError(path, str(error)) from error
    return config


def _lines(path: Path, folder: Path, includes: int) -> Sequence[str]:
    """Return the lines of a configuration and of the files that it includes, which paramiko ignores."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputFileError(path, error.strerror or str(error)) from error
    lines: list[str] = []
    for line in text.splitlines():
        found = re.fullmatch(r"\s*include[\s=]+(.+?)\s*", line, re.IGNORECASE)
        if not found:
            lines.append(_NO_MATCH if _OTHER_MATCH.match(line) else line)
            continue
        if includes == 0:
            raise InputFileError(path, "it includes itself")
        for pattern in found[1].replace('"', "").split():
            place = Path(pattern).expanduser()
            base = Path(place.anchor) if place.is_absolute() else folder
            for included in sorted(base.glob(str(place.relative_to(base) if place.is_absolute() else place))):
                lines += _lines(included, folder, includes - 1)
    return lines
