"""The results file: JSON lines, append-only."""

import contextlib
import json
import os
import time

from .errors import Fatal

FSYNC_EVERY_S = 5.0
MEASURED = ("visit", "reference", "disturbed")


class Results:
    """The file `results.jsonl`. `stream` gets its lines too, from line `seen` on. Raises `Fatal`."""

    def __init__(self, path, run, seen, stream):
        self.stream = stream
        lines = self._read(path, seen)
        records = [self._parse(line, path) for line in lines]
        self.measured = [record for record in records if record["type"] in MEASURED]
        self.forms = next((record for record in records if record["type"] == "forms"), None)
        self.profile = next((record for record in records if record["type"] == "profile"), None)
        if records and not same_run(records[0], run):
            raise Fatal("%s holds the results of another kit; move it away" % path)
        with self._writing(path):
            self.file = open(path, "ab")  # noqa: SIM115
            self.file.truncate(sum(map(len, lines)))  # remove an incomplete last line (power cut, kill)
        self.synced = time.monotonic()
        for line in lines[seen:]:
            self.stream(line)
        if not lines:
            self.append(run)

    @classmethod
    def _read(cls, path, seen):
        if not os.path.exists(path):
            return []
        try:
            with open(path, "rb") as file:
                lines = [line for line in file if line.endswith(b"\n")]
        except OSError as error:
            raise Fatal("cannot read %s: %s" % (path, error.strerror)) from error
        # After a power cut, the end can be damaged. A host has the first `seen` lines, so damaged later lines can be
        # dropped. Without a host, this file is the only copy, so the user must decide.
        for number in range(seen, len(lines) if seen else 0):
            try:
                cls._parse(lines[number], path)
            except Fatal:  # noqa: PERF203
                return lines[:number]
        return lines

    @staticmethod
    def _parse(line, path):
        try:
            record = json.loads(line.decode())
            record["type"]
            return record
        except (ValueError, TypeError, KeyError) as error:
            raise Fatal("%s is damaged; move it away" % path) from error

    def tell(self, record):
        """Send a record to the host only."""
        self.stream(json.dumps(record).encode() + b"\n")

    def append(self, record):
        """Append a record to the file and send it to the host."""
        if record["type"] == "forms":
            self.forms = record
        if record["type"] == "profile":
            self.profile = record
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._writing(self.file.name):
            self.file.write(line)
            self.file.flush()
        self.stream(line)
        # The host syncs each line of its copy. The agent syncs less often, because a slow card would disturb the
        # measurement.
        if time.monotonic() - self.synced > FSYNC_EVERY_S or record["type"] not in MEASURED:
            with self._writing(self.file.name):
                os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    @staticmethod
    @contextlib.contextmanager
    def _writing(path):
        try:
            yield
        except OSError as error:
            raise Fatal("cannot write %s: %s" % (path, error.strerror)) from error


def same_run(one, other):
    """Return whether two run records request the same measurement. Their time limits may differ."""
    if not isinstance(one, dict):
        return False
    common = one.get("settings", {}).keys() & other["settings"].keys()  # later versions have more settings

    def essence(run):
        settings = {k: v for k, v in run.get("settings", {}).items() if k in common and k != "time_limit_s"}
        return run.get("format"), settings, run.get("models"), run.get("forms"), run.get("profile")

    return essence(one) == essence(other)
