"""Errors between the halves of a session: they contain what changes on a device while networks are measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ofa_profiler import Architecture, get_space
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.tables.corrections.intervals import interval_factors
from ofa_profiler.tables.corrections.regression import network_features, ridge
from ofa_profiler.verification.held_out import Group, errors_between_halves
from ofa_profiler.verification.networks import network_name

SPACE = get_space("cifar-mbv3")
WEIGHTS = np.array([1.1, -0.004, 0.2, 0.3, 0.5, 0.05])
FITTED, OTHERS, ROUNDS = 32, 20, 12
#: Relative change of a network with so many ms in a round.
Change = Callable[[int, float], float]


def op_ms(_resolution: int | None, op: Op) -> float:
    return (0.01 + op.macs / 1e7) * (1 + op.attributes.get("kernel_size", 3) % 4)


def draw(count: int, seed: int) -> list[Architecture]:
    return SPACE.decode(SPACE.sample_genomes(np.random.default_rng(seed), count))


def session(networks: list[Architecture], rng: np.random.Generator, change: Change) -> dict[str, Measurement]:
    """Measurements with noise of 1% per visit, and 0.5% that no feature explains."""
    found = {}
    for network, ms in zip(networks, network_features(networks, op_ms) @ WEIGHTS, strict=True):
        true_ms = ms * (1 + 0.005 * rng.normal())
        visits = (true_ms * (1 + change(r, ms) + 0.01 * rng.normal()) for r in range(ROUNDS))
        key = network_name(network)
        found[key] = Measurement(key, tuple((float(visit),) * 3 for visit in visits))
    return found


def quiet(_round: int, _ms: float) -> float:
    return 0.0


def busier_later(number: int, ms: float) -> float:
    """Other programs come, which slow large networks more than small ones."""
    return 0.0 if number < ROUNDS // 2 else 0.01 * ms


def group(networks: list[Architecture]) -> Group:
    return Group([network_name(network) for network in networks], network_features(networks, op_ms))


def errors(change: Change) -> list[float]:
    networks = draw(FITTED + OTHERS, 0)
    found = session(networks, np.random.default_rng(1), change)
    both = errors_between_halves(group(networks[:FITTED]), group(networks[FITTED:]), found)
    assert [len(some) for some in both] == [2 * FITTED, 2 * OTHERS]
    return [*both[0], *both[1]]


def test_a_device_that_changes_has_wider_intervals() -> None:
    assert np.quantile(errors(busier_later), 0.95) > 1.5 * np.quantile(errors(quiet), 0.95)


def test_the_intervals_hold_networks_of_a_later_session() -> None:
    """95% of them, on a quiet device and on one that gets busy in the middle of the session."""
    for change, later in ((quiet, quiet), (busier_later, lambda _, ms: 0.01 * ms)):
        inside = []
        for seed in range(8):
            networks = draw(FITTED + OTHERS + 100, seed)
            rng = np.random.default_rng([seed, 1])
            found = session(networks[: FITTED + OTHERS], rng, change)
            parts = networks[:FITTED], networks[FITTED : FITTED + OTHERS]
            both = errors_between_halves(*map(group, parts), found)
            factors = interval_factors([*both[0], *both[1]], 0.95, each=2)
            assert factors is not None
            times = [np.quantile(m.samples_ms, 0.25) for m in found.values()]
            weights, _ = ridge(network_features(networks[:FITTED], op_ms), np.array(times[:FITTED]))
            fresh = networks[FITTED + OTHERS :]
            predicted = network_features(fresh, op_ms) @ weights
            measured = np.array([np.quantile(m.samples_ms, 0.25) for m in session(fresh, rng, later).values()])
            inside.append(np.mean((predicted * factors[0] <= measured) & (measured <= predicted * factors[1])))
        assert np.mean(inside) >= 0.94


def test_one_round_is_both_halves_and_failed_networks_do_not_matter() -> None:
    networks = draw(FITTED, 0)
    found = session(networks, np.random.default_rng(1), quiet)
    one = {key: Measurement(key, m.rounds_ms[:1]) for key, m in found.items()}
    one["failed"] = Measurement("failed", (), "failed", "why")
    both = errors_between_halves(group(networks), group([]), one)
    assert both[0][:FITTED] == pytest.approx(both[0][FITTED:])
    assert both[1] == []
