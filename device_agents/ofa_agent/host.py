"""The program that started this agent."""

import contextlib
import os
import select
import signal
import threading
import time

from .errors import HostGone


class Host:
    """The host. If it is `attached`, our stdin is open as long as it runs.

    A connection can be lost without notice. Then stdin stays open, and our output is lost. So a host with `patience_s`
    sends keep-alives. The agent answers each one through `say`, and ends if none arrives for `patience_s`.
    """

    def __init__(self, attached, threaded, patience_s=0, say=None):
        self.attached = attached
        self.threaded = threaded  # wait in a thread, where `select` does not support pipes; not allowed with forks
        self.patience_s = patience_s
        self.repairs = False  # whether the host sends a damaged model again
        self.say = say
        self.gone = threading.Event()
        if patience_s:

            def silent(*_):
                raise HostGone

            signal.signal(signal.SIGALRM, silent)
            signal.alarm(patience_s)
        if attached and threaded:
            threading.Thread(target=self._watch, daemon=True).start()

    def _hear(self):
        """Read from the host. Return False at the end of the stream."""
        heard = os.read(0, 4096)
        if heard and self.patience_s:
            signal.alarm(self.patience_s)  # a timer of the kernel, so it also ends a write that blocks
            self.say({"type": "alive"})
        return bool(heard)

    def _watch(self):
        with contextlib.suppress(HostGone):
            while self._hear():
                pass
        self.gone.set()

    def check(self, timeout_s=0.0, also=None):
        """Wait up to `timeout_s` for data on the descriptor `also`. Return whether there is some. Raises `HostGone`."""
        deadline = time.monotonic() + timeout_s
        while not self.threaded:
            watched = ([0] if self.attached else []) + ([] if also is None else [also])
            ready = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))[0]
            if self.attached and 0 in ready and not self._hear():
                raise HostGone
            if also in ready or time.monotonic() >= deadline:
                return also in ready
        if self.gone.wait(timeout_s):
            raise HostGone
        return False
