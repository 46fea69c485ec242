"""The private key files for a login: those named in `~/.ssh/config`, and the default ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import paramiko

_KINDS: Sequence[type[paramiko.PKey]] = (paramiko.RSAKey, paramiko.ECDSAKey, paramiko.Ed25519Key)
_DEFAULTS = ("id_rsa", "id_ecdsa", "id_ed25519")
_DAMAGED = "cannot be read"


def default_keys() -> list[str]:
    """Return the default key files of `ssh` that exist."""
    paths = [Path("~/.ssh").expanduser() / name for name in _DEFAULTS]
    return [str(path) for path in paths if path.is_file()]


def usable_keys(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the usable keys among these files, and notes about damaged files and about keys with a passphrase.

    paramiko would stop at a damaged file; `ssh` skips it.
    """
    keys, notes = [], []
    for path in dict.fromkeys(paths):
        state = _state_of(path)
        if state is not _DAMAGED:
            keys.append(path)
        if state:
            notes.append(f"the key {path} {state}")
    return keys, notes


def _state_of(path: str) -> str:
    certificate = Path(f"{path}-cert.pub")  # belongs to the key
    for kind in _KINDS:
        try:
            key = kind.from_private_key_file(path)
            if certificate.is_file():
                key.load_certificate(str(certificate))
        except paramiko.PasswordRequiredException:
            return "has a passphrase: ssh-add it"
        except Exception:  # noqa: S112 (the decoders have no common error)
            continue
        return ""
    return _DAMAGED
