"""The machines behind `ssh:[user@]host[:port]`, according to `~/.ssh/config`."""

from __future__ import annotations

import re
from collections.abc import Callable

from ofa_profiler.devices.ssh import config_files, openssh
from ofa_profiler.devices.ssh.target import Target, make_target
from ofa_profiler.errors import InputFileError, UsageError

_MOST_HOPS = 8
_DEFAULT_PORT = 22
_CIRCLE = "ProxyJump in ~/.ssh/config forms a circle"
#: As in OpenSSH, no name may contain what a shell would run as a part of a `ProxyCommand`.
_UNSAFE = frozenset("'`\"$;&<>|(){}")
#: Options that OpenSSH follows and we do not, though they make a difference.
_UNUSED = ("revokedhostkeys", "knownhostscommand", "pkcs11provider")


def find_route(spec: str, tell: Callable[[str], None] | None = None) -> list[Target]:
    """Return the jump hosts to a device, and the device as the last. Raises `UsageError` for a wrong name.

    `tell` gets a line about what could not be used of the configuration.
    """
    route = _Route(spec)
    targets = route.find(*_split(spec, spec.removeprefix("ssh:")), _MOST_HOPS)
    if tell is not None and route.unused:
        reason = f"{route.reason}; " if route.reason else ""
        tell(f"{spec}: {reason}not used of the ssh configuration: {', '.join(route.unused)}")
    return targets


class _SelfJumpError(UsageError):
    """A machine is its own jump host."""


class _Route:
    def __init__(self, spec: str) -> None:
        self.spec = spec
        #: Why OpenSSH was not asked, and what that costs.
        self.reason = ""
        self.unused: dict[str, None] = {}

    def find(self, user: str | None, host: str, port: int | None, hops: int) -> list[Target]:
        if hops == 0:
            raise UsageError(f"device {self.spec!r}: {_CIRCLE}")
        target = self._target(user, host, port)
        if not target.jumps:
            return [target]
        first, *middle = [_split(self.spec, jump.strip()) for jump in target.jumps]
        # As in OpenSSH, only the first machine of the list may have jump hosts of its own.
        try:
            route = self.find(*first, hops - 1)
        except _SelfJumpError:  # a `ProxyJump gw` for all hosts, gw among them
            route = [self._target(*first, is_direct=True)]
        route += [self._target(*jump, is_direct=True) for jump in middle]
        return [*route, target]

    def _target(self, user: str | None, host: str, port: int | None, *, is_direct: bool = False) -> Target:
        """Return a machine; with `is_direct` without a way to it. Raises `UsageError`."""
        try:
            try:
                options = openssh.ask(host, user, port, is_direct=is_direct)
                unused = [key for key in _UNUSED if options.get(key, ["none"]) != ["none"]]
            except openssh.CannotAsk as reason:
                self.reason = str(reason)
                options, unused = config_files.read(host, user, port, is_direct=is_direct)
            self.unused |= dict.fromkeys(unused)
            target = make_target(host, options)
        except InputFileError:
            raise
        except (UsageError, ValueError, KeyError, OSError) as error:
            if "jumphost loop" in str(error):
                raise _SelfJumpError(f"device {self.spec!r}: {_CIRCLE}") from None
            raise UsageError(f"device {self.spec!r}: ~/.ssh/config cannot be used: {error}") from error
        _check_address(self.spec, target)
        if target.jumps:
            user, host, port = _split(self.spec, target.jumps[-1].strip())
            if (user or target.user, host, port or _DEFAULT_PORT) == (target.user, target.host, target.port):
                raise _SelfJumpError(f"device {self.spec!r}: {_CIRCLE}")
        return target


def _check_address(spec: str, target: Target) -> None:
    """Check the host and the port that the configuration gives. Raises `UsageError`."""
    if not 0 < target.port < 1 << 16:
        raise UsageError(f"device {spec!r}: {target.port} is not a port")
    try:
        target.host.encode("idna")
    except UnicodeError:
        raise UsageError(f"device {spec!r}: {target.host!r} is not a host name") from None


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
    if unsafe := sorted(_UNSAFE & set(host + user)):
        raise UsageError(f"device {spec!r}: {unsafe[0]!r} cannot be part of a user or host name")
    port = int(found[3]) if found[3] else None
    if port is not None and not 0 < port < 1 << 16:
        raise UsageError(f"device {spec!r}: {port} is not a port")
    return user or None, host, port
