"""When is a median known well enough?"""

import math
import statistics

#: 97.5% quantiles of Student's t distribution for 1, 2, ... degrees of freedom
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def t_975(count):
    """The quantile for `count` values, which are at least 2."""
    return T_975[min(count - 1, len(T_975)) - 1]


def half_width(medians, samples):
    """Half of the 95% confidence interval of a model's median, relative to it; None if unknown yet.

    The larger of two intervals, because each misses what the other one sees:
    - rounds as clusters: a t interval over the medians of the rounds. It sees what drifts between
      rounds (clocks, heat, other programs, memory layout), which any number of samples of one visit hides.
    - order statistics of all samples together, free of assumptions about their distribution. It sees
      that a few samples per visit are few, even when the medians of three visits agree by luck.
    """
    if len(medians) < 2 or len(samples) < 6:
        return None
    ordered, count = sorted(samples), len(samples)
    low = int((count - 1.96 * math.sqrt(count)) / 2)
    pooled = (ordered[count - 1 - low] - ordered[low]) / 2 / statistics.median(ordered)
    return max(clusters_half_width(medians), pooled)


def clusters_half_width(medians):
    """The first of the two intervals of `half_width`, for workers that report no single samples."""
    if len(medians) < 2:
        return None
    spread = statistics.stdev(medians) / math.sqrt(len(medians))
    return spread * t_975(len(medians)) / statistics.mean(medians)
