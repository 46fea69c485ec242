"""The files of private keys that are tried: those named in `~/.ssh/config`, and the usual ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import paramiko

_KINDS: Sequence[type[paramiko.PKey]] = (paramiko.RSAKey, paramiko.ECDSAKey, paramiko.Ed25519Key)
_USUAL = ("id_rsa", "id_ecdsa", "id_ed25519")
_DAMAGED = "cannot be read"


def usual_keys() -> list[str]:
    """Those of `ssh` that are there."""
    paths = [Path("~/.ssh").expanduser() / name for name in _USUAL]
    return [str(path) for path in paths if path.is_file()]


def sort_out(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys among these files, and what there is to say of the others, and of those that nobody unlocks.

    paramiko would stop at a file that is damaged, as `ssh` does not.
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
    certificate = Path(f"{path}-cert.pub")  # goes along with its key
    for kind in _KINDS:
        try:
            key = kind.from_private_key_file(path)
            if certificate.is_file():
                key.load_certificate(str(certificate))
        except paramiko.PasswordRequiredException:
            return "has a passphrase: ssh-add it"
        except Exception:  # noqa: S112 (decoders of three kinds raise what they like)
            continue
        return ""
    return _DAMAGED
