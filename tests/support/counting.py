"""A connection to a device that counts what goes over it."""

from __future__ import annotations

from ofa_profiler.devices.remote.shell import Process, Shell


class Counting(Shell):
    """Counts what is started on the device, and what is sent there."""

    def __init__(self, inner: Shell) -> None:
        self.inner, self.spec = inner, inner.spec
        self.opened = self.sent = 0

    def open(self, line: str) -> Process:
        self.opened += 1
        process = self.inner.open(line)
        write = process.write

        def counted(data: bytes) -> None:
            self.sent += len(data)
            write(data)

        process.write = counted
        return process

    def close(self) -> None:
        self.inner.close()
