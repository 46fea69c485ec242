"""The correction `regression`: kept whole, a sum over ops, and fitted to networks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.corrections import Regression, fit_regression, read_correction
from ofa_profiler.tables.corrections.regression import FEATURES, network_features, op_features
from ofa_profiler.tables.row import Row

SPACE = get_space("cifar-mbv3")
coefficients = st.fixed_dictionaries({name: st.floats(-5, 5) for name in FEATURES})
PLANTED = {"ms": 1.1, "ops": -0.004, "boundary": 0.2, "inside": 0.3, "parameters": 0.5}
regressions = st.builds(
    Regression,
    coefficients,
    st.floats(-5, 5),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.none(),
    st.lists(st.floats(0, 2), max_size=5).map(tuple),
)


def op_ms(_resolution: int | None, op: Op) -> float:
    return (0.01 + op.macs / 1e7) * (1 + op.attributes.get("kernel_size", 3) % 4)


def networks(count: int, seed: int = 0):
    return SPACE.decode(SPACE.sample_genomes(np.random.default_rng(seed), count))


def planted_ms(architectures, constant: float = 0.05):
    weights = np.array([*PLANTED.values(), constant])
    return network_features(architectures, op_ms) @ weights


@given(regressions)
def test_it_is_kept_whole_in_json(regression: Regression) -> None:
    assert read_correction(json.loads(json.dumps(regression.to_json(), allow_nan=False))) == regression


@given(coefficients, st.floats(-5, 5))
@settings(max_examples=20)
def test_it_is_a_sum_over_ops_with_an_exact_minimum(values: dict[str, float], constant: float) -> None:
    regression = Regression(values, constant)
    cost = regression.cost(SPACE, op_ms)
    architectures = networks(50)
    expected = [
        sum(
            values[name] * feature
            for op in SPACE.ops(a)
            for name, feature in zip(FEATURES, op_features(op, op_ms(a.resolution, op)), strict=True)
        )
        + constant
        for a in architectures
    ]
    found = cost.evaluate(SPACE.encode(architectures))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert cost.is_exact
    assert cost.minimum()[0] <= found.min() + 1e-9
    assert cost.maximum()[0] >= found.max() - 1e-9


def test_a_plain_sum_is_a_special_case() -> None:
    plain = Regression({name: float(name == "ms") for name in FEATURES}, 0.0)
    architectures = networks(20)
    expected = [sum(op_ms(None, op) for op in SPACE.ops(a)) for a in architectures]
    np.testing.assert_allclose(plain.cost(SPACE, op_ms).evaluate(SPACE.encode(architectures)), expected)


def test_the_fit_finds_planted_coefficients() -> None:
    architectures = networks(60)
    found = fit_regression(architectures, planted_ms(architectures), op_ms, ["a", "b"])
    assert found.coefficients == pytest.approx(PLANTED, rel=0.02, abs=1e-3)
    assert found.constant == pytest.approx(0.05, abs=2e-3)
    assert found.networks == ("a", "b")
    assert found.left_out_mape is not None
    assert found.left_out_mape < 1e-4


@given(st.integers(0, 50), st.integers(12, 40))
@settings(max_examples=20, deadline=None)
def test_the_fit_predicts_networks_that_it_has_not_seen(seed: int, count: int) -> None:
    """With 1% of noise, the error for others stays near the noise, even with few networks."""
    architectures, others = networks(count, seed), networks(200, seed + 100)
    noise = np.random.default_rng(seed).normal(1, 0.01, count)
    fitted = fit_regression(architectures, planted_ms(architectures) * noise, op_ms)
    predicted = fitted.cost(SPACE, op_ms).evaluate(SPACE.encode(others))
    assert np.mean(np.abs(predicted / planted_ms(others) - 1)) < 0.02


def test_networks_that_are_the_sum_of_their_ops_stay_so() -> None:
    architectures = networks(12)
    sums = network_features(architectures, op_ms)[:, 0]
    assert fit_regression(architectures, sums, op_ms).coefficients == pytest.approx(
        {name: float(name == "ms") for name in FEATURES}, abs=1e-9
    )


def test_a_failed_op_stays_unusable() -> None:
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[op_ms(None, op)] * 3) for op in SPACE.unique_ops()]
    slow = max(SPACE.unique_ops(), key=lambda op: op.macs)
    rows[[row.op for row in rows].index(slow.key)] = Row.failed(slow, batch=1, precision="fp32", error="crashed")
    regression = Regression(PLANTED, 0.05)
    table = LatencyTable("board", tuple(rows), {"spaces": ["cifar-mbv3"], "correction": regression.to_json()})
    with_it = next(a for a in networks(5000) if slow in SPACE.ops(a))
    assert math.isinf(table.cost(SPACE).evaluate(SPACE.encode([with_it]))[0])


@pytest.mark.parametrize(
    "change",
    [
        {"coefficients": None},
        {"coefficients": {"ms": 1.0}},
        {"coefficients": {**PLANTED, "ms": "1"}},
        {"coefficients": {**PLANTED, "magic": 1.0}},
        {"constant": math.nan},
        {"constant": True},
        {"networks": "all"},
        {"networks": [1]},
        {"left_out_mape": "small"},
        {"held_out_errors": "small"},
        {"held_out_errors": [0.1, "0.1"]},
        {"held_out_errors": [-0.1]},
        {"errors_each": 0},
        {"errors_each": "2"},
    ],
)
def test_what_is_no_regression_is_refused(change: dict[str, object]) -> None:
    good = Regression(PLANTED, 0.05, ("a",), 0.01).to_json()
    with pytest.raises(UsageError, match="'correction'"):
        read_correction({**good, **change})
