"""Reads files and tools of this machine. A value that cannot be read is None, never 0."""

import datetime
import shutil
import subprocess


def one_line(text, limit=500):
    """Return text of unknown origin as one line with at most `limit` characters."""
    return " ".join(str(text).split())[:limit]


def text(path):
    """Return the content of a small file, or None."""
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 16).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return None
    return content or None


def integer(path):
    """Return the integer in a file, or None."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def output_of(*command, containing=""):
    """Return the first line with `containing` in the output of a system tool, or None."""
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
    """Return the time of this machine (UTC, ISO 8601)."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
