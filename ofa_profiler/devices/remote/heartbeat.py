"""Heartbeats for a program on a device. The program ends without them, because a dead link reports nothing."""

from __future__ import annotations

import contextlib
import threading

from ofa_profiler.devices.remote.shell import Process
from ofa_profiler.errors import DeviceError


class Heartbeat:
    """Writes an empty line to `process` every `every_s` seconds, until `stop`."""

    def __init__(self, process: Process, every_s: float) -> None:
        self._process, self._every_s = process, every_s
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def stop(self) -> None:
        """Begin no further line."""
        self._over.set()

    def _beat(self) -> None:
        # A failure here also reaches the thread that reads from the program, and is reported there.
        with contextlib.suppress(DeviceError):
            while not self._over.wait(self._every_s):
                self._process.write(b"\n")
