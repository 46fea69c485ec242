"""Android phones: `--device adb:SERIAL`, `adb:HOST:PORT`. Python and the runtime are installed on the phone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.devices.adb.connect import open_bridge, phone_of
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android.install_python import install_python
from ofa_profiler.devices.android.python_bundle import get_bundle
from ofa_profiler.devices.android.state import AndroidState, remove_from_phone
from ofa_profiler.devices.base import Agent
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.device import Connection, RemoteDevice
from ofa_profiler.devices.remote.shell import Shell


class AdbDevice(RemoteDevice):
    """An Android phone. `spec` is `adb:` and a serial number or `HOST:PORT`; raises `UsageError` for a wrong one."""

    root = ROOT
    link_has_checksums = False

    def __init__(self, spec: str, options: DeviceOptions) -> None:
        super().__init__(spec, options)
        self._phone = phone_of(spec)
        self._state: AndroidState | None = None
        self._was_started = False

    def open_shell(self) -> Shell:
        return AdbShell(self.spec, open_bridge(self.spec, self._phone, self.options.tell))

    def python(self, shell: Shell) -> list[str]:
        bundle = get_bundle(self.options.phone_bundle, tell=self.options.tell)
        # A second start follows a failure of any kind, which may have damaged the Python on the phone.
        thorough, self._was_started = self._was_started, True
        return [install_python(shell, bundle, self.root, thorough=thorough)]

    def remove(self) -> str:
        with contextlib.closing(self.connect()) as shell:
            return remove_from_phone(shell, self.root)

    def close(self) -> None:
        state, self._state = self._state, None
        try:
            if state is not None:
                state.__exit__()
        finally:
            super().close()

    def agent_arguments(self) -> list[str]:
        held = self._state is not None and self._state.settings.get("fixed_performance_mode")
        return ["--fixed-performance"] if held else []

    def _start(self, connection: Connection, kit: Path | None, arguments: Sequence[str]) -> Agent:
        if kit is not None and self._state is None:
            self._state = AndroidState(connection.shell, self.root).__enter__()
        return super()._start(connection, kit, arguments)
