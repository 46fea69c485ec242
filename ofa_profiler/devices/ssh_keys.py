"""The files of private keys that are tried: those named in `~/.ssh/config`, and the usual ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import paramiko

_KINDS: Sequence[type[paramiko.PKey]] = (paramiko.RSAKey, paramiko.ECDSAKey, paramiko.Ed25519Key)
_USUAL = ("id_rsa", "id_ecdsa", "id_ed25519")


def usual_keys() -> list[str]:
    """Those of `ssh` that are there."""
    paths = [Path("~/.ssh").expanduser() / name for name in _USUAL]
    return [str(path) for path in paths if path.is_file()]


def sort_out(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys among these files, and what is none: paramiko would stop at one that is damaged, as `ssh` does not."""
    unique = list(dict.fromkeys(paths))
    keys = [path for path in unique if _is_key(path)]
    return keys, [path for path in unique if path not in keys]


def _is_key(path: str) -> bool:
    certificate = Path(f"{path}-cert.pub")  # goes along with its key
    for kind in _KINDS:
        try:
            key = kind.from_private_key_file(path)
            if certificate.is_file():
                key.load_certificate(str(certificate))
        except paramiko.PasswordRequiredException:
            return True
        except Exception:  # noqa: S112 (decoders of three kinds raise what they like)
            continue
        return True
    return False
