"""Reads files and tools of this machine. A value that cannot be read is None, never 0."""

import collections
import datetime
import shutil
import subprocess

Said = collections.namedtuple("Said", "exit_code output errors")  # of a system tool; no exit code: it did not end


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


def run(*command):
    """Run a system tool, and return what it says; None if it is not installed."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        return Said(None, "", str(error))
    return Said(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def output_of(*command, containing=""):
    """Return the first line with `containing` in the output of a system tool, or None."""
    said = run(*command)
    if said is None or said.exit_code != 0:
        return None
    lines = [line for line in said.output.strip().splitlines() if containing in line]
    return one_line(lines[0]) if lines else None


def now():
    """Return the time of this machine (UTC, ISO 8601)."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
