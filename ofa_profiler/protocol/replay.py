"""The meaning of a journal: its records go in one by one, in order, and measurements come out.

What an agent wrote on a device by itself is a journal too.
"""

from __future__ import annotations

from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.identity import DeviceIdentity, difference
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.records import (
    Device,
    Disturbed,
    End,
    FormsRecord,
    ModelRun,
    NodeProfile,
    Record,
    Reference,
    Run,
    Visit,
)


class Replay:
    """A journal from its first line on. `add` checks that each further record fits those before it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        #: One per start of the agent.
        self.devices: list[Device] = []
        #: The trials of forms, before all visits; None if there were none.
        self.trials: FormsRecord | None = None
        #: What the runtime says about the model for which the request asks; None if it has not been asked yet.
        self.profile: NodeProfile | None = None
        #: The visits of each model that count; one that failed is its model's last.
        self.visits: dict[str, list[Visit]] = {key: [] for key in run.models}
        #: All visits in the order of time, also those that were repeated.
        self.history: list[Visit] = []
        self.n_visits = 0
        #: Measurements of the reference op; visits repeated because it had drifted; visits that count though it had.
        self.n_references = self.n_repeated = self.n_drifted = 0
        #: Visits that other programs disturbed, and that were repeated.
        self.n_disturbed = 0
        #: Nanoseconds of samples, as far as the device counted for how many of them it waited for a core, and these.
        self.watched_ns = self.waited_ns = 0
        #: Seconds in which models ran, warm-up included, and seconds of all visits as a whole.
        self.measuring_s = self.used_s = 0.0
        #: The last record if it is an `End`; None while there is more to do.
        self.end: End | None = None
        self._identity: DeviceIdentity | None = None
        self._since_reference: list[str] = []

    def add(self, record: Record) -> None:
        """Take a record in; one that no journal keeps changes nothing. Raises `ValueError` if it does not fit."""
        match record:
            case Run():
                raise ValueError("a second line of type 'run'")
            case Device():
                self._add_device(record)
            case FormsRecord():
                self._add_forms(record)
            case NodeProfile():
                self._add_profile(record)
            case Visit():
                self._add_visit(record)
            case Disturbed():
                self._visits_of(record)
                self.n_disturbed += 1
                self._add_time(record)
            case Reference():
                self._add_reference(record)
            case End():
                self.end = record

    def _add_device(self, device: Device) -> None:
        if device.runtime is None:
            raise ValueError("'runtime' must be an object")
        identity = DeviceIdentity.from_device(device)
        if self._identity is not None:
            if found := difference(self._identity, identity):
                raise ValueError(f"another device or runtime than before ({found})")
            identity = self._identity.completed_by(identity)
        self._identity = identity
        self.devices.append(device)

    def _add_forms(self, record: FormsRecord) -> None:
        if self.run.candidates is None or self.trials is not None or self.n_visits:
            raise ValueError("trials of forms that were not requested here")
        self.trials = record

    def _add_profile(self, record: NodeProfile) -> None:
        if record.key != self.run.profile or self.profile is not None:
            raise ValueError(f"a profile of {record.key!r:.200} that was not requested here")
        self.profile = record
        self.used_s += record.seconds

    @property
    def forms(self) -> Forms:
        """The forms of the models that were measured."""
        return self.trials.chosen if self.trials is not None else PLAIN

    def _add_visit(self, visit: Visit) -> None:
        if self.run.candidates is not None and self.trials is None:
            raise ValueError("a visit before the trials of forms")
        before = self._visits_of(visit)
        if before and not before[-1].ok:
            raise ValueError(f"a visit of {visit.key!r} after it had failed")
        if visit.round != len(before):
            raise ValueError(f"round {visit.round} of {visit.key!r} where round {len(before)} was due")
        before.append(visit)
        self.history.append(visit)
        self.n_visits += 1
        if visit.ok:
            self._since_reference.append(visit.key)
        else:
            self._since_reference = [key for key in self._since_reference if key != visit.key]
        self._add_time(visit)

    def _add_reference(self, reference: Reference) -> None:
        self._visits_of(reference)
        if reference.ok:
            if reference.again:
                for key in self._since_reference:
                    self.visits[key].pop()
                self.n_repeated += len(self._since_reference)
            elif reference.drifted:
                self.n_drifted += len(self._since_reference)
            self._since_reference = []
        self.n_references += 1
        self._add_time(reference)

    def _visits_of(self, record: ModelRun) -> list[Visit]:
        if record.key not in self.visits:
            raise ValueError(f"no such model: {record.key!r:.200}")
        return self.visits[record.key]

    def _add_time(self, record: ModelRun) -> None:
        self.end = None
        self.used_s += record.seconds
        self.measuring_s += record.busy_s
        if record.core_use is not None:
            self.watched_ns += record.core_use.wall_ns
            self.waited_ns += record.core_use.waited_ns

    @property
    def others_share(self) -> float | None:
        """The share of the time in which other programs had the core; None if the device did not count it."""
        return self.waited_ns / self.watched_ns if self.watched_ns else None

    @property
    def unvisited(self) -> list[str]:
        """The models without a visit."""
        return [key for key, visits in self.visits.items() if not visits]

    def is_finished(self, time_limit_s: float | None) -> bool:
        """Whether nothing is left to measure. A longer time limit continues what an earlier one cut short."""
        if self.end is None or self.unvisited:  # more models were added after the end
            return False
        before_s = self.end.time_limit_s
        longer = before_s is not None and (time_limit_s is None or time_limit_s > before_s)
        return not (self.end.cut_short and longer)

    def measurement(self, key: str) -> Measurement | None:
        """All that is known of one model; None before its first visit."""
        visits = self.visits[key]
        if not visits:
            return None
        last = visits[-1]
        if not last.ok:
            return Measurement(key, (), "failed", last.error)
        rounds = tuple(tuple(ns / 1e6 for ns in visit.samples_ns) for visit in visits)
        return Measurement(key, rounds, half_width=last.half_width)

    def measurements(self) -> dict[str, Measurement]:
        """Every model that was visited, in the order of the request."""
        found = ((key, self.measurement(key)) for key in self.visits)
        return {key: measurement for key, measurement in found if measurement is not None}
