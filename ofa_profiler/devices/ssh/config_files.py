"""Our own reading of OpenSSH's configuration, for machines without an `ssh` program.

It follows OpenSSH's readconf.c: files are read line by line for one machine, the first value of an option counts,
`Match` sees the values found so far, and `Match final` or canonical names cause a second pass. What it cannot decide
(`Match exec` and the like) is not met, and is reported.
"""

from __future__ import annotations

import glob
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

from ofa_profiler.devices.ssh.config_words import (
    IRRELEVANT,
    SWITCHES,
    BadLine,
    checked,
    is_address,
    matches,
    split_words,
)
from ofa_profiler.devices.ssh.openssh import SYSTEM_CONFIG
from ofa_profiler.devices.ssh.target import Options, local_user
from ofa_profiler.errors import InputFileError

_MOST_INCLUDES = 16
_WORDS = {
    *("hostname", "user", "port", "hostkeyalias", "identityagent", "connecttimeout", "addressfamily", "bindaddress"),
    *("preferredauthentications", "canonicalizehostname", "canonicalizemaxdots"),
}
#: Several words in one line. The first line counts.
_LISTS = {"userknownhostsfile", "globalknownhostsfile", "canonicaldomains"}
#: One word a line. All lines count.
_REPEATED = {"identityfile", "certificatefile"}
_OLD_NAMES = {"challengeresponseauthentication": "kbdinteractiveauthentication"}
_USED = {*SWITCHES, *_WORDS, *_LISTS, *_REPEATED, "proxyjump", "proxycommand"}
#: Criteria of `Match` that we cannot decide.
_UNDECIDED = {"exec", "tagged", "localnetwork", "version", "sessiontype", "command"}
_LINE = re.compile(r'[ \t\r]*(?:"([^"]*)"|([^\s="]+))[ \t\r]*=?[ \t\r]*(.*)', re.DOTALL)


def read(name: str, user: str | None, port: int | None, *, is_direct: bool = False) -> tuple[Options, list[str]]:
    """Return the options for the machine `name`, and what was not used, as `openssh.ask`. Raises `InputFileError`."""
    given = {"user": user, "port": port, "proxycommand": "none" if is_direct else None}
    reading = _Reading(name, {key: [str(value)] for key, value in given.items() if value is not None})
    reading.read_files()
    host = reading.hostname()
    reading.host, canonical = reading.canonical(host), reading.get("canonicalizehostname") in ("yes", "always", "true")
    if reading.wants_final or canonical:
        reading.is_final = True
        reading.options["hostname"] = [reading.host]
        reading.read_files()
    options = {key: list(values) for key, values in reading.options.items()}
    options["hostname"] = [reading.host]
    options.setdefault("user", [local_user()])
    return options, reading.unused


@dataclass(frozen=True)
class _File:
    path: Path
    #: One of the user's own, not of the system's.
    is_mine: bool
    depth: int = 0
    #: It is included by a block that is not met.
    is_skipped: bool = False


