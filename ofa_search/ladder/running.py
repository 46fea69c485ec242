"""The networks of a ladder, all loaded: each frame is served by the best one that keeps the target."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.ladder.rungs import LadderFile, Rung
from ofa_search.ladder.sessions import DEFAULT_RUNTIME, Array, Session, kind_of, open_session
from ofa_search.ladder.switching import Switch, Switching

#: Gives nanoseconds.
Clock = Callable[[], int]
_WARM_UP = 10


@dataclass(frozen=True, eq=False)
class Served:
    """A frame: the outputs of the network, which rung served it, how long that took, and whether it kept the target."""

    outputs: Array
    rung: Rung
    ms: float
    kept: bool


class Ladder:
    """Serves frames within a latency target, by the best network that keeps it under the present load.

    The target is for the network alone: subtract what else a frame costs. If even the fastest network exceeds it,
    that one serves. One thread at a time may use it.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        sessions: Sequence[Session],
        target_ms: float,
        *,
        switching: Switching | None = None,
        warm_up: int = _WARM_UP,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        """A session for each rung, from fast to slow. Raises `UsageError`.

        Each network runs `warm_up` times, in turns. Its fastest run becomes its expected latency: networks differ
        from their predictions, and one that seems slow must not look like load. 0 keeps the expectations.
        """
        if not rungs or len(rungs) != len(sessions):
            raise UsageError(f"a ladder needs a session for each rung: {len(rungs)} rungs, {len(sessions)} sessions")
        self.sessions = tuple(sessions)
        self._clock = clock
        self.rungs = self._measured(rungs, warm_up)
        self._switch = Switch([rung.expected_ms for rung in self.rungs], target_ms, switching)

    @classmethod
    def load(
        cls,
        path: str | Path,
        target_ms: float,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        switching: Switching | None = None,
        warm_up: int = _WARM_UP,
    ) -> Ladder:
        """Load all models of a `ladder.json`, or of a folder with one.

        Runtime and threads are those of the latency table, or onnxruntime with one thread. Raises `InputFileError`
        and `UsageError`.
        """
        found = LadderFile.load(path)
        name = runtime or found.runtime or DEFAULT_RUNTIME
        kind = kind_of(name)
        provider = found.provider if name == found.runtime else None
        if missing := [rung.number for rung in found.rungs if kind not in rung.files]:
            hint = "ofa-search --ladder without --no-export writes them"
            raise InputFileError(path, f"rung {missing[0]} has no model of the kind {kind}; {hint}")
        sessions = [
            open_session(name, rung.files[kind], threads or found.threads or 1, provider) for rung in found.rungs
        ]
        return cls(found.rungs, sessions, target_ms, switching=switching, warm_up=warm_up)

    @property
    def rung(self) -> Rung:
        """The rung that serves the next frame."""
        return self.rungs[self._switch.rung]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the next frame: (batch, channels, height, width)."""
        return self.sessions[self._switch.rung].shape

    @property
    def target_ms(self) -> float:
        """The target."""
        return self._switch.target_ms

    @property
    def slowdown(self) -> float:
        """How much slower than expected networks are now."""
        return self._switch.slowdown

    def run(self, image: Array) -> Served:
        """Serve a frame of the present `shape`, prepared as the models ask. Raises `UsageError`."""
        rung, session = self.rung, self.sessions[self._switch.rung]
        if (given := getattr(image, "shape", None)) != session.shape:
            problem = f"rung {rung.number} takes an input of shape {session.shape}, not {given or type(image).__name__}"
            raise UsageError(f"{problem}; prepare each frame for ladder.shape")
        outputs, ms = self._timed(session, image)
        self._switch.observe(ms)
        return Served(outputs, rung, ms, ms <= self.target_ms)

    def _timed(self, session: Session, image: Array) -> tuple[Array, float]:
        began = self._clock()
        outputs = session.run(image)
        return outputs, (self._clock() - began) / 1e6

    def _measured(self, rungs: Sequence[Rung], times: int) -> tuple[Rung, ...]:
        """The rungs with the latencies of their fastest runs. The first run, which prepares much, does not count."""
        if times < 1:
            return tuple(rungs)
        images = [np.zeros(session.shape, np.float32) for session in self.sessions]
        for session, image in zip(self.sessions, images, strict=True):
            session.run(image)
        turns = [
            [self._timed(session, image)[1] for session, image in zip(self.sessions, images, strict=True)]
            for _ in range(times)
        ]
        fastest = [min(runs) for runs in zip(*turns, strict=True)]
        return tuple(replace(rung, expected_ms=ms) for rung, ms in zip(rungs, fastest, strict=True))
