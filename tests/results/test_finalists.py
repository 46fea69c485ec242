"""The best network that keeps its budget when measured: devices that are slower, faster or odder than their table."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.row import Row
from ofa_search import Macs, search
from ofa_search.results import finalists
from ofa_search.results.finalists import Finals, decide_by_measuring
from ofa_search.results.found import Found
from ofa_search.results.weight_source import weight_source
from ofa_search.searching.engines.evolutionary import Evolutionary

SPACE = get_space("cifar-mbv3").with_resolutions([24])
SOURCE = weight_source(SPACE, None, 0, needed=False)


def op_ms(op: Op) -> float:
    return float((0.05 + op.macs / 1e6) * (1 + zlib.crc32(op.key.encode()) % 7))


ROWS = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[op_ms(op)] * 3) for op in SPACE.unique_ops()]
TABLE = LatencyTable("board", tuple(ROWS), {"spaces": ["cifar-mbv3"]})
LOWEST, HIGHEST = (getattr(TABLE.cost(SPACE), end)()[0] for end in ("minimum", "maximum"))

#: Nearly as good as the default.
QUICK = Evolutionary(population=192, parents=48, generations=40, patience=8, polish_rounds=2)

Truth = Callable[[Architecture], float]


def predicted_ms(architecture: Architecture) -> float:
    return float(TABLE.predict_ms([architecture])[0])


def differing(architecture: Architecture, spread: float) -> float:
    """A factor of its own for each network, within ± spread."""
    return 1 + spread * (2 * zlib.crc32(repr(architecture).encode()) / 2**32 - 1)


def searched(ms: float) -> Found:
    result = search(SPACE, [(TABLE, ms)], Macs(), engine=QUICK)
    return Found(result, Macs(), SOURCE)


class Device:
    """Measures with noise (standard deviation), says how large it is, and remembers what it was asked."""

    def __init__(self, truth: Truth, noise: float) -> None:
        self.truth, self.noise = truth, noise
        self.sessions: list[list[Architecture]] = []
        self._rng = np.random.default_rng(0)

    def measure(self, networks: Sequence[Found]) -> list[Found]:
        self.sessions.append([network.result.architecture for network in networks])
        found = [self.truth(architecture) * self._rng.normal(1, self.noise) for architecture in self.sessions[-1]]
        return [
            # Halves differ twice as much as wholes; the mean of an absolute normal deviate is 0.8 deviations.
            replace(network, measured_latency_ms={"board": ms}, noise=1.6 * self.noise)
            for network, ms in zip(networks, found, strict=True)
        ]


def decide(truth: Truth, *budgets: float, noise: float = 0.001) -> tuple[Finals, Device]:
    def again(network: Found, ms: float) -> Found:
        found = searched(ms)
        return replace(network, result=replace(found.result, budget_ms=network.result.budget_ms))

    device = Device(truth, noise)
    return decide_by_measuring([searched(ms) for ms in budgets], "board", again, device.measure), device


TRUTHS: dict[str, Truth] = {
    "as predicted": predicted_ms,
    "8% slower": lambda a: 1.08 * predicted_ms(a),
    "8% faster": lambda a: 0.92 * predicted_ms(a),
    "a constant": lambda a: predicted_ms(a) + 0.1 * LOWEST,
    "every network differs": lambda a: 1.03 * predicted_ms(a) * differing(a, 0.02),
}


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("part", [0.15, 0.5])
def test_the_result_keeps_the_budget_and_uses_it(name: str, part: float) -> None:
    budget = LOWEST + part * (HIGHEST - LOWEST)
    finals, device = decide(TRUTHS[name], budget)
    (found,) = finals.found
    assert found.measured_latency_ms is not None
    assert found.measured_latency_ms["board"] <= budget
    assert found.result.budget_ms == {"board": budget}
    truth = TRUTHS[name](found.result.architecture)
    assert 0.95 * budget <= truth <= 1.004 * budget  # within the noise
    assert finals.rounds == len(device.sessions) <= 5
    assert found.result.evaluations > searched(budget).result.evaluations


@pytest.mark.slow
def test_budgets_are_kept_when_the_networks_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 budgets, one search each, on a device with 2% of noise; and without the margin, to see that it matters."""
    truth = TRUTHS["as predicted"]

    def over() -> int:
        count, rng = 0, np.random.default_rng(1)
        for budget in LOWEST + np.linspace(0.1, 0.8, 10) * (HIGHEST - LOWEST):
            finals, _ = decide(truth, float(budget), noise=0.02)
            count += truth(finals.found[0].result.architecture) * rng.normal(1, 0.02) > budget
        return count

    assert over() == 0
    monkeypatch.setattr(finalists, "_MARGIN", 0.0)
    assert over() >= 3


def test_nothing_measured_was_better() -> None:
    budget = (LOWEST + HIGHEST) / 2
    finals, device = decide(TRUTHS["every network differs"], budget)
    score = finals.found[0].result.score
    kept = {a for session in device.sessions for a in session if TRUTHS["every network differs"](a) <= 0.996 * budget}
    assert all(SPACE.macs(architecture) <= score for architecture in kept)


def test_a_session_never_measures_a_network_twice() -> None:
    _, device = decide(TRUTHS["8% slower"], (LOWEST + HIGHEST) / 2)
    assert all(len(set(session)) == len(session) for session in device.sessions)


def test_the_fastest_network_is_the_last_resort() -> None:
    """The device is slow except for the fastest network."""
    fastest = SPACE.decode(TABLE.cost(SPACE).minimum()[1][np.newaxis])[0]
    finals, _ = decide(lambda a: LOWEST if a == fastest else 10 * HIGHEST, 1.5 * LOWEST)
    assert finals.found[0].result.architecture == fastest


def test_no_network_keeps_the_budget() -> None:
    budget = 1.5 * LOWEST
    finals, device = decide(lambda a: 2 * predicted_ms(a), budget)
    (found,) = finals.found
    assert found.measured_latency_ms is not None
    assert found.measured_latency_ms["board"] > budget
    # The closest one is the fastest one of all.
    assert predicted_ms(found.result.architecture) == pytest.approx(LOWEST)
    assert any(found.result.architecture in session for session in device.sessions)


def test_budgets_are_measured_together() -> None:
    budgets = [LOWEST + part * (HIGHEST - LOWEST) for part in (0.2, 0.4, 0.6)]
    finals, device = decide(TRUTHS["8% slower"], *budgets)
    assert [found.result.budget_ms["board"] for found in finals.found] == budgets
    assert len(device.sessions) <= 5
    for found, budget in zip(finals.found, budgets, strict=True):
        assert found.measured_latency_ms is not None
        assert 0.93 * budget <= found.measured_latency_ms["board"] <= budget
