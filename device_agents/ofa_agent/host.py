"""The program that started this agent."""

import contextlib
import os
import select
import signal
import threading
import time

from .errors import HostGone


class Host:
    """An attached host holds our stdin open for as long as it lives.

    A link can die without notice: stdin stays open then, and what we write is lost. A host that gives a
    `patience_s` sends signs of life; each is answered with `say`, and without one for that long the agent ends.
    """

    def __init__(self, attached, threaded, patience_s=0, say=None):
        self.attached = attached
        self.threaded = threaded  # where pipes cannot be waited for; never together with forks
        self.patience_s = patience_s
        self.repairs = False  # whether it sends a damaged model again
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
        """Read what the host has sent -> False at the end."""
        heard = os.read(0, 4096)
        if heard and self.patience_s:
            signal.alarm(self.patience_s)  # the kernel counts, so even a write that blocks for ever ends
            self.say({"type": "alive"})
        return bool(heard)

    def _watch(self):
        with contextlib.suppress(HostGone):
            while self._hear():
                pass
        self.gone.set()

    def check(self, timeout_s=0.0, also=None):
        """Wait until the descriptor `also` can be read, at most `timeout_s` -> whether it can."""
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
