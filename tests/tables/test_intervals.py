"""Intervals: how often they hold a network, what they need, and how a table gives them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.corrections import Regression, Sum
from ofa_profiler.tables.corrections.intervals import interval_factors
from ofa_profiler.tables.corrections.regression import FEATURES, network_features, ridge
from ofa_profiler.tables.row import Row

SPACE = get_space("cifar-mbv3")
FITTED, VALIDATED, FRESH = 32, 20, 100
PLAIN = {name: float(name == "ms") for name in FEATURES}
WEIGHTS = np.array([1.1, -0.004, 0.2, 0.3, 0.5, 0.05])
some_errors = st.lists(st.floats(0, 0.9), max_size=80)


def op_ms(_resolution: int | None, op: Op) -> float:
    return (0.01 + op.macs / 1e7) * (1 + op.attributes.get("kernel_size", 3) % 4)


@pytest.fixture(scope="module")
def pool() -> np.ndarray:
    """The features of many networks."""
    return network_features(SPACE.decode(SPACE.sample_genomes(np.random.default_rng(0), 1500)), op_ms)


NOISES = {
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "heavy tails": lambda rng, n: rng.standard_t(4, n),
    "only slower": lambda rng, n: rng.exponential(1, n),
}


def coverages(pool: np.ndarray, noise: str, fit: str, tables: int = 100) -> np.ndarray:
    """The share of fresh networks that the intervals of simulated tables hold.

    Networks also differ from the model by a part that no feature explains. `fit` names the errors that the intervals
    follow from: those of left-out and of validated networks, as in a table, or those of the fit itself.
    """
    found = []
    for table in range(tables):
        rng = np.random.default_rng(table)
        features = pool[rng.permutation(len(pool))[: FITTED + VALIDATED + FRESH]]
        bent = 0.01 * np.sin(3 * features[:, 2] / features[:, 2].mean() + table)
        measured = features @ WEIGHTS * (1 + bent + 0.01 * NOISES[noise](rng, len(features)))
        fitted, others = slice(FITTED), slice(FITTED, FITTED + VALIDATED)
        weights, left_out = ridge(features[fitted], measured[fitted])
        predicted = features @ weights
        errors = np.abs(predicted / measured - 1)
        held_out = [*np.abs(left_out), *errors[others]] if fit == "held out" else errors[fitted].tolist()
        factors = interval_factors(held_out, 0.95)
        assert factors is not None
        new = slice(FITTED + VALIDATED, None)
        low, high = predicted[new] * factors[0], predicted[new] * factors[1]
        found.append(np.mean((low <= measured[new]) & (measured[new] <= high)))
    return np.array(found)


@pytest.mark.parametrize("noise", NOISES)
def test_95_of_100_fresh_networks_are_inside(pool: np.ndarray, noise: str) -> None:
    """Pooled over 100 tables, and rarely much less for a single one, whatever the distribution of the noise."""
    found = coverages(pool, noise, "held out")
    assert 0.94 <= found.mean() <= 0.97
    assert np.mean(found < 0.88) <= 0.05


def test_the_errors_of_the_fit_itself_would_be_too_small(pool: np.ndarray) -> None:
    """The check above can fail."""
    found = coverages(pool, "normal", "itself")
    assert found.mean() < 0.94
    assert np.mean(found < 0.88) > 0.05


@given(some_errors, st.floats(0.01, 0.99))
def test_the_interval_holds_at_least_the_level_of_the_errors_it_follows_from(errors: list[float], level: float) -> None:
    factors = interval_factors(errors, level)
    if factors is None:
        assert len(errors) < level * (len(errors) + 1) + 1e-6
        return
    low, high = factors
    assert 0 < low <= 1 <= high
    for sign in (-1, 1):  # networks with the prediction 1 and these errors
        measured = 1 / (1 + sign * np.array(errors))
        assert np.mean((low - 1e-12 <= measured) & (measured <= high + 1e-12)) >= level - 1e-12


@given(some_errors, st.floats(0.01, 0.98), st.floats(0.01, 0.98))
def test_more_confidence_means_a_wider_interval(errors: list[float], one: float, other: float) -> None:
    narrow, wide = (interval_factors(errors, level) for level in sorted((one, other)))
    if narrow is not None and wide is not None:
        assert wide[0] <= narrow[0]
        assert narrow[1] <= wide[1]


def test_too_few_or_too_large_errors_give_no_interval() -> None:
    assert interval_factors([0.01] * 18, 0.95) is None
    assert interval_factors([0.01] * 19, 0.95) == (1 / 1.01, 1 / 0.99)
    assert interval_factors([1.5] * 30, 0.95) is None


@given(some_errors, st.floats(0.01, 0.99))
def test_two_errors_of_each_network_count_as_one_network(errors: list[float], level: float) -> None:
    assert interval_factors([*errors, *errors], level, each=2) == interval_factors(errors, level)


# --- tables --------------------------------------------------------------------------------------------


def table(correction: Regression | Sum) -> LatencyTable:
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[op_ms(None, op)] * 3) for op in SPACE.unique_ops()]
    return LatencyTable("board", tuple(rows), {"spaces": ["cifar-mbv3"], "correction": correction.to_json()})


def test_a_table_predicts_with_intervals() -> None:
    networks = SPACE.decode(SPACE.sample_genomes(np.random.default_rng(1), 20))
    board = table(Regression(PLAIN, 0.0, held_out_errors=tuple(i / 1000 for i in range(1, 41))))
    ms, (low, high) = board.predict_ms(networks, interval=0.95)
    np.testing.assert_array_equal(ms, board.predict_ms(networks))
    np.testing.assert_allclose(low, ms / 1.039)  # the 39th of 40 errors
    np.testing.assert_allclose(high, ms / (1 - 0.039))


@pytest.mark.parametrize("correction", [Sum(), Regression(PLAIN, 0.0), Regression(PLAIN, 0.0, (), None, (0.1,) * 18)])
def test_a_table_without_intervals_refuses_them(correction: Regression | Sum) -> None:
    with pytest.raises(UsageError, match=r"table board has no interval of 95%: .*ofa-verify --calibrate"):
        table(correction).predict_ms([SPACE.smallest], interval=0.95)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, -1.0, float("nan")])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(UsageError, match="level between 0 and 1"):
        table(Sum()).predict_ms([SPACE.smallest], interval=level)
