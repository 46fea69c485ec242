"""`search` with a confidence: the upper end of the interval keeps the budget, and nothing better does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import InfeasibleError, UsageError
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Cost, ScaledCost
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.tables.corrections.regression import FEATURES
from ofa_profiler.tables.row import Row
from ofa_search import Macs, search, search_each

SPACE = get_space("cifar-mbv3")
ROWS = tuple(
    Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.05] * 3) for op in SPACE.unique_ops()
)
PLAIN = {name: float(name == "ms") for name in FEATURES}
FACTORS = (1 / 1.04, 1 / 0.96)  # all errors are 4%


def table(errors: int = 40, name: str = "board") -> LatencyTable:
    correction = Regression(PLAIN, 0.0, held_out_errors=(0.04,) * errors)
    return LatencyTable(name, ROWS, {"spaces": ["cifar-mbv3"], "correction": correction.to_json()})


def test_results_have_intervals() -> None:
    result = search("cifar-mbv3", [(table(), 6.0)], Macs())
    predicted = result.latency_ms["board"]
    assert result.latency_interval_ms["board"] == pytest.approx((predicted / 1.04, predicted / 0.96))
    assert result.interval_level == 0.95
    without = search("cifar-mbv3", [(table(errors=0), 6.0)], Macs())
    assert without.latency_interval_ms == {"board": None}
    assert without.architecture == result.architecture


@pytest.mark.parametrize("budget", [8.03, 15.07, 30.01])
def test_the_upper_end_keeps_the_budget_as_a_tighter_budget_does(budget: float) -> None:
    careful = search("cifar-mbv3", [(table(), budget)], Macs(), confidence=0.95)
    ends = careful.latency_interval_ms["board"]
    assert ends is not None
    assert ends[1] <= budget
    assert careful.budget_ms == {"board": budget}
    tighter = search("cifar-mbv3", [(table(), budget / FACTORS[1])], Macs())
    # Rounding leads the searches apart; a budget of 4% more would give 3% more.
    assert careful.score == pytest.approx(tighter.score, rel=3e-3)


def test_the_attainable_range_is_that_of_the_upper_ends() -> None:
    fastest = table().cost(SPACE).minimum()[0]
    with pytest.raises(InfeasibleError) as raised:
        search("cifar-mbv3", [(table(), 1.01 * fastest)], Macs(), confidence=0.95)
    assert raised.value.attainable is not None
    assert raised.value.attainable[0] == pytest.approx(fastest * FACTORS[1])
    found = search("cifar-mbv3", [(table(), raised.value.attainable[0])], Macs(), confidence=0.95)
    assert found.latency_ms["board"] == pytest.approx(fastest)


def test_several_tables_keep_their_budgets_with_their_own_intervals() -> None:
    limits = [table(), table(name="other")], [[15.0, 12.0]]
    (result,) = search_each("cifar-mbv3", *limits, Macs(), confidence=0.9)
    assert all((ends := result.latency_interval_ms[name]) and ends[1] <= ms for name, ms in result.budget_ms.items())
    assert result.interval_level == 0.9


@pytest.mark.parametrize(("errors", "confidence"), [(0, 0.95), (40, 0.999), (40, 1.0), (40, 95.0)])
def test_without_such_an_interval_there_is_no_confidence(errors: int, confidence: float) -> None:
    with pytest.raises(UsageError, match=r"table board has no interval of|level between 0 and 1"):
        search("cifar-mbv3", [(table(errors), 6.0)], Macs(), confidence=confidence)


@dataclass(frozen=True, eq=False)
class Opaque(Cost):
    """A cost that is no sum."""

    space: SearchSpace
    cost: Cost

    def evaluate(self, genomes: np.ndarray) -> np.ndarray:
        return self.cost.evaluate(genomes)

    @property
    def is_exact(self) -> bool:
        return True

    def minimum(self, fixed: object = None) -> tuple[float, np.ndarray]:
        return self.cost.minimum()

    def maximum(self, fixed: object = None) -> tuple[float, np.ndarray]:
        return self.cost.maximum()


@given(st.floats(0.1, 10))
@settings(max_examples=10, deadline=None)
def test_every_cost_can_be_scaled(factor: float) -> None:
    cost = table().cost(SPACE)
    opaque = Opaque(SPACE, cost).scaled(factor)
    assert isinstance(cost, AdditiveCost)
    assert isinstance(opaque, ScaledCost)
    genomes = SPACE.sample_genomes(np.random.default_rng(0), 20)
    for scaled in (cost.scaled(factor), opaque):
        np.testing.assert_allclose(scaled.evaluate(genomes), factor * cost.evaluate(genomes))
        assert scaled.is_exact
        assert scaled.minimum()[0] == pytest.approx(factor * cost.minimum()[0])
        assert scaled.maximum()[0] == pytest.approx(factor * cost.maximum()[0])
