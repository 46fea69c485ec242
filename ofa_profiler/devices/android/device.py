"""Phones: `--device adb:SERIAL`, `adb:HOST:PORT`.

If an adb server runs on this machine and has the phone, it is used; else the daemon is spoken to directly.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from ofa_profiler.devices.adb.bridge import Bridge
from ofa_profiler.devices.adb.process import AdbProcess, start_program
from ofa_profiler.devices.adb.server import AdbServerBridge, find_server, server_phones
from ofa_profiler.devices.android.benchmark_runner import BenchmarkRunner
from ofa_profiler.devices.android.facts import describe_phone
from ofa_profiler.devices.android.install_python import install_python
from ofa_profiler.devices.android.python_bundle import get_bundle
from ofa_profiler.devices.android.state import AndroidState, restore_state
from ofa_profiler.devices.base import Agent
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.device import Connection, RemoteDevice
from ofa_profiler.devices.remote.shell import Shell, one_line
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError
from ofa_profiler.protocol.replay import Record

#: The one place of a phone where its shell user may write and run programs.
ROOT = "/data/local/tmp/ofa-profiler"
#: States as the adb server names them.
_READY = "device"
_STATES = {
    "unauthorized": "not allowed yet: look at the phone and accept 'Allow USB debugging'",
    "offline": "does not answer the adb server: plug it in again",
    "no permissions": "this user may not open it: install udev rules for Android phones and plug it in again",
    "no": "this user may not open it: install udev rules for Android phones and plug it in again",
}
_LONGEST_NAME = 300
_HOW_TO_ATTACH = "switch on 'USB debugging' in the phone's developer options and plug it in"
_NOT_THERE = f"no such phone is attached (--device adb: lists them); {_HOW_TO_ATTACH}"


class AdbShell(Shell):
    """Command lines for a phone."""

    def __init__(self, spec: str, bridge: Bridge) -> None:
        self.spec = spec
        self._bridge = bridge

    def open(self, line: str) -> AdbProcess:
        return start_program(self._bridge, line)

    def close(self) -> None:
        self._bridge.close()


class AdbDevice(RemoteDevice):
    """An Android phone. `spec` is `adb:` and a serial number or `HOST:PORT`.

    Raises `UsageError` for `adb:` alone, with a list of what is attached, and for what can be no name of a phone.
    """

    root = ROOT

    def __init__(self, spec: str, options: DeviceOptions) -> None:
        super().__init__(spec, options)
        self._phone = spec.partition(":")[2]
        self._state: AndroidState | None = None
        self._was_started = False
        self._said: set[str] = set()
        if not self._phone:
            raise UsageError(which_phone())
        if not self._phone.isprintable() or len(self._phone) > _LONGEST_NAME:
            raise UsageError(f"device {spec!r:.100}: not a serial number; expected adb:SERIAL or adb:HOST:PORT")
        _address(spec, self._phone)  # says what is wrong with it, before anything else is done

    def connect(self) -> AdbShell:
        try:
            bridge = _bridge_to(self.spec, self._phone, self.options)
        except TransientDeviceError as error:
            if self._met:
                raise
            raise DeviceError(str(error)) from None  # it was never there: nothing to wait for
        self._met = True
        return AdbShell(self.spec, bridge)

    def python(self, shell: Shell) -> list[str]:
        bundle = get_bundle(self.options.phone_bundle, tell=self.options.tell)
        # After a failure of whatever kind, the Python there is no longer believed to be whole.
        thorough, self._was_started = self._was_started, True
        return [install_python(shell, bundle, self.root, thorough=thorough)]

    def remove(self) -> str:
        with contextlib.closing(self.connect()) as shell:
            restore_state(shell, self.root)  # what it is to be is kept in there
            return self._remove(shell, self.root)

    def close(self) -> None:
        state, self._state = self._state, None
        try:
            if state is not None:
                state.__exit__()
        finally:
            super().close()

    def __enter__(self) -> AdbDevice:
        if self.options.benchmark_model is None:
            super().__enter__()
        return self

    def describe(self) -> Record:
        if self.options.benchmark_model is None:
            return super().describe()
        with contextlib.closing(self.connect()) as shell:
            return describe_phone(shell)

    def measure_kit(self, kit: Path, seen: int) -> Generator[Record, None, None]:
        with self._believed_twice(), contextlib.closing(self._records(kit, seen)) as records:
            for record in records:
                if record["type"] == "visit":
                    self._said.clear()  # whatever it was, it has passed
                yield record

    def _records(self, kit: Path, seen: int) -> Generator[Record, None, None]:
        program = self.options.benchmark_model
        if program is None:
            yield from super().measure_kit(kit, seen)
            return
        with contextlib.closing(self.connect()) as shell, AndroidState(shell, self.root) as state:
            yield from BenchmarkRunner(shell, self.root, program, kit, self.options.cores, state.settings).records()

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        with self._believed_twice():
            return super().start(kit, arguments)

    def _reach(self) -> Connection:
        with self._believed_twice():
            return super()._reach()

    @contextlib.contextmanager
    def _believed_twice(self) -> Iterator[None]:
        """Let what looks final count when it comes a second time, in the same words, with no visit in between.

        Nothing guards a command line on its way to the daemon: one that was damaged fails as a wrong one does.
        """
        try:
            yield
        except TransientDeviceError:
            raise
        except (DeviceError, UsageError) as error:
            words = re.sub(r"\d+", "", str(error))  # how much is free, for instance, changes
            if not self._met or words in self._said:
                raise
            self._said.add(words)
            raise TransientDeviceError(str(error)) from error

    def _meet(self) -> Connection:
        return self._going_on(super()._meet)

    def agent_arguments(self) -> list[str]:
        held = self._state is not None and self._state.settings.get("fixed_performance_mode")
        return ["--fixed-performance"] if held else []

    def _start(self, connection: Connection, kit: Path | None, arguments: Sequence[str]) -> Agent:
        if kit is not None and self._state is None:
            self._state = AndroidState(connection.shell, self.root).__enter__()
        return super()._start(connection, kit, arguments)


def _bridge_to(spec: str, phone: str, options: DeviceOptions) -> Bridge:
    """The way to a phone that is there now. Raises `DeviceError`."""
    address = _address(spec, phone)
    server = find_server()
    if server is not None:
        try:
            phones = server_phones(server)
        except TransientDeviceError as error:
            if address is None:  # a phone on USB can be held by a server that just does not answer
                raise TransientDeviceError(f"{spec}: {error}") from error
            phones = {}
        state = phones.get(phone)
        if state == _READY:
            return AdbServerBridge(spec, server, phone)
        if address is None:  # a phone on USB belongs to the server alone
            words = _STATES.get(state, f"the adb server says that it is {one_line(state)}") if state else _NOT_THERE
            raise TransientDeviceError(f"{spec}: {words}")
    from ofa_profiler.devices.adb.direct import connect_tcp, connect_usb

    if address is not None:
        return connect_tcp(spec, *address, tell=options.tell)
    return connect_usb(spec, phone, tell=options.tell)


def _address(spec: str, phone: str) -> tuple[str, int] | None:
    """Host and port of a phone on the network, None for a serial number. Raises `UsageError`."""
    emulator = re.fullmatch(r"emulator-(\d{1,5})", phone, re.ASCII)  # its console's port; adb has the next
    if emulator and int(emulator[1]) < 65535:
        return "127.0.0.1", int(emulator[1]) + 1
    host, colon, port = phone.rpartition(":")
    if not colon:
        return None
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"device {spec!r:.100}: expected adb:HOST:PORT, like adb:192.168.1.20:5555")
    return host.removeprefix("[").removesuffix("]"), int(port)


def attached_phones() -> dict[str, str]:
    """Serial number -> state, of the phones that the adb server has, or else of those on USB. Raises `DeviceError`."""
    server = find_server()
    if server is not None:
        return server_phones(server)
    from ofa_profiler.devices.adb.direct import usb_phones

    return {serial or "?": _READY if serial else "no permissions" for serial, _ in usb_phones()}


def which_phone() -> str:
    """One line that says what `adb:` could have meant."""
    try:
        phones = attached_phones()
    except DeviceError as error:
        return f"which phone? give adb:SERIAL or adb:HOST:PORT; what is attached cannot be listed: {error}"
    listed = [
        f"adb:{one_line(serial)}" + ("" if state == _READY else f" ({_STATES.get(state, one_line(state))})")
        for serial, state in sorted(phones.items())
    ]
    if listed:
        return f"which phone? attached: {', '.join(listed)}"
    return f"which phone? none is attached; {_HOW_TO_ATTACH}, or give adb:HOST:PORT for one on the network"
