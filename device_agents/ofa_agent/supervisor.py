"""The scheduler: selects the next model, and decides when the measurement is complete."""

import random
import sys
import time

from .core_use import REPEATED_SHARE, is_disturbed
from .encodings import encoding_for
from .errors import Fatal
from .facts import uncontrolled
from .profiling import profile_record
from .progress import Progress
from .reading import now
from .reference import Reference
from .trials import Repeating, choose_forms

HEAT_CHECK_EVERY_S = 10.0
COOLING_STEP_S = 5.0
COOL_DOWN_S = 120.0  # maximum pause; after it, a hot machine is measured hot
STAYS_HOT_S = 600.0  # after such a pause, minimum time until the next one
REFERENCE_SHARE = 0.1  # maximum share of the time for the reference model, so a slow one is visited less often
SETTLING_STEP_S = 5.0
SETTLE_S = 60.0  # maximum wait per run for the machine to settle; after it, a drifting machine is measured ...
SETTLE_SHARE = 0.1  # ... but at most this share of the time limit, and not much longer than it was measured so far
SUMS = ("samples_ns", "warmup_ns", "warmup_runs", "seconds", "runs", "wall_ns", "cpu_ns", "waited_ns", "involuntary")


class Supervisor:
    """Visits models in rounds, each in a new random order, until the confidence interval of each median is narrow.

    Models are interleaved because the machine can heat up or become busy. This affects all models, so it shows in
    their spread. Otherwise only the models that are measured at that time would look slow.
    """

    def __init__(
        self, kit, host, results, visitor, machine, cores=None, fixed_performance=False, forms=None, pause_after=None
    ):
        self.kit, self.host, self.results, self.visitor, self.machine = kit, host, results, visitor, machine
        self.wanted_cores = cores
        self.decided_forms = forms  # the record of an earlier kit
        self.fixed_performance = fixed_performance
        self.pause_after = pause_after  # number of visits
        self.visits = 0
        self.settings = kit.run["settings"]
        self.progress = {key: Progress(self.settings) for key in kit.models}
        self.used_s = self.disturbed_s = 0.0
        self.reference = Reference(self.settings)
        for record in results.measured:
            self._take(record)
        if results.profile is not None:
            self.used_s += results.profile["seconds"]
        self.returned = bool(results.measured)  # the speed of the machine may have changed
        limit_s = self.settings["time_limit_s"]
        self.patience_s = SETTLE_S if limit_s is None else min(SETTLE_S, SETTLE_SHARE * limit_s)
        if pause_after:  # there are several runs like this one
            self.patience_s *= min(1.0, pause_after / max(1, len(kit.models) * self.settings["max_rounds"]))
        self.settling_s = 0.0  # waited for that so far
        self.next_heat_check = 0.0
        self.measured_hot = None

    def run(self):
        """Measure everything that is missing in the results. Return False after a pause, when something still is."""
        self.nice = self.machine.raise_priority()
        device = None
        try:
            device = self.machine.describe()
            self.cores = self.machine.choose_cores(device, self.settings["threads"], self.wanted_cores)
            with self.machine.steady_clocks(self.cores) as found:
                self._meet_device(device, found)
                self._choose_forms()
                self._profile()
                if not self._measure():
                    self.results.tell({"type": "paused"})
                    return False
                self._end(device)
                return True
        finally:
            self.visitor.close()
            if device is not None:
                self.machine.allow_all(device)

    def _meet_device(self, device, governors):
        count = self.machine.core_count(device)
        used = len(self.cores) if self.cores else self.settings["threads"]
        spare_core = count is not None and used < count
        ready = self.visitor.start(self.settings, self.cores, spare_core)
        if not ready["pinned"]:
            if self.wanted_cores:
                raise Fatal("this system does not support pinning to cores; omit --cores", usage=True)
            self.cores = None
        elif spare_core:
            self.machine.keep_off(device, self.cores)
        if self.kit.has_encodings:
            self.kit.encoding = device["encoding"] = encoding_for(device)
        device["runtime"] = ready["runtime"]
        device["cores_used"] = self.cores
        device["nice"] = self.nice
        core = (self.cores or [0])[0]
        device["governor"] = self.machine.governor(core)
        device["governor_found"] = governors.get(core, device["governor"])
        device["fixed_performance_mode"] = self.fixed_performance or None  # the system does not report it
        device.update(ready.get("device", {}))  # facts of a machine that the worker reaches
        device["before"] = self.machine.state(self.cores)
        device["uncontrolled"] = [*device.get("uncontrolled", []), *ready.get("uncontrolled", [])]
        device["uncontrolled"] = uncontrolled(device)
        self.results.append(device)

    def _end(self, device):
        unsure = [key for key, p in self.progress.items() if not p.failed and not p.tight]
        self.results.append(
            {
                "type": "end",
                "time": now(),
                "time_limit_s": self.settings["time_limit_s"],
                "cut_short": [key for key in unsure if self.progress[key].wants_visit],
                "noisy": [key for key in unsure if not self.progress[key].wants_visit],
                "measured_hot": self.measured_hot,
                "repeated": self.reference.repeated,
                "drifted": self.reference.kept,
                "after": self.machine.state(device["cores_used"]),
            }
        )

    def _choose_forms(self):
        """Decide in which form the models run, unless an earlier run has decided."""
        record = self.results.forms
        if record is None and self.kit.has_forms and self.decided_forms:
            record = self.decided_forms
            self.results.append(record)
        elif record is None and self.kit.trials:
            self.results.tell({"type": "waiting", "why": "measuring which forms of the models are the fastest"})

            def visit(model):
                self._cool_down()
                request = dict(model, visit_s=self._visit_s(), last_median_ns=None)
                return self.visitor.visit(request, self.settings["op_timeout_s"], {"status": "ok"})

            min_visits = len(self.progress) * self.settings["min_rounds"]
            undisturbed = Repeating(visit, self.settings["threads"])
            record = choose_forms(self.kit, undisturbed, self.settings["seed"], min_visits)
            record.update({"disturbed": undisturbed.repeated} if undisturbed.repeated else {})
            self.results.append(record)
        self.kit.chosen = record["chosen"] if record else {}

    def _profile(self):
        """Let the runtime profile the model for which the kit asks it, once. Without a profile, the record says why."""
        if self.kit.profile is None or self.results.profile is not None:
            return
        self._cool_down()
        self.results.tell({"type": "waiting", "why": "the runtime times its own kernels"})
        request = dict(self.kit.request(self.kit.profile), ask="profile")
        record = profile_record(self.visitor, request, self.settings["op_timeout_s"])
        self.used_s += record["seconds"]
        self.results.append(record)

    def _measure(self):
        """Return whether everything is measured. After the round of `pause_after` visits, it may not be."""
        limit_s = self.settings["time_limit_s"]
        while True:
            wanting = [key for key, progress in self.progress.items() if progress.wants_visit]
            if not wanting:
                if self._has_drifted(at_end=True):
                    continue
                return True
            rounds = min(len(self.progress[key].medians) for key in wanting)
            if self.pause_after and self.visits >= self.pause_after:
                # The machine may change during the pause, so the visits before it get their reference now.
                if self._has_drifted(at_end=True):
                    continue
                return False
            batch = [key for key in wanting if len(self.progress[key].medians) == rounds]
            random.Random("%d:%d" % (self.settings["seed"], rounds)).shuffle(batch)
            for key in batch:
                # The limit does not apply to the first round, because a table needs every model.
                if rounds and limit_s is not None and self.used_s >= limit_s:
                    self._has_drifted(at_end=True, may_repeat=False)
                    return True
                self._cool_down()
                if self._has_drifted():
                    break
                self._visit(key, rounds)

    def _take(self, record):
        """Count the record of a visit, of this run or an earlier one."""
        self.used_s += record["seconds"]
        if record["type"] == "visit":
            self.progress[record["key"]].add(record)
            self.reference.add_visit(record)
        elif record["type"] == "disturbed":
            self.disturbed_s += record["seconds"]
            self.reference.since_s += record["seconds"]
        else:
            for key in self.reference.add(record):
                self.progress[key].forget_last()

    def _visit(self, key, rounds):
        record = self._ask(key, {"type": "visit", "key": key, "round": rounds, "status": "ok"})
        self.visits += 1
        if record["status"] == "ok" and is_disturbed(record, self.settings["threads"]):
            if self._may_repeat(record):
                # It does not count, so the model is visited again after the other models of this round.
                record["type"] = "disturbed"
                self._take(record)
                self.results.append(record)
                return
            record["disturbed"] = True
        self._take(record)
        record["half_width"] = self.progress[key].half_width
        self.results.append(record)
        self._show_progress(rounds)
        self.visitor.check_losses(record)

    def _may_repeat(self, record):
        """Return whether a disturbed visit may be repeated. A machine may be busy all the time."""
        needed_s = len(self.progress) * self.settings["min_rounds"] * self._visit_s()
        return self.disturbed_s + record["seconds"] <= REPEATED_SHARE * max(self.used_s, needed_s)

    def _ask(self, key, record):
        medians = self.progress[key].medians
        request = dict(self.kit.request(key), visit_s=self._visit_s(), last_median_ns=medians[-1] if medians else None)
        return self.visitor.visit(request, self.settings["op_timeout_s"], record)

    def _visit_s(self):
        """Return the time for the samples of one visit. A short time limit makes it shorter, to allow enough rounds."""
        visit_s, limit_s = self.settings["visit_s"], self.settings["time_limit_s"]
        if limit_s is None:
            return visit_s
        share_s = limit_s / (len(self.progress) * self.settings["min_rounds"])
        return min(visit_s, max(0.01, 0.6 * share_s))

    def _has_drifted(self, at_end=False, may_repeat=True):
        """Visit the reference model if it is due. Return whether models must be visited again."""
        reference, every_s = self.reference, self.settings.get("reference_every_s")
        if not every_s or (at_end and not (reference.since and reference.well_known)):
            return False
        if reference.key is None or not reference.well_known:
            key = reference.key or reference.choose(self.progress)
            while key is not None and not reference.well_known and self._visit_reference(key)["status"] == "ok":
                pass
            return False
        due = reference.since_s >= max(every_s, reference.last_s / REFERENCE_SHARE)
        if not (due or at_end or self.returned):
            return False
        self.returned = False
        # Repeats are limited to the minimum number of rounds, because a machine may never settle.
        may_repeat = may_repeat and reference.repeated < len(self.progress) * self.settings["min_rounds"]
        record = self._visit_reference(reference.key, may_repeat and self._settling_left_s() > 0)
        again = record.get("again", False)
        while record.get("drifted") and self._settling_left_s() > 0 and may_repeat:
            percent = 100 * record["drift"]
            why = "the time of the reference op differs by %+.0f%%: waiting for the device to settle" % percent
            self.results.tell({"type": "waiting", "why": why})
            step_s = min(SETTLING_STEP_S, self._settling_left_s())
            self.host.check(step_s)
            self.settling_s += step_s
            record = self._visit_reference(reference.key)
        return again

    def _settling_left_s(self):
        """How long the machine may still settle: what was short is measured again faster than by a long wait."""
        return min(self.patience_s, SETTLING_STEP_S + self.used_s) - self.settling_s

    def _visit_reference(self, key, may_repeat=False):
        """Visit the reference model and return the record. Two more visits confirm a drift."""
        record = self._ask(key, {"type": "reference", "key": key, "status": "ok"})
        if record["status"] == "ok":
            record["drift"], record["drifted"] = self.reference.drift(record["samples_ns"])
            for _ in range(2 if record["drifted"] else 0):
                more = self._ask(key, {"status": "ok"})
                if more["status"] == "ok":
                    record.update({name: record[name] + more[name] for name in SUMS if name in record and name in more})
            record["drift"], record["drifted"] = self.reference.drift(record["samples_ns"])
            record["again"] = record["drifted"] and may_repeat and bool(self.reference.since)
        self._take(record)
        self.results.append(record)
        self.visitor.check_losses(record)
        return record

    def _cool_down(self):
        """Pause while heat throttles the machine."""
        if time.monotonic() < self.next_heat_check:
            return
        deadline = time.monotonic() + COOL_DOWN_S
        why = self.machine.throttled()
        if why is not None:
            self.results.tell({"type": "waiting", "why": "the device cools down: " + why})
        while why is not None and time.monotonic() < deadline:
            self.host.check(COOLING_STEP_S)
            why = self.machine.throttled()
        self.measured_hot = self.measured_hot or why
        self.next_heat_check = time.monotonic() + (HEAT_CHECK_EVERY_S if why is None else STAYS_HOT_S)

    def _show_progress(self, rounds):
        if not self.host.attached and sys.stderr is not None and sys.stderr.isatty():
            done = sum(len(progress.medians) > rounds or progress.failed for progress in self.progress.values())
            sys.stderr.write("\rround %d: %d of %d models " % (rounds + 1, done, len(self.progress)))
