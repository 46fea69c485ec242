"""Drift: one model tells whether the machine still has the same speed."""

import math
import statistics

from .medians import t_975

REFERENCE_MS = 1.0  # the reference model is the one nearest to this ...
REFERENCE_AMONG = 8  # ... of the first that were visited
LOOKS_AT_FIRST = 5  # at the reference model, to know how much its visits vary


class Reference:
    """The reference model; its `key` is None before it is chosen. A visit of it is a *look*.

    Its level is the median of all looks, so a machine that changes for good gets a new level as soon as most
    looks agree. Of the looks made while the agent waits for the machine to settle, only the first counts,
    unless the machine never settles.
    The settings' `drift_tolerance` is how far a look may be off the level. On a noisy machine the tolerance is
    the normal variation of the looks (95% of them, by their median absolute deviation, which a few slow looks
    do not widen).
    """

    def __init__(self, settings):
        self.tolerance = settings.get("drift_tolerance", 0)
        self.key = None
        self.medians = []
        self.waiting = []  # medians of looks that count only if the machine does not settle
        self.is_off = False
        self.unfit = set()  # models that failed as a reference
        self.last_s = 0.0  # what the last look took
        self.since = []  # models visited since then ...
        self.since_s = 0.0  # ... for so long
        self.visits = self.repeated = self.kept = 0

    def add_visit(self, record):
        """Take in a visit of any model."""
        self.medians += self.waiting
        self.waiting = []
        self.since_s += record["seconds"]
        if record["status"] == "ok":
            self.since.append(record["key"])
        else:
            self.since = [key for key in self.since if key != record["key"]]

    def add(self, record):
        """Take in a look -> the models whose visits since the previous look do not count."""
        self.visits += 1
        if record["status"] != "ok":
            self.unfit.add(record["key"])
            self.key = None
            return []
        if record["key"] != self.key:
            self.key, self.medians, self.waiting, self.is_off = record["key"], [], [], False
        still_off = self.is_off and record["drifted"] and not self.since
        self.waiting = self.waiting if still_off else []
        (self.waiting if still_off else self.medians).append(statistics.median(record["samples_ns"]))
        self.is_off = record["drifted"]
        void = self.since if record["again"] else []
        self.repeated += len(void)
        self.kept += len(self.since) if record["drifted"] and not record["again"] else 0
        self.last_s, self.since, self.since_s = record["seconds"], [], 0.0
        return void

    @property
    def well_known(self):
        """Whether there were enough looks to judge another one."""
        return len(self.medians) >= LOOKS_AT_FIRST

    def drift(self, samples):
        """How far the median of `samples` is off the level, relative to it, and whether that is too far."""
        if not self.well_known:
            return None, False
        level, count = statistics.median(self.medians), len(self.medians)
        spread = 1.4826 * statistics.median(abs(median - level) for median in self.medians)
        varies = spread * t_975(count) * math.sqrt(1 + 1 / count)
        off = statistics.median(samples) - level
        return off / level, abs(off) > max(self.tolerance * level, varies)

    def choose(self, progress):
        """The model to look at, once enough of them are known; None before."""
        fit = {key: model for key, model in progress.items() if not model.failed and key not in self.unfit}
        known = [key for key, model in fit.items() if model.medians]
        if not known or len(known) < min(REFERENCE_AMONG, len(fit)):
            return None
        return min(known, key=lambda key: (abs(math.log(fit[key].medians[0] / 1e6 / REFERENCE_MS)), key))
