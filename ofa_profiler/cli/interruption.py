"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal) in a running command. All unwind it, so the device is restored."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

#: After the first signal, further ones are ignored for this long, because they would interrupt the clean-up. Some
#: programs send SIGTERM after Ctrl-C. A later signal ends the process at once.
_CLEAN_UP_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """A context manager that raises `KeyboardInterrupt` for the first signal, and remembers its number.

    The previous handlers are restored at the end. Outside the main thread it does nothing, as Python requires.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since_s = 0.0
        self._before: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # under nohup
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._since_s = number, time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self._since_s > _CLEAN_UP_S:
            os._exit(self.exit_code)
