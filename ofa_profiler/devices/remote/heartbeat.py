"""Signs of life for a program on a device, which ends when there are none: a dead link tells nobody that it is dead."""

from __future__ import annotations

import contextlib
import threading

from ofa_profiler.devices.remote.shell import Process
from ofa_profiler.errors import DeviceError


class Heartbeat:
    """Gives `process` an empty line every `every_s` seconds, until `stop`."""

    def __init__(self, process: Process, every_s: float) -> None:
        self._process, self._every_s = process, every_s
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def stop(self) -> None:
        """No line begins after this."""
        self._over.set()

    def _beat(self) -> None:
        # What goes wrong here, whoever reads from the program finds out.
        with contextlib.suppress(DeviceError):
            while not self._over.wait(self._every_s):
                self._process.write(b"\n")
