"""Host keys: the file `known_hosts` of OpenSSH.

An unknown key is refused unless the user gave its fingerprint. A key that differs from the known one, or that is marked
`@revoked`, is always refused.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from ofa_profiler.errors import DeviceError, InputFileError, UsageError

_DEFAULT_PORT = 22


def fingerprint(key: bytes) -> str:
    """Return the fingerprint of a key, as `ssh-keygen -lf` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def host_name(host: str, port: int) -> str:
    """Return the name of a host in `known_hosts`."""
    return host.lower() if port == _DEFAULT_PORT else f"[{host.lower()}]:{port}"


@dataclass(frozen=True)
class Entry:
    """One line of a file."""

    path: Path
    row: int
    marker: str
    names: str
    kind: str
    key: bytes

    def matches(self, name: str) -> bool:
        """Tell whether the line is about `name`: by a hash, or by a pattern if no negated pattern matches."""
        if self.names.startswith("|1|"):
            return _matches_hash(self.names, name)
        patterns = self.names.lower().split(",")
        if any(pattern[:1] == "!" and matches_pattern(pattern[1:], name) for pattern in patterns):
            return False
        return any(matches_pattern(pattern, name) for pattern in patterns)


def _matches_hash(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed.split("|")[2:4])
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def matches_pattern(pattern: str, name: str) -> bool:
    """Compare a name with a pattern of OpenSSH, in which brackets are literal: `[host]:2222`."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


@dataclass(frozen=True)
class KnownHosts:
    """Files of known keys. A missing file counts as empty. New keys are added to the first file."""

    paths: Sequence[Path]

    def entries(self) -> Iterator[Entry]:
        """Yield every valid line; like OpenSSH, skip the others. Raises `InputFileError`."""
        for path in self.paths:
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise InputFileError(path, error.strerror or str(error)) from error
            for row, line in enumerate(lines, start=1):
                if (entry := _parse(path, row, line)) is not None:
                    yield entry

    def kinds(self, name: str) -> list[str]:
        """Return the types of the known keys of a host."""
        return [entry.kind for entry in self.entries() if not entry.marker and entry.matches(name)]

    def check(self, spec: str, name: str, key: paramiko.PKey, accepted: str | None) -> None:
        """Raise `DeviceError` unless `key` is known for `name`, or no key is and `accepted` is its fingerprint."""
        data, kind = key.asbytes(), key.get_name()
        shown = f"{kind} {fingerprint(data)}"
        entries = list(self.entries())
        for entry in entries:
            if entry.marker == "@revoked" and entry.key == data:
                raise DeviceError(f"{spec}: its host key {shown} is revoked in {entry.path}, row {entry.row}")
        known = [entry for entry in entries if not entry.marker and entry.matches(name)]
        if any(entry.key == data for entry in known):
            return
        if known:
            first = next((entry for entry in known if entry.kind == kind), known[0])
            raise DeviceError(
                f"{spec}: the host key of {name} has CHANGED to {shown}, it was {first.kind} {fingerprint(first.key)}: "
                f"either the device was reinstalled, or this is a man-in-the-middle attack; if it was reinstalled, "
                f"remove row {first.row} of {first.path} (ssh-keygen -R {name})"
            )
        if accepted is None or accepted.rstrip("=") != fingerprint(data):
            other = f" (not {accepted})" if accepted is not None else ""
            raise DeviceError(
                f"{spec}: the host key of {name} is not known: {shown}{other}; compare it with the output of "
                f"ssh-keygen -lf on the device; if both are equal, give --accept-host-key {fingerprint(data)}"
            )
        self._add(f"{name} {kind} {base64.b64encode(data).decode()}\n")

    def _add(self, line: str) -> None:
        path = self.paths[0]
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "rb+", buffering=0) as file:
                old = file.read() or b""
                file.write((b"" if old.endswith(b"\n") or not old else b"\n") + line.encode())
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _parse(path: Path, row: int, line: str) -> Entry | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if len(words) < 3:
        return None
    try:
        return Entry(path, row, marker, words[0], words[1], base64.b64decode(words[2], validate=True))
    except (ValueError, binascii.Error):
        return None
