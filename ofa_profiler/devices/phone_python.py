"""Brings the Python bundle to a phone, once."""

from __future__ import annotations

import secrets

from ofa_profiler.devices.phone_bundle import LAUNCHER, Bundle
from ofa_profiler.devices.shell import Completed, Shell, one_line
from ofa_profiler.errors import DeviceError, TransientDeviceError

_MACHINE = "aarch64"
#: Arguments: the folder of the bundle, the SHA-256 of its list of files, and whether to read them all.
_CHECK = """\
cd "$1" 2>/dev/null && [ "$(sha256sum SHA256SUMS)" = "$2  SHA256SUMS" ] || exit 1
[ "$3" = quick ] || sha256sum -c SHA256SUMS >/dev/null 2>&1
"""
#: Arguments: the root, the folder's name in it, a name for the meantime. The names of files on stdout are
#: signs of life. The folder gets its name when all is there; whatever goes wrong, nothing stays behind.
_INSTALL = """\
umask 077
new="$1/$3"
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$new" && cd "$new" || exit 1
tar -xvzf - && sha256sum -c SHA256SUMS && sync || exit 1
rm -rf "$1/$2" && mv "$new" "$1/$2"
"""


def install_python(shell: Shell, bundle: Bundle, root: str, *, thorough: bool = False) -> str:
    """Make sure that `bundle` is on the phone, below the folder `root` -> the path of its Python.

    Its files are checked when they are brought. Later the folder is believed by its name and its list,
    unless the check is to be `thorough`, which takes a second or so. Raises `DeviceError` for a phone that
    cannot run it or has no space for it.
    """
    folder = f"{root}/{bundle.name}"
    check = ["sh", "-c", _CHECK, "sh", folder, bundle.identity, "thorough" if thorough else "quick"]
    if shell.run(check).exit_code != 0:
        machine = one_line(shell.run(["uname", "-m"]).stdout.decode("utf-8", "replace"))
        if machine != _MACHINE:
            raise DeviceError(
                f"{shell.spec}: its processor is {machine or 'unknown'}, the Python for phones needs {_MACHINE}; "
                "--benchmark-model measures without Python"
            )
        with bundle.path.open("rb") as data:
            done = shell.run(["sh", "-c", _INSTALL, "sh", root, bundle.name, f".incoming-{secrets.token_hex(8)}"], data)
        if done.exit_code != 0:
            raise _failure(shell, bundle, root, done)
    return f"{folder}/{LAUNCHER}"


def _failure(shell: Shell, bundle: Bundle, root: str, done: Completed) -> DeviceError:
    words = one_line(done.stderr)
    if "No space left" in words:
        need = -(-bundle.size // (1 << 20))
        return DeviceError(f"{shell.spec}: the phone's storage is full: Python needs {need} MB in {root}")
    # A transfer that was damaged or cut shows as an archive that cannot be read: worth another try.
    return TransientDeviceError(f"{shell.spec}: Python could not be put on the phone: {words or done.exit_code}")
