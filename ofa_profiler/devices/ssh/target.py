"""What the configuration of ssh says about one machine.

OpenSSH reads it (`openssh.py`), or we do (`config_files.py`). Both give the options as `ssh -G` prints them: keys in
lower case, tokens such as `%h` and `~` still in the values.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Options of one machine. A key of `ssh -G` may have several values.
Options = Mapping[str, Sequence[str]]
#: The files that OpenSSH looks for if the configuration names none.
DEFAULT_KEYS = tuple(f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk"))
SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_AGENT_VARIABLE = "SSH_AUTH_SOCK"


@dataclass(frozen=True)
class Target:
    """One machine to log in to."""

    host: str
    port: int
    user: str
    #: Its name in `known_hosts`, if it differs.
    alias: str | None
    #: Private keys, or public ones that choose a key of the agent. Some may not exist.
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    #: Of the agent's keys, use only those that `identity_files` name.
    identities_only: bool
    #: The socket of the ssh agent; None for no agent.
    agent: Path | None
    #: New keys are added to the first file.
    known_hosts: tuple[Path, ...]
    #: The machines to go through, as in `ProxyJump`.
    jumps: tuple[str, ...]
    #: A program whose input and output are the connection.
    proxy_command: str | None
    #: The program of `proxy_command` opens the connection and hands it over.
    proxy_passes_socket: bool
    connect_timeout_s: float | None
    family: socket.AddressFamily
    #: An address of this machine to connect from.
    bind_address: str | None
    #: Ways to log in that the configuration allows.
    use_keys: bool
    use_password: bool

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


def local_user() -> str:
    """Return the name of the user by the password file, as OpenSSH does, whatever `$USER` says."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return getpass.getuser()


def password_home() -> Path | None:
    """Return the home folder in the password file, which OpenSSH takes, whatever `$HOME` says."""
    try:
        import pwd

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):
        return None


def make_target(name: str, options: Options) -> Target:
    """Interpret the options of the machine that the user calls `name`. Raises `ValueError`."""

    def get(key: str, default: str = "") -> str:
        return next(iter(options.get(key, ())), default)

    host, port, user, alias = get("hostname", name), int(get("port", "22")), get("user"), get("hostkeyalias").lower()
    tokens = {"h": host, "k": alias or name, "n": name, "p": str(port), "r": user, "u": local_user(), "%": "%"}
    tokens |= {"d": str(Path.home()), "i": str(os.getuid()), "l": socket.gethostname()}
    tokens["L"] = tokens["l"].partition(".")[0]

    def paths(key: str, *defaults: str, none: Sequence[str] = ()) -> tuple[Path, ...]:
        words = list(options.get(key) or defaults)
        if [word.lower() for word in words] == ["none"]:
            words = list(none)
        return tuple(_path(word, tokens) for word in words if word.lower() != "none")

    jumps = get("proxyjump", "none")
    command = get("proxycommand", "none")
    methods = get("preferredauthentications", "publickey,keyboard-interactive,password").split(",")
    password_methods = {"password": "passwordauthentication", "keyboard-interactive": "kbdinteractiveauthentication"}
    timeout = get("connecttimeout", "none")
    return Target(
        host=host,
        port=port,
        user=user,
        alias=alias or None,
        identity_files=paths("identityfile", *DEFAULT_KEYS),
        certificate_files=paths("certificatefile"),
        identities_only=_is_on(get("identitiesonly", "no")),
        agent=_agent(get("identityagent", _AGENT_VARIABLE), tokens),
        known_hosts=(
            *paths("userknownhostsfile", "~/.ssh/known_hosts", "~/.ssh/known_hosts2", none=[os.devnull]),
            *paths("globalknownhostsfile", *SYSTEM_KNOWN_HOSTS),
        ),
        jumps=() if jumps.lower() == "none" else tuple(_expand(jumps.replace('"', ""), tokens).split(",")),
        # The shell expands `${VARIABLE}` and `~`.
        proxy_command=None if command.lower() == "none" else _expand(command, tokens, environment=False),
        proxy_passes_socket=_is_on(get("proxyusefdpass", "no")),
        connect_timeout_s=None if timeout == "none" else float(timeout),
        family=_FAMILIES.get(get("addressfamily", "any").lower(), socket.AF_UNSPEC),
        bind_address=get("bindaddress") or None,
        use_keys="publickey" in methods and _is_on(get("pubkeyauthentication", "yes")),
        use_password=any(method in methods and _is_on(get(key, "yes")) for method, key in password_methods.items()),
    )


def _is_on(value: str) -> bool:
    return value.lower() not in ("no", "false")


def _agent(setting: str, tokens: Mapping[str, str]) -> Path | None:
    if setting.lower() == "none":
        return None
    if setting == _AGENT_VARIABLE:
        setting = f"${_AGENT_VARIABLE}"
    if re.fullmatch(r"\$\w+", setting):
        socket_path = os.environ.get(setting[1:])
        return Path(socket_path) if socket_path else None
    return _path(setting, tokens)


def _path(text: str, tokens: Mapping[str, str]) -> Path:
    try:
        return Path(_expand(text, tokens)).expanduser()
    except RuntimeError as error:  # a `~user` without such a user
        raise ValueError(str(error)) from None


def _expand(text: str, tokens: Mapping[str, str], *, environment: bool = True) -> str:
    """Replace tokens like `%h`, and `${VARIABLE}`. Raises `ValueError` for an unknown one."""

    def meaning(found: re.Match[str]) -> str:
        value = tokens.get(found[2]) if found[2] is not None else os.environ.get(found[1])
        if value is None:
            raise ValueError(f"{found[0]} in {text!r} has no value")
        return value

    return re.sub(r"\$\{(\w+)\}|%(.?)" if environment else r"(\0)|%(.?)", meaning, text)
