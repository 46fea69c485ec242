"""Command lines on a phone."""

from __future__ import annotations

from ofa_profiler.devices.adb.bridge import Bridge
from ofa_profiler.devices.adb.process import AdbProcess, start_program
from ofa_profiler.devices.remote.shell import Shell


class AdbShell(Shell):
    """A connection to the adb daemon of a phone, directly or through an adb server."""

    def __init__(self, spec: str, bridge: Bridge) -> None:
        self.spec = spec
        self._bridge = bridge

    def open(self, line: str) -> AdbProcess:
        return start_program(self._bridge, line)

    def close(self) -> None:
        self._bridge.close()
