"""Installs the Python bundle on a phone, unless it is there."""

from __future__ import annotations

import hashlib
import secrets

from ofa_profiler.devices.android.python_bundle import LAUNCHER, Bundle
from ofa_profiler.devices.remote.shell import Completed, Shell, one_line
from ofa_profiler.errors import DeviceError, InputFileError, TransientDeviceError, UploadInterrupted

_MACHINE = "aarch64"
#: The compressed bundle is sent in pieces of this size. After an interruption only the interrupted piece is repeated.
_PIECE_BYTES = 1 << 19
#: Arguments: the folder of the bundle, the SHA-256 of its list of files, and whether to check every file.
_CHECK = """\
cd "$1" 2>/dev/null && [ "$(sha256sum SHA256SUMS)" = "$2  SHA256SUMS" ] || exit 1
[ "$3" = quick ] || sha256sum -c SHA256SUMS >/dev/null 2>&1
"""
#: Arguments: the root, and the folder in it for the pieces. Prints the names of the pieces that are there.
_BEGIN = """\
umask 077
mkdir -p "$1/$2" && ls "$1/$2"
"""
#: Also: the name of a piece, its size, and a temporary name. A piece gets its name when it is complete, so two runs may
#: send the same piece. If the disk is full, the pieces are removed.
_TAKE = """\
umask 077
new="$1/$2/$5"
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM
cat > "$new" || { rm -rf "$1/$2"; exit 1; }
[ $(wc -c < "$new") -eq "$4" ] && mv "$new" "$1/$2/$3"
"""
#: Arguments: the root, the folder of the pieces, the name of the folder to install, a temporary name. Prints the names
#: of files as heartbeats. The folder gets its name when it is complete. Damaged pieces are removed.
_INSTALL = """\
umask 077
new="$1/$4"
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$new" && cd "$new" || exit 1
cat "$1/$2"/[0-9]* | tar -xvzf - && sha256sum -c SHA256SUMS && sync || { rm -rf "$1/$2"; exit 1; }
rm -rf "$1/$3" && mv "$new" "$1/$3" && rm -rf "$1/"python-*.part
"""


def install_python(shell: Shell, bundle: Bundle, root: str, *, thorough: bool = False) -> str:
    """Make sure that `bundle` is on the phone, below the folder `root`, and return the path of its Python.

    All files are checked when they are installed. Later only the name and the list of files are checked, unless
    `thorough`, which takes about a second. Raises `UploadInterrupted` if the next call may have less to send, and
    `DeviceError` for a phone that cannot run the bundle or has no space for it.
    """
    folder = f"{root}/{bundle.name}"
    check = ["sh", "-c", _CHECK, "sh", folder, bundle.identity, "thorough" if thorough else "quick"]
    if shell.run(check).exit_code != 0:
        machine = one_line(shell.run(["uname", "-m"]).stdout.decode("utf-8", "replace"))
        if machine != _MACHINE:
            raise DeviceError(
                f"{shell.spec}: the processor is {machine or 'unknown'}, the Python for phones needs {_MACHINE}; "
                "--benchmark-model measures without Python"
            )
        try:
            packed = bundle.path.read_bytes()
        except OSError as error:
            raise InputFileError(bundle.path, error.strerror or str(error)) from error
        # Named after the compressed bytes, because the same files can be compressed in different ways.
        pieces = f"{bundle.name}-{hashlib.sha256(packed).hexdigest()[:16]}.part"
        need = bundle.size + len(packed)
        _send(shell, packed, root, pieces, need)
        words = ["sh", "-c", _INSTALL, "sh", root, pieces, bundle.name, f".incoming-{secrets.token_hex(8)}"]
        _expect_success(shell, shell.run(words), root, need)
    return f"{folder}/{LAUNCHER}"


def _send(shell: Shell, packed: bytes, root: str, folder: str, need: int) -> None:
    begun = shell.run(["sh", "-c", _BEGIN, "sh", root, folder])
    _expect_success(shell, begun, root, need)
    there = set(begun.stdout.decode("utf-8", "replace").split())
    starts = range(0, len(packed), _PIECE_BYTES)
    pieces = {f"{start // _PIECE_BYTES:06d}": packed[start : start + _PIECE_BYTES] for start in starts}
    missing = [name for name in pieces if name not in there]
    remaining = sum(len(pieces[name]) for name in missing)
    for name in missing:
        size, temporary = str(len(pieces[name])), f".incoming-{secrets.token_hex(8)}"
        try:
            done = shell.run(["sh", "-c", _TAKE, "sh", root, folder, name, size, temporary], pieces[name])
        except TransientDeviceError as error:
            raise UploadInterrupted(str(error), remaining) from error
        _expect_success(shell, done, root, need)


def _expect_success(shell: Shell, done: Completed, root: str, need: int) -> None:
    if done.exit_code == 0:
        return
    words = one_line(done.stderr)
    if "No space left" in words:
        raise DeviceError(
            f"{shell.spec}: the storage of the phone is full: Python needs {-(-need // (1 << 20))} MB in {root}"
        )
    # A damaged transfer fails as an unreadable archive, and another attempt may succeed.
    raise TransientDeviceError(f"{shell.spec}: Python could not be installed on the phone: {words or done.exit_code}")
