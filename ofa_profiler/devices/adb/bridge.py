"""A way to the adb daemon of a phone: it opens services there, each a stream of bytes in both directions.

There are two: straight to the daemon (`adb_direct`), and through an adb server that owns the phone
already (`adb_server`). What runs over a stream is the same for both (`adb_process`).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from ofa_profiler.errors import DeviceError, TransientDeviceError

#: A service that no daemon has. Refusing it starts no process on the phone, so asking for it is the
#: cheapest question that only a living daemon answers.
PING_SERVICE = "ofa-profiler-ping:"
_PING_EVERY_S = 10.0
_PING_PATIENCE_S = 25.0


class ServiceRefused(DeviceError):
    """The daemon does not have this service."""


class Stream(ABC):
    """Bytes to and from one service. Every method raises `TransientDeviceError` when the link is gone."""

    @abstractmethod
    def read(self, limit: int, silence_s: float) -> bytes:
        """At least one byte and at most `limit`, as soon as there are some; empty at the end.

        Raises `TransientDeviceError` after `silence_s` without any.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of `data`; waits while the phone takes none."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it, from any thread; a `read` that waits ends. Raises nothing."""


class Bridge(ABC):
    """Opens services. A link on which nothing moves is noticed by asking, because TCP may not notice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: TransientDeviceError | None = None
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    @abstractmethod
    def open(self, service: str, timeout_s: float = 30.0) -> Stream:
        """Raises `ServiceRefused` if the daemon says no, `TransientDeviceError` if the link fails."""

    @abstractmethod
    def _shut(self) -> None:
        """Close all that is open, so that whoever waits for it wakes up."""

    def close(self) -> None:
        """End all streams and the link."""
        self._closing.set()
        self._shut()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(_PING_PATIENCE_S)

    def ping(self, timeout_s: float = _PING_PATIENCE_S) -> None:
        """Raises `TransientDeviceError` if the phone does not answer."""
        try:
            self.open(PING_SERVICE, timeout_s).close()
        except ServiceRefused:
            return

    def fail(self, reason: str) -> TransientDeviceError:
        """The link is gone: everything that waits for it wakes up with this error (the first one counts)."""
        if self.error is None:
            self.error = TransientDeviceError(f"{self.name}: {reason}")
            self._shut()
        return self.error

    def watch(self) -> None:
        """From now on, ask every few seconds whether the phone is still there."""

        self._watcher = threading.Thread(target=self._ask_now_and_then, name="adb-watch", daemon=True)
        self._watcher.start()

    def _ask_now_and_then(self) -> None:
        try:
            while not self._closing.wait(_PING_EVERY_S) and self.error is None:
                self.ping()
        except DeviceError as error:
            if not self._closing.is_set():
                self.fail(f"the connection is dead, the phone does not answer ({error})")


def silent(name: str, silence_s: float) -> TransientDeviceError:
    """What a stream raises that gave nothing for `silence_s`."""
    return TransientDeviceError(f"{name}: what runs on the phone gave no sign of life for {silence_s:g} s")
