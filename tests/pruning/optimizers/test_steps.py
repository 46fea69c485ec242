"""The periods of the pruning phase, and the way of each optimizer to zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.pruning import SmallNet, batches, dependencies, keep_share
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_search.pruning.optimizers import DHSPG, HESSO, HESSOCRIC, PruningOptimizer, PruningSteps, pruning_steps


@given(st.integers(0, 50), st.integers(1, 300), st.integers(1, 20), st.integers(1, 30))
def test_periods_follow_each_other(start: int, steps: int, periods: int, samples: int) -> None:
    if steps < periods:
        with pytest.raises(UsageError, match="each period needs a step"):
            PruningSteps(start, steps, periods, samples)
        return
    plan = PruningSteps(start, steps, periods, samples)
    begins = [plan.begin(period) for period in range(periods + 1)]
    assert (begins[0], begins[-1]) == (start, plan.end) == (start, start + steps)
    assert {plan.period_at(step): step for step in range(plan.end + 2) if plan.period_at(step) is not None} == dict(
        zip(range(periods), begins[:-1], strict=True)
    )
    for period in range(periods):
        assert begins[period] < plan.decayed(period) <= begins[period + 1]
        assert plan.samples_at(begins[period])


def test_shares_of_a_training() -> None:
    assert pruning_steps(1000, 0.05, 0.55, 10) == PruningSteps(50, 500, 10, 20)
    assert pruning_steps(4, 0.05, 0.55, 10) == PruningSteps(0, 2, 2, 20)
    assert pruning_steps(1, 0.0, 0.5, 1) == PruningSteps(0, 1, 1, 20)


def step(module: torch.nn.Module, optimizer: PruningOptimizer) -> None:
    images, labels = batches(40)[optimizer.done]
    optimizer.zero_grad()
    functional.cross_entropy(module(images), labels).backward()
    optimizer.step()


def made(kind: Any, rate: float = 0.0, steps: PruningSteps | None = None, **options: Any) -> tuple[SmallNet, Any]:
    """With a rate of 0, all that moves is what pruning moves."""
    torch.manual_seed(0)
    module = SmallNet()
    base = torch.optim.SGD(module.parameters(), rate)
    steps = steps or PruningSteps(2, 8, 1, 2)
    return module, kind(base, module, dependencies(), keep_share, steps=steps, **options)


def test_hesso_goes_to_zero_in_equal_steps() -> None:
    module, optimizer = made(HESSO)
    before = module.up.weight.detach().clone()
    shares = []
    for _ in range(12):
        step(module, optimizer)
        left = np.setdiff1d(np.arange(16), optimizer.kept()["up"])
        shares.append((module.up.weight[left].norm() / before[left].norm()).item() if len(left) else 1.0)
    # Eight steps, of which the last two are for the others to recover.
    assert shares == pytest.approx([1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0, 0, 0, 0], abs=1e-6)
    kept = optimizer.kept()["up"]
    assert torch.equal(module.up.weight[kept], before[kept])


def test_a_unit_that_is_wanted_again_may_learn() -> None:
    """A later choice may keep a unit that is zero already. It comes back as it was when it left."""
    module, optimizer = made(HESSO, 0.1, PruningSteps(0, 8, 2, 1))
    answers = iter([{"stem": np.arange(4)}, {"stem": np.arange(2, 7)}])
    optimizer.choose = lambda _saliency, _share: next(answers)
    before = module.grouped.weight.detach().clone()
    for _ in range(4):
        step(module, optimizer)
    assert not module.grouped.weight[4:].any()
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    step(module, optimizer)
    assert list(optimizer.kept()["stem"]) == [2, 3, 4, 5, 6]
    torch.testing.assert_close(module.grouped.weight[4:7], before[4:7], rtol=0, atol=0.05)
    for _ in range(7):
        step(module, optimizer)
    gone = [0, 1, 7]
    assert not module.bn.bias[gone].any()
    assert module.down_bn.bias[[4, 5, 6]].all()


def test_cric_restores_after_each_trial() -> None:
    module, optimizer = made(HESSOCRIC, 0.05, PruningSteps(2, 32, 1, 2), cycles=3, tolerance=0.0)
    answers = iter([{"up": np.arange(8)}, {"up": np.arange(4, 16)}, {"up": np.arange(4, 16)}, {"up": np.arange(4, 16)}])
    shares = []

    def choose(_saliency: Any, share: float) -> Any:
        shares.append(share)
        return next(answers)

    optimizer.choose = choose
    for _ in range(2):
        step(module, optimizer)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    assert optimizer.cycle_steps == 2
    # In the first trial the units 8 to 15 go, in the second 0 to 3; then there is nothing new.
    step(module, optimizer)
    assert list(optimizer.kept()["up"]) == list(range(8))
    assert module.up.weight[8:].norm().item() == pytest.approx(before["up.weight"][8:].norm().item() / 2, rel=0.1)
    step(module, optimizer)
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())
    assert list(optimizer.kept()["up"]) == list(range(4, 16))
    for _ in range(2):
        step(module, optimizer)
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())
    assert shares[:3] == [shares[0]] * 3
    assert shares[0] < shares[3] == 1.0
    while optimizer.progress < 1:
        step(module, optimizer)
    assert not module.up.weight[:4].any()
    assert module.up.weight[4:].flatten(1).any(1).all()


def test_cric_sees_what_the_loss_needs() -> None:
    """A group whose loss rises without it has a higher saliency than by gradients alone."""
    torch.manual_seed(0)
    module = SmallNet()
    whole = module.pairs.weight.detach().clone()

    def probe() -> float:
        return 1.0 + 5.0 * float((module.pairs.weight != whole).any())

    saliencies = []
    for given_probe in (None, probe):
        seen: list[Any] = []

        def choose(saliency: Any, share: float, seen: list[Any] = seen) -> Any:
            seen.append(saliency)
            return keep_share(saliency, share)

        base = torch.optim.SGD(module.parameters(), 0.0)
        optimizer = HESSOCRIC(base, module, dependencies(), choose, steps=PruningSteps(0, 8), probe=given_probe)
        step(module, optimizer)
        saliencies.append(seen[0])
        module.load_state_dict({**module.state_dict(), "pairs.weight": whole})
    plain, probed = saliencies
    assert probed["pairs"] - plain["pairs"] == pytest.approx(1 / np.sqrt(5), abs=1e-5)
    assert np.array_equal(probed["up"], plain["up"])


def test_dhspg_penalises_by_length_and_projects() -> None:
    """At the rate 0.1 and a penalty of 1, a unit becomes 0.1 shorter in a step, and zero when it would turn round."""
    module, optimizer = made(DHSPG, 0.1, PruningSteps(0, 20, 1, 1), penalty=1.0, most=1.0)
    module.requires_grad_(False)
    module.unused.requires_grad_(True)
    lengths = optimizer.units.sums(torch.square).sqrt()
    for _ in range(9):  # in the half after them, they are decayed as well
        module.unused.sum().backward()
        optimizer.step()
    now = optimizer.units.sums(torch.square).sqrt()
    gone = ~optimizer.units.mask(optimizer.kept())
    expected = torch.where(gone, lengths - 0.9, lengths)
    expected[expected <= 0] = 0.0
    torch.testing.assert_close(now[~gone], lengths[~gone])
    torch.testing.assert_close(now[gone], expected[gone], rtol=1e-4, atol=1e-4)
    assert bool((now[gone] == 0).any())
    for _ in range(10):
        optimizer.step()
    assert not optimizer.units.sums(torch.square)[gone].any()
