"""The interface of a connection to the adb daemon of a phone: it opens services, each a stream of bytes both ways.

There are two: directly to the daemon (`link.py`), and through an adb server that already owns the phone (`server.py`).
The protocol over a stream is the same for both (`process.py`).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from ofa_profiler.errors import DeviceError, TransientDeviceError

#: A service that no daemon has. A daemon refuses it without starting a process, so it is the cheapest request that
#: shows whether the daemon is alive.
PING_SERVICE = "ofa-profiler-ping:"
_PING_EVERY_S = 10.0
_PING_PATIENCE_S = 25.0


class ServiceRefused(DeviceError):
    """The daemon does not have this service."""


class Stream(ABC):
    """Bytes to and from one service. Every method raises `TransientDeviceError` when the link is gone."""

    @abstractmethod
    def read(self, limit: int, silence_s: float) -> bytes:
        """Return at least one byte and at most `limit`, as soon as there are some; empty at the end.

        Raises `TransientDeviceError` after `silence_s` without any.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of `data`. Waits while the phone accepts none."""

    @abstractmethod
    def close(self) -> None:
        """Close it, from any thread. A waiting `read` ends. Never raises."""


class Bridge(ABC):
    """Opens services. Detects a dead link with periodic requests, because TCP may not detect it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: TransientDeviceError | None = None
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    @abstractmethod
    def open(self, service: str, timeout_s: float = 30.0) -> Stream:
        """Open a stream. Raises `ServiceRefused` if the daemon refuses, `TransientDeviceError` if the link fails."""

    @abstractmethod
    def _shut(self) -> None:
        """Close all streams, so that threads that wait for them wake up."""

    def close(self) -> None:
        """Close all streams and the link."""
        self._closing.set()
        self._shut()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(_PING_PATIENCE_S)

    def ping(self, timeout_s: float = _PING_PATIENCE_S) -> None:
        """Raise `TransientDeviceError` if the phone does not answer."""
        try:
            self.open(PING_SERVICE, timeout_s).close()
        except ServiceRefused:
            return

    def fail(self, reason: str) -> TransientDeviceError:
        """Mark the link as lost. All waiting threads wake up with this error; the first error counts."""
        if self.error is None:
            self.error = TransientDeviceError(f"{self.name}: {reason}")
            self._shut()
        return self.error

    def watch(self) -> None:
        """From now on, check every few seconds that the phone answers."""
        self._watcher = threading.Thread(target=self._ping_periodically, name="adb-watch", daemon=True)
        self._watcher.start()

    def _ping_periodically(self) -> None:
        try:
            while not self._closing.wait(_PING_EVERY_S) and self.error is None:
                self.ping()
        except DeviceError as error:
            if not self._closing.is_set():
                self.fail(f"the connection is dead, the phone does not answer ({error})")


def silent(name: str, silence_s: float) -> TransientDeviceError:
    """Return the error of a stream without data for `silence_s`."""
    return TransientDeviceError(f"{name}: no output for {silence_s:g} s from the program on the phone")
