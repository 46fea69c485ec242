"""A lock for one agent at a time, because two simultaneous measurements disturb each other."""

import sys
import time

from .errors import Fatal

LOCK_TIMEOUT_S = 900.0


class Lock:
    """A lock file. The system releases the lock when its holder ends, also after a kill."""

    def __init__(self, path):
        self.path = path
        try:
            self.file = open(path, "a+b")  # noqa: SIM115
        except OSError as error:
            raise Fatal("cannot write %s: %s" % (path, error.strerror)) from error

    def take(self, host, say):
        """Wait for the lock. Raises `Fatal` after a timeout."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        is_reported = False
        while not self._try():
            if time.monotonic() > deadline:
                raise Fatal("another agent is measuring on this device (lock %s)" % self.path)
            if not is_reported:
                say({"type": "waiting", "lock": self.path})
                is_reported = True
            host.check(0.2)

    def _try(self):
        try:
            if sys.platform == "win32":
                import msvcrt

                self.file.seek(0)
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
