"""Small things that are read from this machine. What cannot be read is None, never 0."""

import datetime
import shutil
import subprocess


def one_line(text, limit=500):
    """Text of unknown origin as one line of bounded length."""
    return " ".join(str(text).split())[:limit]


def text(path):
    """The content of a small file, or None."""
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 16).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return None
    return content or None


def integer(path):
    """The whole number in a file, or None."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def output_of(*command, containing=""):
    """The first line with `containing` in it that a small system tool prints, or None."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line for line in done.stdout.decode("utf-8", "replace").strip().splitlines() if containing in line]
    return one_line(lines[0]) if done.returncode == 0 and lines else None


def now():
    """The time by this machine's clock."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
