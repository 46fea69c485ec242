"""What all optimizers that prune have in common: what is chosen is exactly zero at the end, the rest is trained."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.pruning import SmallNet, batches, dependencies, keep_share
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_search.pruning.groups import Axis, Dependencies, Group
from ofa_search.pruning.optimizers import (
    PruningOptimizer,
    PruningSteps,
    get_pruning_optimizer,
    pruning_optimizer_names,
)

STEPS = PruningSteps(start=4, steps=24, periods=2, samples=3)
TOTAL = 32
BASES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda parameters: torch.optim.Adam(parameters, 3e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 3e-3, weight_decay=0.05),
}


@pytest.fixture(params=pruning_optimizer_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def network(seed: int = 0) -> SmallNet:
    torch.manual_seed(seed)
    return SmallNet()


def made(
    name: str,
    module: nn.Module,
    base: str = "sgd",
    steps: PruningSteps = STEPS,
    choose: Any = keep_share,
    **options: Any,
) -> PruningOptimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    given = {"cycles": 2} if name == "hesso-cric" else {}
    optimizer = BASES[base](parameters)
    return get_pruning_optimizer(name)(optimizer, module, dependencies(), choose, steps=steps, **given, **options)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, first: int = 0, last: int = TOTAL) -> list[float]:
    losses = []
    for images, labels in batches(TOTAL)[first:last]:
        loss = functional.cross_entropy(module(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def slices(module: nn.Module, axis: Axis, units: Any) -> Tensor:
    tensor = module.state_dict()[axis.tensor]
    return tensor.index_select(axis.axis, torch.from_numpy(np.flatnonzero(np.isin(axis.units, units))))


def assert_removed(module: nn.Module, kept: Any, groups: Dependencies) -> None:
    """Exactly what is not kept is zero."""
    for group in groups.groups:
        removed = np.setdiff1d(np.arange(group.n_units), kept[group.name])
        for axis in group.made:
            assert not slices(module, axis, removed).any(), axis.tensor
        for unit in kept[group.name]:
            assert any(slices(module, axis, [unit]).any() for axis in group.made)


def same(one: nn.Module, other: nn.Module) -> bool:
    others = other.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("base", BASES)
def test_what_is_not_kept_ends_as_zero(name: str, base: str) -> None:
    module = network()
    optimizer = made(name, module, base)
    assert optimizer.progress == 0
    assert {group: len(units) for group, units in optimizer.kept().items()} == {"stem": 8, "up": 16, "pairs": 5}
    losses = train(module, optimizer)
    kept = optimizer.kept()
    assert {group: len(units) for group, units in kept.items()} == {"stem": 4, "up": 8, "pairs": 2}
    assert_removed(module, kept, dependencies())
    assert optimizer.progress == 1
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    # Channels of no unit stay.
    assert module.pairs.weight[10:].abs().min() > 0


def test_removed_units_add_nothing(name: str) -> None:
    """Whatever reads them, and in training as in inference."""
    module = network()
    optimizer = made(name, module)
    train(module, optimizer)
    inputs = batches(1, seed=5)[0][0]
    for mode in (True, False):
        module.train(mode)
        before = module(inputs)
        changed = deepcopy(module)
        for group in dependencies().groups:
            removed = np.setdiff1d(np.arange(group.n_units), optimizer.kept()[group.name])
            for axis in group.read:
                where = torch.from_numpy(np.flatnonzero(np.isin(axis.units, removed)))
                with torch.no_grad():
                    changed.get_parameter(axis.tensor).index_fill_(axis.axis, where, 100.0)
        torch.testing.assert_close(changed(inputs), before, rtol=0, atol=1e-5)


def test_kept_units_take_the_step_of_the_wrapped_optimizer(name: str) -> None:
    """To the last bit, also while others leave; before pruning begins, all do."""
    module, plain = network(), network()
    optimizer = made(name, module)
    base = BASES["sgd"](list(plain.parameters()))
    train(module, optimizer, 0, STEPS.start)
    train(plain, base, 0, STEPS.start)
    assert same(module, plain)
    train(module, optimizer, STEPS.start, STEPS.start + 1)
    train(plain, base, STEPS.start, STEPS.start + 1)
    kept = optimizer.kept()
    assert any(len(units) < group.n_units for group, units in zip(dependencies().groups, kept.values(), strict=True))
    assert not same(module, plain)
    for group in dependencies().groups:
        for axis in group.made:
            assert torch.equal(slices(module, axis, kept[group.name]), slices(plain, axis, kept[group.name]))
    for parameter in ("head.weight", "head.bias", "unused"):
        assert torch.equal(module.state_dict()[parameter], plain.state_dict()[parameter])


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("cut", [2, 6, 11, 17, 29])
def test_going_on_is_exact(name: str, base: str, cut: int) -> None:
    whole, broken = network(), network()
    unbroken = made(name, whole, base)
    train(whole, unbroken, 0, TOTAL)
    first = made(name, broken, base)
    train(broken, first, 0, cut)
    state, weights = deepcopy(first.state_dict()), deepcopy(broken.state_dict())
    resumed = network(seed=1)
    resumed.load_state_dict(weights)
    second = made(name, resumed, base)
    second.load_state_dict(state)
    assert second.progress == first.progress
    train(resumed, second, cut, TOTAL)
    assert same(whole, resumed)
    kept = unbroken.kept()
    assert all(np.array_equal(kept[group], units) for group, units in second.kept().items())


def digest(name: str) -> str:
    torch.set_num_threads(1)
    module = network()
    train(module, made(name, module))
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()


@pytest.mark.slow
def test_a_fresh_process_gives_the_same(name: str) -> None:
    threads = torch.get_num_threads()
    try:
        here = digest(name)
    finally:
        torch.set_num_threads(threads)
    folders = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    there = subprocess.run(
        [sys.executable, "-c", f"import test_contract; print(test_contract.digest({name!r}))"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here


def test_frozen_parameters_and_those_without_gradients_go_too(name: str) -> None:
    module = network()
    module.stem.requires_grad_(False)
    module.up_bn.weight.requires_grad_(False)
    before = module.stem.weight.clone()
    optimizer = made(name, module)
    train(module, optimizer)
    kept = optimizer.kept()
    assert_removed(module, kept, dependencies())
    assert torch.equal(module.stem.weight[kept["stem"]], before[kept["stem"]])


def test_frozen_units_have_their_value(name: str) -> None:
    """Without gradients they would be the first to go."""
    seen = []

    def choose(saliency: Any, share: float) -> Any:
        seen.append(saliency["stem"])
        return keep_share(saliency, share)

    module = network()
    module.stem.requires_grad_(False)
    train(module, made(name, module, "sgd", PruningSteps(0, 8, 1, 1), choose), 0, 1)
    assert (seen[0] > 0).all()


def test_all_at_once_in_one_step(name: str) -> None:
    """Pruning before any training, as by magnitude and without a way to zero."""
    module = network()
    optimizer = made(name, module, steps=PruningSteps(0, 1), weights={"magnitude": 1.0})
    train(module, optimizer, 0, 1)
    assert_removed(module, optimizer.kept(), dependencies())
    train(module, optimizer, 1, TOTAL)
    assert_removed(module, optimizer.kept(), dependencies())


def test_all_of_the_way_is_asked_for_once(name: str) -> None:
    shares = []

    def choose(saliency: Any, share: float) -> Any:
        assert all(np.isfinite(values).all() and (values >= 0).all() for values in saliency.values())
        shares.append(share)
        return keep_share(saliency, share)

    module = network()
    train(module, made(name, module, choose=choose))
    assert shares[-1] == 1.0
    assert all(0 < share < 1 for share in shares[:-1])
    assert len(shares) > 1


def test_a_scheduler_may_hold_either(name: str) -> None:
    module = network()
    optimizer = made(name, module)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=4)
    for images, labels in batches(4):
        functional.cross_entropy(module(images), labels).backward()
        optimizer.step()
        scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.025)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is optimizer.base.param_groups


def test_a_closure_is_called_with_gradients(name: str) -> None:
    module = network()
    optimizer = made(name, module)
    images, labels = batches(1)[0]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(images), labels)
        loss.backward()
        return loss

    before = module.head.weight.clone()
    assert optimizer.step(closure) > 0
    assert not torch.equal(module.head.weight, before)


def test_the_gradients_of_removed_units_do_not_count(name: str) -> None:
    module = network()
    optimizer = made(name, module)
    train(module, optimizer)
    functional.cross_entropy(module(batches(1)[0][0]), batches(1)[0][1]).backward()
    optimizer.erase_removed_gradients()
    for group in dependencies().groups:
        removed = np.setdiff1d(np.arange(group.n_units), optimizer.kept()[group.name])
        for axis in group.made:
            if axis.tensor in dict(module.named_parameters()):
                gradient = module.get_parameter(axis.tensor).grad
                assert gradient is not None
                where = torch.from_numpy(np.flatnonzero(np.isin(axis.units, removed)))
                assert not gradient.index_select(axis.axis, where).any()


def test_groups_of_another_network_are_refused(name: str) -> None:
    module, make = network(), get_pruning_optimizer(name)
    base = BASES["sgd"](module.parameters())
    missing = Group("body", "channels", 2, 1, (Axis("body.weight", 0, np.arange(2)),), ())
    wider = Group("head", "channels", 4, 1, (Axis("head.weight", 0, np.arange(4)),), ())
    for group, words in ((missing, "no body.weight"), (wider, r"head.weight has the shape \(3, 12\)")):
        with pytest.raises(UsageError, match=words):
            make(base, module, Dependencies((group,), ()), keep_share, steps=STEPS)
    with pytest.raises(UsageError, match="nothing can be pruned"):
        make(base, module, Dependencies((), ()), keep_share, steps=STEPS)


@pytest.mark.parametrize("kept", [{"nowhere": np.arange(2)}, {"stem": np.array([8])}])
def test_a_choice_of_what_does_not_exist_is_refused(name: str, kept: Any) -> None:
    module = network()
    with pytest.raises(UsageError, match=r"no group of units 'nowhere'|stem has the units 0 to 7, not 8"):
        train(module, made(name, module, choose=lambda _saliency, _share: kept))


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown pruning optimizer 'oto'; choose from hesso, hesso-cric, dhspg"):
        get_pruning_optimizer("oto")
