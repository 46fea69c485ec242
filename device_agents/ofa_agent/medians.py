"""Confidence intervals of medians."""

import math
import statistics

#: 97.5% quantiles of Student's t distribution for 1, 2, ... degrees of freedom
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def t_975(count):
    """Return the quantile for `count` values, at least 2."""
    return T_975[min(count - 1, len(T_975)) - 1]


def half_width(medians, samples):
    """Return the half-width of the 95% confidence interval of a model's median, relative to it; None if unknown.

    It is the larger of two intervals, because each one covers a different error:
    - a t interval over the medians of the rounds (clusters). It covers changes between rounds (clocks, heat, other
      programs, memory layout), which the samples of a single visit do not show.
    - order statistics of all samples, without assumptions about their distribution. It covers a small number of
      samples, even if the medians of three visits agree by chance.
    """
    if len(medians) < 2 or len(samples) < 6:
        return None
    ordered, count = sorted(samples), len(samples)
    low = int((count - 1.96 * math.sqrt(count)) / 2)
    pooled = (ordered[count - 1 - low] - ordered[low]) / 2 / statistics.median(ordered)
    return max(clusters_half_width(medians), pooled)


def clusters_half_width(medians):
    """Return the first interval of `half_width`, for workers that do not report single samples."""
    if len(medians) < 2:
        return None
    spread = statistics.stdev(medians) / math.sqrt(len(medians))
    return spread * t_975(len(medians)) / statistics.mean(medians)
