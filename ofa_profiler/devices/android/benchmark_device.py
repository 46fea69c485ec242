"""Android phones without Python: `--device adb:SERIAL --benchmark-model FILE`.

The agent runs on this machine, and its worker runs Google's `benchmark_model` on the phone (`benchmark_worker.py`).
So the phone gets the same schedule, reference op, pauses for heat and intervals as every other device.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Sequence
from pathlib import Path

from ofa_profiler.base.retry import LinkErrors
from ofa_profiler.devices.adb.connect import open_bridge, phone_of
from ofa_profiler.devices.adb.shell import AdbShell
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android.benchmark_worker import Task
from ofa_profiler.devices.android.state import remove_from_phone
from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.local import start_agent
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.device import RemoteDevice
from ofa_profiler.errors import InputFileError
from ofa_profiler.protocol.records import Record, Visit

#: The agent waits for its worker to end, and the worker for the phone to restore its state.
_PATIENCE_S = 35.0


class BenchmarkDevice(Device):
    """An Android phone. `spec` is `adb:` and a serial number or `HOST:PORT`; raises `UsageError` for a wrong one."""

    waits_s = RemoteDevice.waits_s

    def __init__(self, spec: str, program: Path, options: DeviceOptions) -> None:
        self.spec = spec
        self._phone = phone_of(spec)
        self._program = program
        self._options = options
        self._link_errors = LinkErrors(checksums=False)

    def __enter__(self) -> BenchmarkDevice:
        self._check_link()
        return self

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        if not self._link_errors.was_connected:
            self._check_link()
        task = Task(self.spec)
        if kit is not None:
            self._check_program()
            task = Task(self.spec, str(self._program.absolute()), str(kit.absolute()))
        words = [*arguments, "--worker-command", json.dumps(task.command())]
        return start_agent(kit, words, self._options.cores, lock_for=self.spec, patience_s=_PATIENCE_S)

    def measure_kit(self, kit: Path, seen: int, visits: int | None = None) -> Generator[Record, None, None]:
        with self._link_errors.classified(), contextlib.closing(super().measure_kit(kit, seen, visits)) as records:
            for record in records:
                if isinstance(record, Visit):
                    self._link_errors.forget()
                yield record

    def remove(self) -> str:
        with contextlib.closing(self._connect()) as shell:
            return remove_from_phone(shell, ROOT)

    def _connect(self) -> AdbShell:
        with self._link_errors.classified():
            shell = AdbShell(self.spec, open_bridge(self.spec, self._phone, self._options.tell))
        self._link_errors.was_connected = True
        return shell

    def _check_link(self) -> None:
        """Connect once from this process, which can show the user what the phone asks for."""
        self._connect().close()

    def _check_program(self) -> None:
        try:
            self._program.open("rb").close()
        except OSError as error:
            raise InputFileError(self._program, error.strerror or str(error)) from error

    def _report(self, line: str) -> None:
        if self._options.tell is not None:
            self._options.tell(line)
