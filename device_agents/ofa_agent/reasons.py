"""Why a runtime does not load, in one line: from its exception, and from what it and the loader printed on stderr."""

import os
import re
import sys
import tempfile

from .reading import one_line

RUNTIME, NOEXEC, MEMORY = "runtime", "noexec", "memory"
LIMIT = 1 << 14  # bytes of stderr that are read
LINES = 3
MAX_REASON = 250

NUMPY_1 = "it was built for numpy 1, and %s is there: numpy<2 is needed there"
OTHER_NUMPY = "it was built for another numpy%s: another release of numpy is needed there"
NO_PROGRAMS = "{0} cannot be loaded: its file system does not allow programs (it is mounted noexec)"
#: Pattern -> reason and cause, the first that is found. `{0}`, `{1}`: the groups of the pattern.
KNOWN = (
    (r"compiled using NumPy 1\.x cannot be run in\s+NumPy (\S+)", NUMPY_1 % "numpy {0}", RUNTIME),
    (r"_ARRAY_API not found", NUMPY_1 % "a newer one", RUNTIME),
    (
        r"compiled against A[PB]I version (\w+) but this version of numpy is (\w+)",
        OTHER_NUMPY % " (interface {0}, there is {1})",
        RUNTIME,
    ),
    (r"numpy\.\w+ size changed", OTHER_NUMPY % "", RUNTIME),
    (r"(?:[Cc]annot allocate memory|MemoryError|std::bad_alloc)(?! in static TLS)", "the memory is full", MEMORY),
    (r"([^\s:]+): failed to map segment from shared object", NO_PROGRAMS, NOEXEC),
    (r"([^\s:]+\.so[^\s:]*): (?:Operation not permitted|Permission denied)", NO_PROGRAMS, NOEXEC),
    (r"cannot enable executable stack", "it asks for an executable stack, which this system forbids", RUNTIME),
    (
        r"version [`'](GLIBC(?:XX)?_[\d.]+|CXXABI_[\d.]+)' not found",
        "the C library there is too old: it needs {0}",
        RUNTIME,
    ),
    (
        r"([^\s:]+\.so[\w.]*): (?:cannot open shared object file: )?No such file",
        "the library {0} is not there",
        RUNTIME,
    ),
)
SIGNALS = {"SIGKILL": "probably out of memory", "SIGILL": "an instruction that this processor lacks"}


class Words:
    """What a worker prints on stderr: its last words tell why it ended. They are in a file, so they cannot block it.

    Without a place for a file (a full or read-only disk), the words go to our own stderr.
    """

    def __init__(self):
        try:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        except OSError:
            self.file = None

    def read(self):
        """Return the end of the words."""
        if self.file is None:
            return ""
        try:
            size = os.lseek(self.file.fileno(), 0, os.SEEK_END)  # the worker has ended: nobody else uses the offset
            os.lseek(self.file.fileno(), max(0, size - LIMIT), os.SEEK_SET)
            return os.read(self.file.fileno(), LIMIT).decode("utf-8", "replace")
        except (OSError, ValueError):
            return ""

    def pass_on(self):
        """Print the words on our own stderr, and empty the file, so that a chatty runtime does not fill the disk.

        The worker waits for a request, or has ended.
        """
        said = self.read()
        if said:
            os.lseek(self.file.fileno(), 0, os.SEEK_SET)  # the worker shares the offset
            os.ftruncate(self.file.fileno(), 0)
            if sys.stderr is not None:
                sys.stderr.write(said)

    def close(self):
        """Print the words, and remove their file."""
        if self.file is not None:
            self.pass_on()
            self.file.close()


def last_words(text):
    """Return the lines of stderr that give a reason: of a traceback its end, else the last few."""
    lines = [line for line in text.splitlines() if line.strip()]
    heads = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if heads:
        lines = lines[heads[-1] + 1 :]
        lines = [line for i, line in enumerate(lines) if not line.startswith(" ")] or lines
    return one_line("; ".join(line.strip() for line in lines[-LINES:]), MAX_REASON)


def explained(error, words=""):
    """Return why a runtime does not load, and the cause: from the text of its exception and from its last words.

    The exception alone is the innermost reason, unless it is empty or one of a kind that needs an explanation.
    """
    for text in (error, words):
        for pattern, reason, cause in KNOWN:
            found = re.search(pattern, text)
            if found:
                return reason.format(*found.groups()), cause
    error = re.sub(r".*Original error was: (.+)", r"\1", error, flags=re.DOTALL)  # numpy wraps it in much advice
    bare = re.match(r"\w+(?:Error|Exception): *$", error)  # without a message of its own
    said = last_words(words) if bare or not error else ""
    return one_line(": ".join(part.rstrip(": ") for part in (error, said) if part), MAX_REASON), RUNTIME
