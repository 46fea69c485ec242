"""The progress of one model."""

import array
import statistics

from .medians import clusters_half_width, half_width


class Progress:
    """The valid visits of a model.

    A worker that does not report single samples gives one sample per visit, which summarizes `runs` of them. Then only
    the spread between visits is known.
    """

    def __init__(self, settings):
        self.settings = settings
        self.failed = False
        self.summarized = False
        self.medians = []
        self.samples = array.array("q")
        self.counts = []  # number of samples of each visit
        self.half_width = None

    def add(self, record):
        """Add the record of a visit."""
        if record["status"] != "ok":
            self.failed = True
            return
        self.summarized = self.summarized or "runs" in record
        self.medians.append(statistics.median(record["samples_ns"]))
        self.samples.extend(record["samples_ns"])
        self.counts.append(len(record["samples_ns"]))
        self._update()

    def forget_last(self):
        """Remove the last visit, because it does not count."""
        self.medians.pop()
        del self.samples[len(self.samples) - self.counts.pop() :]
        self._update()

    def _update(self):
        known = clusters_half_width(self.medians) if self.summarized else half_width(self.medians, self.samples)
        self.half_width = known

    @property
    def tight(self):
        """Whether the confidence interval of the median is narrow enough."""
        return self.half_width is not None and self.half_width <= self.settings["target_half_width"]

    @property
    def wants_visit(self):
        """Whether the model needs another visit."""
        rounds = len(self.medians)
        if self.failed or rounds >= self.settings["max_rounds"]:
            return False
        return rounds < self.settings["min_rounds"] or not self.tight
