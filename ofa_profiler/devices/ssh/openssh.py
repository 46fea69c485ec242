"""OpenSSH's own reading of its configuration: `ssh -G`."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ofa_profiler.devices.remote.shell import one_line
from ofa_profiler.devices.ssh.target import Options, password_home
from ofa_profiler.errors import InputFileError, UsageError

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
#: Default keys of kinds that paramiko does not know.
_UNUSABLE_KEYS = ("~/.ssh/id_dsa", "~/.ssh/id_xmss")
_SYSTEM_FOLDER = "/etc/ssh/"
#: `Match exec` runs programs, and canonical names need DNS.
_TIMEOUT_S = 60.0
#: Errors in the user's own configuration. OpenSSH does not log in, and so do we not.
_REFUSED = re.compile(r"line \d+\b|Bad owner or permissions|jumphost loop|unknown key")
_CHATTER = re.compile(r"terminating, \d+ bad|Unsupported option|Pseudo-terminal")


class CannotAsk(Exception):
    """There is no OpenSSH here, or it does not work."""


def ask(name: str, user: str | None, port: int | None, *, is_direct: bool = False) -> Options:
    """Return the options that `ssh` itself uses for `name`; with `is_direct` without a jump host or a command.

    Raises `CannotAsk`, and `UsageError` for a wrong file.
    """
    program = shutil.which("ssh")
    if program is None:
        raise CannotAsk("there is no ssh program here")
    with _configuration() as (choice, shown):
        command = [program, "-G", *choice, *(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
        command += ["-o", "ProxyCommand=none"] if is_direct else []
        try:
            result = subprocess.run(
                [*command, "--", name], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise UsageError(f"ssh -G {name} gives no answer; does a Match exec in {shown} hang?") from None
        except OSError as error:
            raise CannotAsk(f"{program} does not run: {error.strerror}") from None
    options: dict[str, list[str]] = {}
    for line in result.stdout.decode("utf-8", "surrogateescape").split("\n"):
        key, _, value = line.partition(" ")
        options.setdefault(key.lower(), []).append(value)
    if result.returncode == 0 and "hostname" in options:
        return _unified(options)
    lines = result.stderr.decode("utf-8", "replace").replace(choice[-1] if choice else "\0", str(shown)).splitlines()
    said = [line for line in lines if line.strip() and not _CHATTER.search(line)]
    mine = [row for row, line in enumerate(said) if _REFUSED.search(line) and not line.startswith(_SYSTEM_FOLDER)]
    if mine:
        # The line before it may say what is wrong, and other errors follow.
        raise UsageError(one_line("; ".join(said[: mine[0] + 1])))
    words = one_line(said[-1]) if said else f"exit code {result.returncode}"
    raise CannotAsk(f"ssh -G fails ({words})")


@contextlib.contextmanager
def _configuration() -> Iterator[tuple[list[str], Path]]:
    """Yield options of `ssh` for the right configuration, and the file that it reads.

    OpenSSH takes the home folder of the password file. If `$HOME` differs, it needs `-F`, and would then skip the
    system's file, so a copy of the user's file includes it.
    """
    mine = Path("~/.ssh/config").expanduser()
    if Path.home() == password_home():
        yield [], mine
        return
    try:
        text = mine.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        text = b""
    except OSError as error:
        raise InputFileError(mine, error.strerror or str(error)) from error
    with tempfile.NamedTemporaryFile(prefix="ofa-ssh-config-") as file:
        file.write(text + f"\nMatch all\nInclude {SYSTEM_CONFIG}\n".encode())
        file.flush()
        yield ["-F", file.name], mine


def _unified(options: dict[str, list[str]]) -> Options:
    """Undo what `ssh -G` has expanded already, so that each value is expanded once, and with `$HOME`."""
    for key in ("userknownhostsfile", "globalknownhostsfile"):
        # Several files are printed in one line, without quotes.
        options[key] = [path for line in options.get(key, ()) for path in re.split(r" (?=[/~%$]|none$)", line)]
    options["identityfile"] = [file for file in options.get("identityfile", ()) if file not in _UNUSABLE_KEYS]
    for key in ("userknownhostsfile", "identityagent"):
        if key in options:
            options[key] = [_in_home(path) for path in options[key]]
    return options


def _in_home(text: str) -> str:
    """Put a path below the home folder of the password file below `$HOME`, unless it is only there."""
    theirs = password_home()
    if not text.startswith("/"):
        return text
    path = Path(text)
    if theirs is not None and path.is_relative_to(theirs):
        mine = Path.home() / path.relative_to(theirs)
        if mine.exists() or not path.exists():
            path = mine
    return str(path).replace("%", "%%")
