"""A device that measures nothing, for tests: it answers every kit at once with plausible, repeatable times.

    from ofa_profiler.devices import FakeDevice
    table = profile(FakeDevice(), space, Settings(), Path("tables")).table

Its records pass through the same code as those of an agent: the journal, the table and all checks are real.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.kit import RESULTS_FILE
from ofa_profiler.protocol.records import FormsRecord, NodeProfile, Visit
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings

_NEVER = "1970-01-01T00:00:00+00:00"


def made_up_latency_ms(key: str) -> float:
    """Return a time between 0.05 and 5 ms that depends on the key of a model alone."""
    fraction = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return float(0.05 * 100.0**fraction)


@dataclass(frozen=True)
class FakeDevice(Device):
    """A device with the latency `latency_ms(key)` for the model of a key, and samples within ± `noise` of it."""

    latency_ms: Callable[[str], float] = made_up_latency_ms
    noise: float = 0.01
    #: The keys of models that fail.
    failing: Collection[str] = ()
    #: The latency of each probe (`measuring/probes.py`). It is short, so that no op is faster than the device.
    probe_ms: float = 1e-3
    #: What its trials choose.
    forms: Forms = PLAIN
    model: str = "fake device"
    spec: str = "fake"

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        given = dict(zip(arguments[::2], arguments[1::2], strict=False))
        visits = int(given["--pause-after"]) if "--pause-after" in given else None
        return _Recording(self._measured(kit, visits) if kit is not None else iter([self._device(_NEVER)]))

    def _measured(self, kit: Path, visits: int | None) -> Iterator[dict[str, Any]]:
        """Yield the records that the results in the kit lack, up to the end of the round with so many visits."""
        replay, _ = read_journal(kit / RESULTS_FILE)
        settings, checks = replay.run.settings, replay.run.about.get("checks", {})
        probes = {op["key"] for op in checks.get("probes", ())}
        runtime = {"name": settings.target.runtime, "version": "fake", "provider": settings.provider or "fake"}
        yield {
            **self._device(replay.run.created),
            "cores_used": list(range(settings.threads)),
            "governor": "performance",
            "runtime": runtime,
            "before": {"temperature_c": 40.0},
            "uncontrolled": [],
        }
        if replay.run.candidates is not None and replay.trials is None:
            forms = {"type": "forms", "time": _NEVER, "chosen": self.forms.to_json(), "trials": [], "seconds": 0.0}
            replay.add(FormsRecord.from_json(forms))
            yield forms
        if replay.run.profile is not None and replay.profile is None:
            why = "a made-up device has no runtime"
            profile = {"type": "profile", "key": replay.run.profile, "kernels": None, "why": why, "seconds": 0.0}
            replay.add(NodeProfile.from_json(profile))
            yield profile
        while due := [key for key in replay.visits if self._is_due(key, replay, settings)]:
            if visits is not None and visits <= 0:
                yield {"type": "paused"}
                return
            visits = None if visits is None else visits - len(due)
            for key in due:
                latency_ms = self.probe_ms if key in probes else self.latency_ms(key)
                visit = self._visit(key, len(replay.visits[key]), settings, latency_ms)
                replay.add(Visit.from_json(visit))
                yield visit
        yield {
            "type": "end",
            "time": replay.run.created,
            "time_limit_s": settings.time_limit_s,
            "cut_short": [],
            "noisy": [key for key, visits in replay.visits.items() if not self._is_tight(len(visits), settings)],
            "after": {"temperature_c": 40.0},
        }

    def _device(self, time: str) -> dict[str, Any]:
        return {
            "type": "device",
            "time": time,
            "model": self.model,
            "soc": "fake",
            "machine": "fake",
            "os": "fake",
            "python": None,
            "memory_mb": 1024,
            "cores_allowed": [0, 1, 2, 3],
            "max_mhz": {str(core): 1000.0 for core in range(4)},
        }

    def _is_due(self, key: str, replay: Replay, settings: Settings) -> bool:
        rounds = len(replay.visits[key])
        if key in self.failing and rounds:
            return False
        tight = self._is_tight(rounds, settings)
        return rounds < settings.min_rounds or (not tight and rounds < settings.max_rounds)

    def _is_tight(self, rounds: int, settings: Settings) -> bool:
        return self._half_width(rounds) <= settings.target_half_width

    def _half_width(self, rounds: int) -> float:
        return self.noise / math.sqrt(rounds) if rounds > 1 else math.inf

    def _visit(self, key: str, number: int, settings: Settings, latency_ms: float) -> dict[str, Any]:
        visit: dict[str, Any] = {"type": "visit", "key": key, "round": number}
        if key in self.failing:
            return {**visit, "status": "failed", "cause": "exception", "error": "fails on purpose", "seconds": 0.001}
        generator, latency_ns = random.Random(f"{key}:{number}"), latency_ms * 1e6
        factors = [1 + self.noise * generator.uniform(-1, 1) for _ in range(settings.min_visit_samples)]
        samples_ns = [max(1, round(latency_ns * factor)) for factor in factors]
        warmup_ns = max(1, round(latency_ns))
        width = self._half_width(number + 1)
        return {
            **visit,
            "status": "ok",
            "samples_ns": samples_ns,
            "load_ns": 1_000_000,
            "warmup_ns": warmup_ns,
            "warmup_runs": 1,
            "half_width": width if math.isfinite(width) else None,
            "seconds": (sum(samples_ns) + warmup_ns + 1_000_000) / 1e9,
        }


class _Recording(Agent):
    """An agent whose output is made from records."""

    def __init__(self, records: Iterator[dict[str, Any]]) -> None:
        self._records = records

    def read_line(self, limit: int) -> bytes:
        record = next(self._records, None)
        return json.dumps(record).encode()[: limit - 1] + b"\n" if record is not None else b""

    def finish(self) -> tuple[str, str]:
        return "exit code 0", ""

    def close(self) -> None:
        self._records = iter(())