@dataclass
class _Reading:
    original: str
    options: dict[str, list[str]] = field(default_factory=dict)
    is_final: bool = False
    wants_final: bool = False
    unused: list[str] = field(default_factory=list)
    #: What `Host` is compared with: in the second pass the name that the first one has found.
    host: str = ""

    def __post_init__(self) -> None:
        self.host = self.original

    def get(self, key: str) -> str:
        return next(iter(self.options.get(key, ())), "")

    def read_files(self) -> None:
        self._read(_File(Path("~/.ssh/config").expanduser(), is_mine=True), is_active=True)
        try:
            self._read(_File(SYSTEM_CONFIG, is_mine=False), is_active=True)
        except InputFileError as error:
            self._note(str(error))  # nothing in the system's file may prevent a login

    def _note(self, words: str) -> None:
        if words not in self.unused:
            self.unused.append(words)

    def _read(self, file: _File, *, is_active: bool) -> None:
        if file.depth > _MOST_INCLUDES:
            raise InputFileError(file.path, "too many files include each other; a file includes itself")
        try:
            status = file.path.stat()
            if file.is_mine and (status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022):
                words = "bad owner or permissions: others may write it, or own it; chmod 600 and chown it"
                raise InputFileError(file.path, words)
            text = "" if file.path.is_dir() else file.path.read_bytes().decode("utf-8", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise InputFileError(file.path, error.strerror or str(error)) from error
        for row, line in enumerate(text.split("\n"), start=1):
            try:
                is_active = self._line(file, row, line.rstrip(" \t\r\n\f"), is_active=is_active)
            except BadLine as error:  # noqa: PERF203
                raise InputFileError(file.path, str(error), row=row) from None

    def _line(self, file: _File, row: int, line: str, *, is_active: bool) -> bool:
        """Read a line, and tell whether the lines below it count."""
        found = _LINE.fullmatch(line)
        if not found or (found[2] or "").startswith("#"):
            return is_active
        key, rest = (found[1] or found[2] or "").lower(), found[3]
        key = _OLD_NAMES.get(key, key)
        if not rest:
            raise BadLine(f"{key} has no value")
        if key == "host":
            return not file.is_skipped and matches(self.host, split_words(rest))
        if key == "match":
            # Also where it is skipped: it can ask for the second pass.
            return self._match(file, row, rest) and not file.is_skipped
        if key == "include":
            for pattern in split_words(rest):
                self._include(file, pattern, is_active=is_active)
        else:
            self._set(key, rest, is_active=is_active)
            if is_active and key not in _USED | IRRELEVANT:
                self._note(f"{key} in {file.path}, row {row}")
        return is_active

    def _include(self, file: _File, pattern: str, *, is_active: bool) -> None:
        folder = Path("~/.ssh").expanduser() if file.is_mine else SYSTEM_CONFIG.parent
        place = Path(glob.escape(str(folder))) / Path(pattern).expanduser()
        # As with glob(3), `*` does not match a leading dot. After the files, the including block goes on.
        for path in sorted(glob.glob(str(place))):  # noqa: PTH207
            skipped = file.is_skipped or not is_active
            self._read(_File(Path(path), file.is_mine, file.depth + 1, skipped), is_active=is_active)

    def _set(self, key: str, rest: str, *, is_active: bool) -> None:
        if key in ("proxycommand", "proxyjump"):
            rest = rest.lstrip("= \t")
            # A command goes on to the end of the line, a comment is one of its shell's.
            self._set_proxy(key, rest if key == "proxycommand" else re.split(r"[\s#]", rest)[0], is_active=is_active)
            return
        if key not in _USED:
            if not re.fullmatch("[a-z0-9]+", key):
                raise BadLine(f"{key!r} is not an option")
            return
        words = split_words(rest)
        if not words or "" in words:
            raise BadLine(f"{key} has no value")
        if len(words) > 1 and key not in _LISTS:
            raise BadLine(f"{key} has more than one value")
        words = [checked(key, word) for word in words]
        if not is_active:
            return
        if key in _REPEATED:
            old = self.options.setdefault(key, [])
            old += [word for word in words if word not in old]
        else:
            self.options.setdefault(key, words)

    def _set_proxy(self, key: str, value: str, *, is_active: bool) -> None:
        """Of `ProxyJump` and `ProxyCommand` the first counts. A `ProxyJump none` leaves room for a `ProxyCommand`."""
        jump, command = self.get("proxyjump").lower(), self.get("proxycommand")
        is_free = not command and (not jump or (key == "proxycommand" and jump == "none"))
        if is_active and is_free and value:
            self.options[key] = [value]

    def hostname(self) -> str:
        """Return the name to connect to, as far as it is known."""

        def meaning(found: re.Match[str]) -> str:
            if found[1] not in ("h", "%"):
                raise BadLine(f"{found[0]} in HostName has no value")
            return self.host if found[1] == "h" else "%"

        name = re.sub(r"%(.?)", meaning, self.get("hostname") or "%h")
        return name if set(":%") & set(name) else name.lower()  # the interface in an IPv6 address may have capitals

    def canonical(self, host: str) -> str:
        """Return the full name, by `CanonicalizeHostname` and DNS."""
        mode, domains = self.get("canonicalizehostname"), self.options.get("canonicaldomains", ["none"])
        is_direct = all(self.get(key).lower() in ("", "none") for key in ("proxyjump", "proxycommand"))
        if mode not in ("yes", "true", "always") or not (is_direct or mode == "always") or domains == ["none"]:
            return host
        if is_address(host) or host.count(".") > int(self.get("canonicalizemaxdots") or 1):
            return host
        for domain in (word.removesuffix(".") for word in domains):
            try:
                socket.getaddrinfo(f"{host}.{domain}.", None)
            except OSError:
                continue
            return f"{host}.{domain}".lower()
        if self.get("canonicalizefallbacklocal") == "no":
            raise ValueError(f"no address of {host} in {' '.join(domains)} (CanonicalizeFallbackLocal no)")
        return host

    def _match(self, file: _File, row: int, rest: str) -> bool:
        """Tell whether all criteria of a `Match` line are met."""
        words = list(split_words(rest.replace("=", " ")))
        if not words:
            raise BadLine("Match has no criteria")
        is_met, number = True, 0
        while words:
            word = words.pop(0).lower()
            negated, criterion = word.startswith("!"), word.removeprefix("!")
            number += 1
            if criterion == "all":
                if number > 2 or words:
                    raise BadLine("Match all cannot be combined with other criteria")
                is_met &= not negated
            elif criterion in ("canonical", "final"):
                self.wants_final |= criterion == "final"
                is_met &= self.is_final != negated
            elif not words:
                raise BadLine(f"Match {criterion} has no value")
            elif criterion in _UNDECIDED:
                words.pop(0)
                if is_met:
                    self._note(f"Match {criterion} in {file.path}, row {row}")
                is_met = False
            else:
                is_met &= self._criterion(criterion, words.pop(0)) != negated
        return is_met

    def _criterion(self, criterion: str, patterns: str) -> bool:
        if criterion in ("host", "originalhost"):
            name = self.original if criterion == "originalhost" else self.host if self.is_final else self.hostname()
            return matches(name.lower(), patterns.lower().split(","))
        if criterion in ("user", "localuser"):
            name = (criterion == "user" and self.get("user")) or local_user()
            return matches(name, patterns.split(","))
        raise BadLine(f"Match {criterion} is not known")
