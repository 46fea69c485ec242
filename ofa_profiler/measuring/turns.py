"""Turns: the cells of a device are measured alternately, about two rounds at a time.

    fp32   --      ----      ----
    int8     ------    ------    ----      (time goes to the right)

The speed of a device changes with heat and with other programs. Turns in the order A B B A A B B ... give each cell
the same share of every slow change, so their times can be compared. A turn is a session of the agent that pauses; the
next one resumes its journal, as after an interruption. So neither agent nor journal know of cells. A pause costs about
a second: late rounds with few models are joined until they have as many visits as a whole one.

Each cell is a thread, but only the one whose turn it is does anything at all: exporting models or fitting corrections
beside it would disturb the measurement of this machine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ofa_profiler.base.parallel import Check
from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.protocol import records

#: The smallest number of visits takes this many single turns.
_TURNS = 3
_POLL_S = 0.2


class Turns:
    """Whose turn it is. Each of the `cells` is a thread that enters by `member`.

    A cell passes through stages: its ops are stage 0, its networks stage 1. Those in a later stage wait for the others,
    so that ops alternate with ops, and networks with networks.
    """

    def __init__(self, cells: Sequence[str]) -> None:
        self._changed = threading.Condition()
        self._stages = dict.fromkeys(cells, 0)
        self._now, self._step = cells[0], 1
        self._stage, self._is_first = 0, True

    @contextmanager
    def member(self, cell: str, check: Check) -> Iterator[None]:
        """Wait for the first turn of `cell`. Afterwards, the others go on without it."""
        try:
            self._wait(cell, check)
            yield
        finally:
            with self._changed:
                del self._stages[cell]
                if self._now == cell and self._stages:
                    self._pass_on()

    def begin(self, cell: str, stage: int, visits: int, check: Check) -> int | None:
        """Begin a turn of `cell` as soon as this stage is due. Return its number of visits; None: no need to pause.

        `visits` is the smallest number of the whole measurement.
        """
        with self._changed:
            self._stages[cell] = stage
            if cell not in self._due():
                self._pass_on()
        self._wait(cell, check)
        with self._changed:
            due = self._due()
            if self._stage != stage:
                self._stage, self._is_first = stage, True
            # In A B C C B A A, two turns of one cell are one turn of double length, which saves a pause.
            is_double = cell in (due[0], due[-1]) and not self._is_first
            self._is_first = False
            return None if due == [cell] else max(1, visits // _TURNS) * (2 if is_double else 1)

    def end(self, cell: str, check: Check) -> None:
        """End the turn of `cell`, and wait until the others have had theirs."""
        with self._changed:
            self._pass_on()
        self._wait(cell, check)

    def _due(self) -> list[str]:
        """The cells in the earliest stage."""
        earliest = min(self._stages.values())
        return [cell for cell, stage in self._stages.items() if stage == earliest]

    def _pass_on(self) -> None:
        """Go to the next cell, and back again after the last."""
        due = self._due()
        if self._now not in due:
            self._now, self._step = due[0], 1
        elif len(due) > 1:
            at = due.index(self._now)
            self._step = 1 if at == 0 else -1 if at == len(due) - 1 else self._step
            self._now = due[at + self._step]
        self._changed.notify_all()

    def _wait(self, cell: str, check: Check) -> None:
        with self._changed:
            while self._now != cell:
                self._changed.wait(_POLL_S)
                check()


class TakingTurns(Device):
    """A device for one of the cells that share it: what it measures pauses for the turns of the others."""

    def __init__(self, device: Device, turns: Turns, cell: str, check: Check) -> None:
        self._device, self._turns, self._cell, self._check = device, turns, cell, check
        self.spec, self.waits_s = device.spec, device.waits_s
        #: Seconds in which the others had their turns.
        self.waited_s = 0.0

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        return self._device.start(kit, arguments)

    def prepare_runtime(self, runtime: str, at_most: str | None = None) -> str | None:
        return self._device.prepare_runtime(runtime, at_most)

    @property
    def chooses_release(self) -> bool:
        return self._device.chooses_release

    def describe(self) -> records.Device:
        return self._device.describe()

    def measure_kit(self, kit: Path, seen: int, visits: int | None = None) -> Generator[records.Record, None, None]:
        """Yield the records of one turn, and then wait. The last one is an `End` if nothing is left."""
        manifest = json.loads((kit / "manifest.json").read_text(encoding="utf-8"))
        stage = int("networks" in manifest["about"])
        least = len(manifest["models"]) * manifest["settings"]["min_rounds"]
        begin_s = time.perf_counter()
        visits = self._turns.begin(self._cell, stage, least, self._check)
        self.waited_s += time.perf_counter() - begin_s
        has_ended = False
        with closing(self._device.measure_kit(kit, seen, visits)) as found:
            for record in found:
                has_ended = isinstance(record, records.End)
                yield record
        if not has_ended:
            begin_s = time.perf_counter()
            self._turns.end(self._cell, self._check)
            self.waited_s += time.perf_counter() - begin_s
