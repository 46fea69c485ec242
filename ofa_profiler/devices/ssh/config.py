"""Where `ssh:[user@]host[:port]` leads: the words after `ssh:` and what `~/.ssh/config` says about them."""

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
#: Criteria that paramiko takes for met since it does not know them, and what is never met instead.
_OTHER_MATCH = re.compile(r"\s*match\b.*[\s=]!?(tagged|localnetwork|version|sessiontype|command)\b", re.IGNORECASE)
_NO_MATCH = "Match originalhost -"


@dataclass(frozen=True)
class Target:
    """One machine to log in to."""

    host: str
    port: int
    user: str
    #: Its name in `known_hosts`, if that is another.
    alias: str | None
    identity_files: tuple[str, ...]
    #: Only these keys: neither those of the agent nor the usual files.
    identities_only: bool
    known_hosts: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


def find_route(spec: str) -> list[Target]:
    """The machines on the way to a device, the device last. Raises `UsageError` for what makes no sense."""
    user, host, port = _split(spec, spec.removeprefix("ssh:"))
    try:
        return _route(spec, _load_config(), user, host, port, _MOST_HOPS)
    except RuntimeError as error:  # a `~` that is nobody's
        raise UsageError(f"device {spec!r}: ~/.ssh/config cannot be used: {error}") from error


def _route(
    spec: str, config: paramiko.SSHConfig, user: str | None, host: str, port: int | None, hops: int
) -> list[Target]:
    if hops == 0:
        raise UsageError(f"device {spec!r}: ProxyJump in ~/.ssh/config leads round in circles")
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
        raise UsageError(f"device {spec!r}: ProxyCommand in ~/.ssh/config is not supported, ProxyJump is")
    if proxy_jump.lower() == "none":
        return [target]
    *before, last = [_split(spec, jump.strip()) for jump in proxy_jump.split(",")]
    # As OpenSSH has it, only the first machine of the list may have a way of its own.
    first, *middle = [*before, last]
    route = _route(spec, config, *first, hops - 1)
    for jump in middle:
        route.append(_route(spec, config, *jump, hops - 1)[-1])
    return [*route, target]


def _check_address(spec: str, target: Target) -> None:
    """What the configuration makes of a name may be none either."""
    if not 0 < target.port < 1 << 16:
        raise UsageError(f"device {spec!r}: {target.port} is not a port")
    try:
        target.host.encode("idna")
    except UnicodeError:
        raise UsageError(f"device {spec!r}: {target.host!r} is not the name of a host") from None


def _known_hosts(setting: str | None, tokens: Mapping[str, str]) -> tuple[Path, ...]:
    files = shlex.split(setting) if setting else ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"]
    files = [os.devnull if file.lower() == "none" else _expand(file, tokens) for file in files]
    return (*(Path(file).expanduser() for file in files), SYSTEM_FILE)


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    """`%h` and the like, and `${VARIABLE}`, where paramiko leaves them. Raises `ValueError` for what is none."""

    def meaning(found: re.Match[str]) -> str:
        value = os.environ.get(found[1]) if found[1] else {**tokens, "%": "%"}.get(found[2])
        if value is None:
            raise ValueError(f"{found[0]} in {text!r} stands for nothing")
        return value

    return re.sub(r"\$\{(\w+)\}|%(.?)", meaning, text)


def _split(spec: str, words: str) -> tuple[str | None, str, int | None]:
    """`[user@]host[:port]` -> its parts."""
    words = words.removeprefix("ssh://").rstrip("/")
    user, _, rest = words.rpartition("@")
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:/\[\]]+))(?::(\d{1,5}))?", rest)
    if rest.count(":") > 1 and not rest.startswith("["):
        raise UsageError(f"device {spec!r}: an IPv6 address belongs in brackets, as in ssh:pi@[fe80::1]:22")
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
    """A configuration with what it includes, which paramiko leaves out."""
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
