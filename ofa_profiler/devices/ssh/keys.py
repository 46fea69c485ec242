"""The keys for a login, in OpenSSH's order: of the agent those that the configuration names, its others, then files."""

from __future__ import annotations

import base64
import binascii
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ofa_profiler.devices.ssh.agent import HeldKey
from ofa_profiler.devices.ssh.target import DEFAULT_KEYS, Target

_OPENSSH_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_CERTIFICATE = "-cert-v01@openssh.com"


@dataclass(frozen=True)
class KeyFile:
    """What could be read of a private key file, or of the public one beside it."""

    path: Path
    #: The public key in the encoding of ssh.
    public: bytes | None
    private: paramiko.PKey | None
    #: Why the private key cannot be used; empty if it can, or if there is none.
    problem: str


def choose_keys(
    target: Target, agent_keys: Sequence[HeldKey], passphrase: str | None
) -> tuple[list[paramiko.PKey], list[str]]:
    """Return the keys to offer to a machine in this order, and notes about those that cannot be used."""
    files = [read_key(path, passphrase) for path in dict.fromkeys(target.identity_files)]
    named = {file.public for file in files} - {None}
    certificates, notes = _certificates([*target.certificate_files, *(Path(f"{file.path}-cert.pub") for file in files)])
    mine = [key for key in agent_keys if _plain(key.asbytes()) in named]
    # OpenSSH offers the other keys of the agent before files that it does not hold.
    others = [] if target.identities_only else [key for key in agent_keys if key not in mine]
    held = {_plain(key.asbytes()) for key in agent_keys}
    private = [file.private for file in files if file.private is not None and file.public not in held]
    keys = [*mine, *others, *private]
    certified = [_with_certificate(key, path) for key in keys for path in certificates.get(key.asbytes(), ())]
    defaults = {Path(path).expanduser() for path in DEFAULT_KEYS}
    for file in files:
        is_missing = not file.path.exists() and file.public is None and file.path not in defaults
        if file.public in held and file.public is not None:
            continue
        if file.problem or is_missing:
            notes.append(f"the key {file.path} {file.problem or 'does not exist'}")
        elif file.private is None and file.public is not None:
            notes.append(f"the agent does not hold the key of {file.path}")
    return [*certified, *keys], notes


def read_key(path: Path, passphrase: str | None = None) -> KeyFile:
    """Read a key file. Never raises."""
    try:
        data = path.read_bytes()
    except OSError as error:
        public = _read_public(path.with_name(path.name + ".pub"))
        problem = "" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        return KeyFile(path, public, None, problem)
    public = _public_of(data) or _read_public(path.with_name(path.name + ".pub"))
    if _public_of_line(data) is not None:
        return KeyFile(path, public, None, "")
    try:
        private = _load(data, passphrase)
    except _LockedError:
        return KeyFile(path, public, None, "has a passphrase: ssh-add it")
    except Exception:  # the decoders have no common error
        if public is not None and paramiko.Message(public).get_binary().startswith(b"sk-"):
            return KeyFile(path, public, None, "is one of a hardware key: ssh-add it")
        is_putty = data.startswith(b"PuTTY-User-Key-File")
        advice = ": convert it with puttygen -O private-openssh" if is_putty else ""
        return KeyFile(path, public, None, f"cannot be read{advice}")
    return KeyFile(path, private.asbytes(), private, "")


class _LockedError(Exception):
    """A passphrase is missing or wrong."""


def _load(data: bytes, passphrase: str | None) -> paramiko.PKey:
    """Read a private key of any format that OpenSSH reads; paramiko itself does not read PKCS#8."""
    load = pem.load_ssh_private_key if _OPENSSH_BEGIN in data else pem.load_pem_private_key
    try:
        key = load(data, None)
    except TypeError:
        if not passphrase:
            raise _LockedError from None
        try:
            key = load(data, passphrase.encode())
        except ValueError:
            raise _LockedError from None
    kinds: tuple[tuple[type, type[paramiko.PKey]], ...] = (
        (rsa.RSAPrivateKey, paramiko.RSAKey),
        (ec.EllipticCurvePrivateKey, paramiko.ECDSAKey),
        (ed25519.Ed25519PrivateKey, paramiko.Ed25519Key),
    )
    kind = next(ours for theirs, ours in kinds if isinstance(key, theirs))
    text = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.OpenSSH, pem.NoEncryption())
    return kind.from_private_key(StringIO(text.decode()))


def _public_of(data: bytes) -> bytes | None:
    """Return the public key in a public file, or in OpenSSH's private one, which shows it without the passphrase."""
    if _OPENSSH_BEGIN not in data:
        return _public_of_line(data)
    body = data.partition(_OPENSSH_BEGIN)[2].partition(b"-----END")[0]
    try:
        binary = base64.b64decode(b"".join(body.split()), validate=True)
        message = paramiko.Message(binary.removeprefix(_OPENSSH_MAGIC))
        for _ in range(3):  # the cipher, the function of the passphrase, its options
            message.get_binary()
        message.get_int()
        return message.get_binary() or None
    except Exception:  # of any kind: the file may be damaged anywhere
        return None


def _read_public(path: Path) -> bytes | None:
    try:
        return _public_of_line(path.read_bytes())
    except OSError:
        return None


def _public_of_line(data: bytes) -> bytes | None:
    words = data.split(maxsplit=2)
    try:
        blob = base64.b64decode(words[1], validate=True)
        return blob if paramiko.Message(blob).get_binary() == words[0] else None
    except (IndexError, ValueError, binascii.Error):
        return None


def _plain(blob: bytes) -> bytes:
    """Return the key that a certificate is about, or the key itself."""
    kind = paramiko.Message(blob).get_binary().decode("ascii", "replace")
    if not kind.endswith(_CERTIFICATE):
        return blob
    try:
        line = f"{kind} {base64.b64encode(blob).decode()}".encode()
        identity = pem.load_ssh_public_identity(line)
        assert isinstance(identity, pem.SSHCertificate)
        public = identity.public_key().public_bytes(pem.Encoding.OpenSSH, pem.PublicFormat.OpenSSH)
        return base64.b64decode(public.split()[1])
    except Exception:  # kinds that the library does not know
        return blob


def _certificates(paths: Sequence[Path]) -> tuple[dict[bytes, list[Path]], list[str]]:
    """Return the certificate files by the key that they are about, and notes about damaged ones."""
    found: dict[bytes, list[Path]] = {}
    notes = []
    for path in dict.fromkeys(paths):
        blob = _read_public(path)
        if blob is None or _plain(blob) == blob:
            if path.exists():
                notes.append(f"the certificate {path} cannot be read")
            continue
        found.setdefault(_plain(blob), []).append(path)
    return found, notes


def _with_certificate(key: paramiko.PKey, path: Path) -> paramiko.PKey:
    """Return a copy of a key that presents a certificate."""
    twin = key.twin() if isinstance(key, HeldKey) else copy.copy(key)
    twin.load_certificate(str(path))
    return twin
