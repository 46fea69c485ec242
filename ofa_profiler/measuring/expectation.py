"""The expected cost of a measurement: latency of an op from its MACs, duration of a visit, rounds of a model.

The figures were measured with onnxruntime. They are for estimates of time only, and are replaced by measured values
as soon as there are some.
"""

from __future__ import annotations

from collections.abc import Iterable

from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.settings import Settings

#: Latency of an op on one core of a PC: that of any run, and of a million MACs (`cifar-mbv3`; median error 11%).
_RUN_MS, _MS_PER_MMAC = 0.0065, 0.027
#: What blocks of users' models, which may have no MACs, take to move a megabyte.
_MS_PER_MB = 0.1
#: How many times slower a core of a board or a phone is.
SLOW_DEVICE = 6.0
#: What loading an op and the agent add to the samples of a visit, and the warm-up: a time and a number of runs.
_VISIT_S, _WARM_UP_S, _WARM_UP_RUNS = 0.004, 0.004, 5.8
#: Rounds of a model beyond the minimum, on average. Few models of a quiet device need more; noisy ones need all.
EXTRA_ROUNDS = 1.2
#: Further rounds on a device that is not quiet, some of them repeated after a drift. In nine journals of a virtual
#: machine, both numbers together were between 0.5 and 8, with a geometric mean of 2.4: no estimate can be close.
NOISE_ROUNDS = 1.2
#: A time limit shortens visits so that all rounds fit; this is how the agent does it.
_LIMIT_SHARE, _MIN_VISIT_S = 0.6, 0.01


def expected_ms(ops: Iterable[Op], settings: Settings) -> dict[str, float]:
    """Return the expected latency of each op on one core of a PC."""
    batch = settings.target.batch
    return {op.key: milliseconds(op.macs * batch) for op in ops}


def milliseconds(macs: int, n_bytes: int = 0) -> float:
    """Return the expected latency of so many multiply-accumulates, and bytes to move, on one core of a PC."""
    return _RUN_MS + _MS_PER_MMAC * macs / 1e6 + _MS_PER_MB * n_bytes / 1e6


def visit_seconds(latency_ms: float, settings: Settings, models: int) -> float:
    """Return the expected duration of a visit of a model, one of `models`."""
    sampling_s = settings.visit_s
    if settings.time_limit_s is not None and models:
        share_s = settings.time_limit_s / (models * max(1, settings.min_rounds))
        sampling_s = min(sampling_s, max(_MIN_VISIT_S, _LIMIT_SHARE * share_s))
    run_s = latency_ms / 1e3
    fewest_s, most_s = settings.min_visit_samples * run_s, settings.max_visit_samples * run_s
    return _VISIT_S + _WARM_UP_S + _WARM_UP_RUNS * run_s + min(max(sampling_s, fewest_s), most_s)
