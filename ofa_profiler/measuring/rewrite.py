"""A user's network in the forms that are faster on a device.

patterns with places in the network -> checked on this machine -> measured on the device
-> the winners together, checked and measured again -> a file, if they are faster
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import write_bytes
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.measuring.gains import Gain, gains_over
from ofa_profiler.measuring.model import settings_for
from ofa_profiler.measuring.session import MeasuringReporter, measure
from ofa_profiler.models.base import Array, UserModel
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.rewriting.checking import LARGEST_DIFFERENCE, Outputs, cases, difference
from ofa_profiler.models.rewriting.registry import AnyPattern, patterns_for, rewritten
from ofa_profiler.models.timed import timed_model
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.settings import Settings

#: Keys of models, which no pattern has as its name.
_BEFORE, _ALL, _WINNERS = "before", "all patterns", "winners"
#: Rounds that tell a gain of some percent from noise.
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 15
#: Half of the 95% interval of a median, as a fraction.
_PRECISE = 0.005


@dataclass(frozen=True)
class Trial:
    """A pattern in a network. `error` says why it is not used, though it has places; `gain` is None if not measured."""

    pattern: str
    places: int
    gain: Gain | None = None
    error: str = ""

    @property
    def wins(self) -> bool:
        """Whether the network is faster with it."""
        return self.gain is not None and self.gain.wins

    def __str__(self) -> str:
        times = f"{self.places} place{'s' if self.places > 1 else ''}"
        if self.gain is None:
            return f"{self.pattern} ({times}): not used: {self.error}"
        more = "" if self.wins else ", no gain"
        return f"{self.pattern} ({times}): {self.gain.factor:.3f}x ± {self.gain.half_width:.1%}{more}"


@dataclass(frozen=True)
class Rewritten:
    """What came of a rewriting. Nothing was written if `path` is None.

    `before`, `after` and `gain` are those of the last measurement, of the original and the network in `path`.
    """

    trials: tuple[Trial, ...]
    path: Path | None = None
    patterns: tuple[str, ...] = ()
    before: Measurement | None = None
    after: Measurement | None = None
    gain: Gain | None = None
    #: Why no pattern could be tried.
    note: str = ""

    def lines(self) -> list[str]:
        """The result for people."""
        lines = [str(trial) for trial in self.trials]
        if self.path is None or self.before is None or self.after is None or self.gain is None:
            return [*lines, f"nothing is written: {self._reason}"]
        times = f"{_shown(self.before)} before, {_shown(self.after)} after"
        return [*lines, f"{times}: {self.gain.factor:.3f}x ± {self.gain.half_width:.1%}", f"written: {self.path}"]

    @property
    def _reason(self) -> str:
        """Why there is no file."""
        if self.note or not self.trials:
            return self.note or "it has no known pattern"
        if all(trial.error for trial in self.trials):
            return "no form can be used"
        return "no form is faster on this device"

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        trials = [
            {"pattern": trial.pattern, "places": trial.places, **_gain_json(trial.gain), "error": trial.error or None}
            for trial in self.trials
        ]
        times = {
            name: None if found is None else {"median_ms": found.median_ms, "half_width": found.half_width}
            for name, found in (("before", self.before), ("after", self.after))
        }
        path = None if self.path is None else str(self.path)
        return {"file": path, "patterns": list(self.patterns), **times, **_gain_json(self.gain), "trials": trials}


def _gain_json(found: Gain | None) -> dict[str, float | None]:
    if found is None:
        return {"gain": None, "gain_half_width": None}
    return {"gain": found.factor, "gain_half_width": found.half_width}


def _shown(measurement: Measurement) -> str:
    spread = f" ± {measurement.half_width:.1%}" if measurement.half_width is not None else ""
    return f"{measurement.median_ms:.4g} ms{spread}"


def check_out(model: UserModel, out: Path) -> None:
    """Raise `UsageError` for a path that the rewritten network cannot have."""
    if out.suffix != model.path.suffix:
        raise UsageError(f"--rewrite {out}: the network stays {model.path.suffix}; give a file with this suffix")
    if out.is_dir():
        raise UsageError(f"--rewrite {out} is a folder; give a file")
    if out.resolve() == model.path.resolve() or (out.exists() and model.path.exists() and out.samefile(model.path)):
        raise UsageError(f"--rewrite {out} is the input file, which is never changed; give another file")


def rewrite(
    model: UserModel,
    feeds: Mapping[str, Array],
    out: Path,
    device: Device,
    settings: Settings,
    *,
    progress: MeasuringReporter | None = None,
) -> Rewritten:
    """Write the network with every pattern that makes it faster on `device` to `out`; nothing if there is none.

    Each pattern is used at all of its places or at none. The outputs must be equal to those of the original up to 1e-5
    of the largest, for `feeds` and random inputs. Raises `UsageError` for a wrong `out`, `DeviceError` when the device
    fails or does not run the original.
    """
    check_out(model, out)
    with tempfile.TemporaryDirectory(prefix="ofa-rewrite-") as folder:
        work = _Work(model, feeds, settings_for(model, settings), Path(folder))
        try:
            exact, trials = work.candidates()
        except ValueError as error:
            return Rewritten((), note=f"the file {error}")
        if not exact:
            return Rewritten(tuple(trials))
        device.prepare_runtime(model.runtime)
        networks = {pattern.name: work.written[pattern.name] for pattern in exact}
        if len(exact) > 1 and work.add(_ALL, exact):
            networks[_ALL] = work.written[_ALL]
        first = work.measure(device, networks, progress)
        gains = gains_over(_BEFORE, first)
        tried = tuple(_tried(trial, first, gains) for trial in trials)
        finalists = work.finalists(exact, gains)
        if not finalists:
            return Rewritten(tried)
        second = work.measure(device, {name: work.written[name] for name in finalists}, progress)
        return _finished(tried, out, finalists, second, work)


def _tried(trial: Trial, measured: Mapping[str, Measurement], gains: Mapping[str, Gain]) -> Trial:
    if trial.error:
        return trial
    found = measured.get(trial.pattern)
    if found is None or not found.ok:
        return replace(trial, error=f"the device does not run it: {found.error if found else 'not measured'}")
    known = gains.get(trial.pattern)
    return replace(trial, gain=known) if known is not None else replace(trial, error="the time limit was too short")


def _finished(
    trials: tuple[Trial, ...],
    out: Path,
    finalists: Mapping[str, Sequence[AnyPattern]],
    measured: Mapping[str, Measurement],
    work: _Work,
) -> Rewritten:
    """Write the fastest of the finalists, if it is faster than the original."""
    gains = {name: found for name, found in gains_over(_BEFORE, measured).items() if found.wins}
    if not gains:
        return Rewritten(trials, note="together they are not faster beyond the noise")
    best = next(iter(gains))
    for name in gains:  # patterns without a gain of their own are used only if they add one
        if name != best and gains_over(best, measured)[name].wins:
            best = name
    write_bytes(out, work.written[best])
    names = tuple(pattern.name for pattern in finalists[best])
    return Rewritten(trials, out, names, measured[_BEFORE], measured[best], gains[best])


class _Work:
    """The networks of one rewriting: their bytes, their outputs, their times."""

    def __init__(self, model: UserModel, feeds: Mapping[str, Array], settings: Settings, folder: Path) -> None:
        self.model, self.feeds, self.folder = model, feeds, folder
        limit_s = None if settings.time_limit_s is None else settings.time_limit_s / 2  # two measurements
        self.settings = replace(
            settings,
            min_rounds=max(settings.min_rounds, _LEAST_ROUNDS),
            max_rounds=max(settings.max_rounds, _MOST_ROUNDS),
            target_half_width=min(settings.target_half_width, _PRECISE),
            time_limit_s=limit_s,
        )
        self.whole = model.whole(feeds)
        self.cases = cases(model.inputs, feeds)
        self._outputs: list[Outputs] = []
        #: Name -> the bytes of a network that computes the same as the original.
        self.written: dict[str, bytes] = {}

    def candidates(self) -> tuple[list[AnyPattern], list[Trial]]:
        """The patterns that have places and are exact here, and a trial for each that has places.

        Raises `ValueError` if the file cannot be edited.
        """
        exact, trials = [], []
        for pattern in patterns_for(self.model.runtime):
            data, places = rewritten(self.model.runtime, self.whole.data, [pattern])
            if places:
                error = self._check(data)
                trials.append(Trial(pattern.name, places, error=error))
                if not error:
                    self.written[pattern.name] = data
                    exact.append(pattern)
        return exact, trials

    def add(self, name: str, patterns: Sequence[AnyPattern]) -> bool:
        """Combine patterns, if the result is exact."""
        data, _ = rewritten(self.model.runtime, self.whole.data, patterns)
        if self._check(data):
            return False
        self.written[name] = data
        return True

    def _check(self, data: bytes) -> str:
        """Why a network cannot replace the original; empty if it can."""
        if not self._outputs:
            self._outputs = [self.model.run(case) for case in self.cases]
        path = self.folder / f"candidate{self.model.path.suffix}"
        write_bytes(path, data)
        try:
            other = open_model(path)
            found = [other.run(case) for case in self.cases]
        except UsageError as error:
            return f"the runtime on this machine does not run it: {error}"
        largest = difference(zip(self._outputs, found, strict=True))
        if largest <= LARGEST_DIFFERENCE:
            return ""
        return f"the outputs differ by {largest:.1g} of the largest output (limit {LARGEST_DIFFERENCE:g})"

    def measure(
        self, device: Device, networks: Mapping[str, bytes], progress: MeasuringReporter | None
    ) -> dict[str, Measurement]:
        """Measure the original and `networks` in the same rounds. Raises `DeviceError` if the original fails."""
        models = [
            timed_model(name, replace(self.whole, data=data), self.model.path.suffix, self.folder)
            for name, data in {_BEFORE: self.whole.data, **networks}.items()
        ]
        found = measure(device, models, self.settings, progress=progress)
        if not found[_BEFORE].ok:
            raise DeviceError(f"device {device.spec} does not run {self.model.path.name}: {found[_BEFORE].error}")
        return found

    def finalists(self, exact: Sequence[AnyPattern], gains: Mapping[str, Gain]) -> dict[str, Sequence[AnyPattern]]:
        """Name -> patterns of the networks that are measured again: the winners together, and all if they may win."""
        winners = [pattern for pattern in exact if (known := gains.get(pattern.name)) is not None and known.wins]
        found: dict[str, Sequence[AnyPattern]] = {}
        if winners and self.add(_WINNERS, winners):
            found[_WINNERS] = winners
        together = gains.get(_ALL)
        if together is not None and together.wins and len(winners) < len(exact):
            found[_ALL] = exact
        return found
