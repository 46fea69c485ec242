"""The RSA key that identifies this computer to phones: `~/.android/adbkey`, shared with Google's adb.

A phone asks its owner once per key. The public key is sent in Android's own format
(`libcrypto_utils/android_pubkey.c`): sizes and Montgomery constants beside the modulus.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import socket
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.errors import InputFileError, UsageError

if TYPE_CHECKING:
    from adb_shell.auth.sign_pythonrsa import PythonRSASigner

_BITS = 2048
_BYTES = _BITS // 8


def key_file() -> Path:
    """Return the path of the key, which is that of Google's adb."""
    return Path.home() / ".android" / "adbkey"


def load_signer(path: Path | None = None) -> PythonRSASigner:
    """Return the key in `path`, created if it is missing. Raises `UsageError` if it cannot be read or written."""
    from adb_shell.auth.sign_pythonrsa import PythonRSASigner

    path = path or key_file()
    _make_if_missing(path)
    try:
        private = path.read_text("ascii")
        # The public key is computed, because its file may be missing or belong to another key.
        return PythonRSASigner(public_key_text(path), private)
    except OSError as error:
        raise InputFileError(path, error.strerror or str(error)) from error
    except (ValueError, TypeError) as error:
        raise InputFileError(
            path, f"not an RSA key in the format of adb ({error}); move it away, and a new key is created"
        ) from None


def public_key_text(path: Path) -> str:
    """Return the public part of the private key in `path`, as a line of `adb_keys` on a phone, without a line end.

    Raises `OSError` or `ValueError`.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, RSAPrivateKey) or key.key_size != _BITS:
        raise ValueError(f"not an RSA key of {_BITS} bits")
    public = key.public_key().public_numbers()
    word = 1 << 32
    encoded = struct.pack(
        f"<LL{_BYTES}s{_BYTES}sL",
        _BYTES // 4,
        word - pow(public.n % word, -1, word),
        public.n.to_bytes(_BYTES, "little"),
        pow(1 << _BITS, 2, public.n).to_bytes(_BYTES, "little"),
        public.e,
    )
    return f"{base64.b64encode(encoded).decode()} {_user_at_host()}"


def _user_at_host() -> str:
    """Return the name that the phone shows its owner beside the fingerprint."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return "".join(
        letter if letter.isprintable() and letter != " " else "_" for letter in f"{user}@{socket.gethostname()}"
    )


def _make_if_missing(path: Path) -> None:
    if path.exists():
        return
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(65537, _BITS).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".adbkey.", dir=path.parent)  # readable by this user only
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would overwrite, so if two programs create a key, the first one is kept.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            # With a line end, because phones append keys to a file of lines.
            path.with_name(path.name + ".pub").write_text(public_key_text(path) + "\n", "ascii", newline="\n")
    except OSError as error:
        raise UsageError(
            f"cannot write {path}, the key that identifies this computer to phones: {error.strerror}"
        ) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
