"""Drift: one model shows whether the speed of the machine has changed."""

import math
import statistics

from .medians import t_975

REFERENCE_MS = 1.0  # the reference model is the one whose time is nearest to this ...
REFERENCE_AMONG = 8  # ... of this number of models that were visited first
VISITS_TO_LEARN = 5  # number of reference visits to learn the normal variation


class Reference:
    """The reference model. Its `key` is None until it is chosen.

    It is measured in reference visits, in addition to its visits in the rounds. The level is the median of all
    reference visits. After a permanent change of the machine, there is a new level as soon as most of them agree.
    While the agent waits for the machine to settle, only the first reference visit counts, unless the machine never
    settles.

    A reference visit may differ from the level by the setting `drift_tolerance`. On a noisy machine it may differ by
    the normal variation: the range of 95% of the reference visits, estimated from the median absolute deviation, which
    is robust against a few slow ones.
    """

    def __init__(self, settings):
        self.tolerance = settings.get("drift_tolerance", 0)
        self.key = None
        self.medians = []
        self.waiting = []  # medians of reference visits that only count if the machine does not settle
        self.is_off = False
        self.unfit = set()  # models that failed as a reference
        self.last_s = 0.0  # duration of the last reference visit
        self.since = []  # models visited since then ...
        self.since_s = 0.0  # ... and the duration of these visits
        self.visits = self.repeated = self.kept = 0

    def add_visit(self, record):
        """Add the visit of a model in a round."""
        self.medians += self.waiting
        self.waiting = []
        self.since_s += record["seconds"]
        if record["status"] == "ok":
            self.since.append(record["key"])
        else:
            self.since = [key for key in self.since if key != record["key"]]

    def add(self, record):
        """Add a reference visit. Return the models whose visits since the previous one do not count."""
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
        """Whether there are enough reference visits to detect a drift."""
        return len(self.medians) >= VISITS_TO_LEARN

    def drift(self, samples):
        """Return the relative difference of the median of `samples` from the level, and whether it is too large."""
        if not self.well_known:
            return None, False
        level, count = statistics.median(self.medians), len(self.medians)
        spread = 1.4826 * statistics.median(abs(median - level) for median in self.medians)
        varies = spread * t_975(count) * math.sqrt(1 + 1 / count)
        off = statistics.median(samples) - level
        return off / level, abs(off) > max(self.tolerance * level, varies)

    def choose(self, progress):
        """Return the key of the reference model; None until enough models were visited."""
        fit = {key: model for key, model in progress.items() if not model.failed and key not in self.unfit}
        known = [key for key, model in fit.items() if model.medians]
        if not known or len(known) < min(REFERENCE_AMONG, len(fit)):
            return None
        return min(known, key=lambda key: (abs(math.log(fit[key].medians[0] / 1e6 / REFERENCE_MS)), key))
