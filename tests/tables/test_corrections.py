"""Corrections: registered by their method, kept whole in the JSON, and the cost that they give."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import InfeasibleError, InputFileError, UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Cost
from ofa_profiler.tables.corrections import Correction, OpMs, Sum, base, read_correction, register_correction
from ofa_profiler.tables.row import Row
from ofa_search import Macs, search

SPACE = get_space("cifar-mbv3")


@dataclass(frozen=True)
class Scaled(Correction):
    """Every kind of op by a factor of its own, plus a constant: still a sum."""

    method: ClassVar[str] = "scaled"
    factors: dict[str, float]
    constant_ms: float

    def cost(self, space: SearchSpace, op_ms: OpMs) -> AdditiveCost:
        def scaled_ms(resolution: int | None, op: Op) -> float:
            return op_ms(resolution, op) * self.factors.get(op.kind, 1.0)

        return AdditiveCost.from_ops_by_resolution(space, scaled_ms).affine(1.0, self.constant_ms)


@dataclass(frozen=True, eq=False)
class PowerCost(Cost):
    """A power of a sum: no sum, so nothing is known of its minimum here."""

    space: SearchSpace
    total: Cost
    exponent: float

    def evaluate(self, genomes: Genomes) -> NDArray[np.float64]:
        return np.asarray(self.total.evaluate(genomes) ** self.exponent)


@dataclass(frozen=True)
class Power(Correction):
    """A network of many ops is faster than they are one by one."""

    method: ClassVar[str] = "power"
    exponent: float

    def cost(self, space: SearchSpace, op_ms: OpMs) -> Cost:
        return PowerCost(space, Sum().cost(space, op_ms), self.exponent)


@pytest.fixture(autouse=True)
def _methods(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Known for one test."""
    monkeypatch.setattr(base._METHODS, "_entries", dict(base._METHODS._entries))
    register_correction(Scaled)
    register_correction(Power)
    return


def table(correction: Correction, failed: Callable[[Op], bool] = lambda op: False) -> LatencyTable:
    rows = [
        Row.failed(op, batch=1, precision="fp32", error="out of memory")
        if failed(op)
        else Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.05] * 3)
        for op in SPACE.unique_ops()
    ]
    return LatencyTable("board", tuple(rows), {"spaces": ["cifar-mbv3"], "correction": correction.to_json()})


def architectures(count: int = 200):
    return SPACE.decode(SPACE.sample_genomes(np.random.default_rng(0), count))


@pytest.mark.parametrize("correction", [Sum(), Scaled({"mbconv": 1.2, "stem": 0.5}, 0.25), Power(0.9)])
def test_what_was_fitted_is_kept_in_the_json_of_the_table(tmp_path: Path, correction: Correction) -> None:
    assert read_correction(json.loads(json.dumps(correction.to_json()))) == correction
    table(correction).save(tmp_path / "board.csv")
    loaded = LatencyTable.load(tmp_path / "board.csv")
    assert loaded.correction == correction
    assert loaded.metadata["correction"] == correction.to_json()
    assert next(iter(loaded.metadata["correction"])) == "method"
    np.testing.assert_array_equal(loaded.predict_ms(architectures()), table(correction).predict_ms(architectures()))


def test_predictions_follow_the_correction() -> None:
    plain = table(Sum()).predict_ms(architectures())
    np.testing.assert_allclose(table(Power(0.9)).predict_ms(architectures()), plain**0.9)
    scaled = Scaled({"mbconv": 1.2}, 0.25)
    expected = [
        sum((op.macs / 1e6 + 0.05) * (1.2 if op.kind == "mbconv" else 1.0) for op in SPACE.ops(a)) + 0.25
        for a in architectures()
    ]
    np.testing.assert_allclose(table(scaled).predict_ms(architectures()), expected, rtol=1e-6)
    assert table(scaled).cost(SPACE).is_exact
    assert not table(Power(0.9)).cost(SPACE).is_exact


def test_a_failed_op_is_named_whatever_the_correction() -> None:
    with pytest.raises(InputFileError, match="could not be measured"):
        table(Power(0.9), failed=lambda op: op.kind == "classifier").predict_ms(architectures())


def test_a_cost_without_an_exact_minimum_says_so() -> None:
    cost = table(Power(0.9)).cost(SPACE)
    for extreme in (cost.minimum, cost.maximum):
        with pytest.raises(NotImplementedError, match="PowerCost has no exact"):
            extreme()


def test_a_search_keeps_budgets_of_such_a_cost() -> None:
    board = table(Power(0.9))
    milliseconds = board.predict_ms(architectures(2000))
    for budget in (np.quantile(milliseconds, 0.001), np.median(milliseconds)):
        result = search(SPACE, [(board, float(budget))], Macs())
        assert result.latency_ms["board"] <= budget
        assert result.latency_ms["board"] == pytest.approx(board.predict_ms([result.architecture])[0])
    with pytest.raises(InfeasibleError, match=r"none found in \d+ tries.*the closest one has") as caught:
        search(SPACE, [(board, 1e-3)], Macs())
    assert caught.value.attainable is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "unknown method None; choose from sum, regression"),
        ({"method": ["sum"]}, r"unknown method \['sum'\]"),
        ({"method": "magic"}, "unknown method 'magic'; choose from sum, regression, scaled, power"),
        ({"method": "power"}, "'correction' has wrong fields for the method 'power': .*exponent"),
        ({"method": "sum", "exponent": 2}, "'correction' has wrong fields for the method 'sum': .*exponent"),
    ],
)
def test_what_is_no_correction_is_refused(data: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_correction(data)


def test_a_method_is_registered_once() -> None:
    with pytest.raises(UsageError, match="correction method 'sum' is already registered"):
        register_correction(Sum)
