"""What the calibration of a table would measure: how many networks, their size, and how long that takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ofa_profiler.export import expected_bytes
from ofa_profiler.measuring.expectation import expected_ms, visit_seconds
from ofa_profiler.measuring.plan import Plan
from ofa_profiler.measuring.probes import probe_ops
from ofa_profiler.measuring.progress import Estimator
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.verification.calibrate import count_fitted, networks_journal, read_networks
from ofa_profiler.verification.conditions import network_settings
from ofa_profiler.verification.profile import USUAL, NetworkCounts, count_networks, networks_limit_s

#: Loading a network takes so long per op and per MB, on one core of a PC.
_LOAD_S_PER_OP, _LOAD_S_PER_MB = 0.0005, 0.0025
#: Few networks are precise enough after the fewest rounds: the share of the further rounds that most need.
_FURTHER_ROUNDS = 0.75


@dataclass(frozen=True)
class CalibrationPlan:
    """The networks that would be measured after the ops. The seconds are for measuring alone."""

    fitted: int
    validated: int
    #: Size of all networks, which are copied to a device that is not this machine.
    n_bytes: int
    seconds: float
    is_complete: bool = False


def plan_calibration(
    planned: Plan,
    space: SearchSpace,
    settings: Settings,
    networks: int | None = None,
    usual: NetworkCounts = USUAL,
    *,
    with_encodings: bool = False,
) -> CalibrationPlan | None:
    """What `profile` would measure after the ops that are `planned`. `settings` and `networks` are those of `profile`,
    `usual` tells how many validate and how often each is visited, `with_encodings` that they are for a kit.

    Networks like those that will be drawn are drawn by their expected latency, so their size and their time are known
    before the ops are measured. None: no networks are wanted.
    """
    if not count_networks(networks):
        return None
    known = _measured_before(planned, networks)
    fitted = count_networks(networks) if known is None else count_fitted(known)
    limit_s = networks_limit_s(settings, planned.used_s if planned.basis is not None else planned.seconds)
    settings = replace(network_settings(settings), **usual.sampling, time_limit_s=limit_s)
    latency_ms = {key: planned.slowness * ms for key, ms in expected_ms(space.unique_ops(), settings).items()}
    cost = AdditiveCost.from_ops(space, lambda op: latency_ms[op.key])
    count = fitted + usual.validated
    drawn, drawn_ms = draw_spread(space, cost, count, np.random.default_rng(settings.seed))
    rounds = settings.min_rounds + _FURTHER_ROUNDS * (settings.max_rounds - settings.min_rounds)
    probes_ms = expected_ms(probe_ops(), settings).values()
    every_ms = [*map(float, drawn_ms), *(planned.slowness * ms for ms in probes_ms)]
    seconds = rounds * sum(visit_seconds(ms, settings, len(every_ms)) for ms in every_ms)
    drawn_ops = [space.ops(architecture) for architecture in drawn]
    n_bytes = sum(expected_bytes(ops, settings.target) for ops in drawn_ops)
    load_s = _LOAD_S_PER_OP * sum(map(len, drawn_ops)) + _LOAD_S_PER_MB * n_bytes / 1e6
    seconds += rounds * planned.slowness * load_s
    if limit_s is not None:
        first_round_s = seconds / rounds
        seconds = max(min(seconds, limit_s), first_round_s)
    if with_encodings:
        n_bytes = sum(expected_bytes(ops, settings.target, with_encodings=True) for ops in drawn_ops)
    whole = CalibrationPlan(fitted, usual.validated, n_bytes, seconds)
    if known is None:
        return whole
    if known.is_finished(limit_s):
        return replace(whole, seconds=0.0, is_complete=True)
    left_s = Estimator(settings).progress(known).left_s
    return whole if left_s is None else replace(whole, seconds=left_s)


def _measured_before(planned: Plan, networks: int | None) -> Replay | None:
    """The journal of networks of the table, unless another number of them is wanted."""
    if planned.basis is None or not planned.is_resumed:
        return None
    ops = read_networks(planned.basis)
    known = read_networks(networks_journal(planned.basis), ops.run.created) if ops is not None else None
    return known if known is not None and networks in (None, count_fitted(known)) else None
