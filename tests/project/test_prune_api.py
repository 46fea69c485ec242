"""`prune` in Python: any loss and loader, by a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.prunable import SOURCE, fake_device
from torch import nn

from ofa_profiler.errors import InfeasibleError, UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_search import prune

EXAMPLE = torch.zeros(1, 3, 32, 32)


def network() -> nn.Module:
    names: dict[str, object] = {}
    exec(SOURCE, names)
    torch.manual_seed(0)
    return names["network"]()  # type: ignore[operator, no-any-return]


def regression(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches whose targets are the means of the channels: no classes."""
    torch.manual_seed(1)
    inputs = [torch.randn(8, 3, 32, 32) + torch.randn(8, 3, 1, 1) for _ in range(count)]
    return [(batch, batch.mean((2, 3))) for batch in inputs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of made-up times."""
    out = tmp_path_factory.mktemp("grid")
    with pytest.raises(InfeasibleError):
        prune(network(), EXAMPLE, 1e-6, None, nn.MSELoss(), regression(), device=fake_device(), out=out)
    return out


@pytest.mark.slow
def test_a_loss_that_is_no_classification(folder: Path, tmp_path: Path) -> None:
    whole = network()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    low, high = attainable(folder)
    budget_ms = (low + high) / 2
    found = prune(whole, EXAMPLE, budget_ms, folder / "grid.csv", nn.MSELoss(), regression(), epochs=4)
    assert found.report["after"]["predicted_ms"] <= budget_ms < found.report["before"]["predicted_ms"]
    assert found.report["after"]["params"] < found.report["before"]["params"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    assert found.module(EXAMPLE).shape == (1, 3)
    assert not found.module.training

    path = found.save(tmp_path, "small")
    document = json.loads(path.read_text())
    weights = load_file(tmp_path / document["files"]["weights"])
    found.module.load_state_dict(weights)
    assert sum(tensor.numel() for tensor in found.module.parameters()) == document["after"]["params"]


def attainable(folder: Path) -> tuple[float, float]:
    with pytest.raises(InfeasibleError) as error:
        prune(network(), EXAMPLE, 1e-9, folder / "grid.csv", nn.MSELoss(), regression())
    assert error.value.attainable is not None
    return error.value.attainable


@pytest.mark.slow
def test_what_is_wrong_is_named(folder: Path) -> None:
    loss, table = nn.MSELoss(), folder / "grid.csv"
    with pytest.raises(UsageError, match="the loader has no length"):
        prune(network(), EXAMPLE, 1.0, table, loss, iter(regression()))
    with pytest.raises(UsageError, match="give table, or device to measure and out"):
        prune(network(), EXAMPLE, 1.0, None, loss, regression(), device=fake_device())
    with pytest.raises(UsageError, match="pruning optimizer"):
        prune(network(), EXAMPLE, attainable(folder)[1], table, loss, regression(), method="magnitude")
    bad = [(inputs, np.nan * target) for inputs, target in regression(1)]
    with pytest.raises(UsageError, match="the loss of step 1 is not finite"):
        prune(network(), EXAMPLE, attainable(folder)[1], table, loss, bad, epochs=20)


def test_the_runtime_is_that_of_the_table_or_of_the_measurement(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="was measured with onnxruntime, not litert"):
        prune(network(), EXAMPLE, 1.0, folder / "grid.csv", nn.MSELoss(), regression(), runtime="litert")
    asked: list[Settings] = []

    def measure(*given: object, **_: object) -> None:
        asked.extend(each for each in given if isinstance(each, Settings))
        raise UsageError("enough")

    monkeypatch.setattr("ofa_search.prune_api.measured_model", measure)
    how = {"runtime": "litert", "provider": "CPU", "threads": 2, "device": fake_device(), "out": tmp_path}
    with pytest.raises(UsageError, match="enough"):
        prune(network(), EXAMPLE, 1.0, None, nn.MSELoss(), regression(), **how)
    assert [(each.target.runtime, each.provider, each.threads) for each in asked] == [("litert", "CPU", 2)]


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import ofa_search

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"prune needs torch .*ofa-profiler\[train\]"):
        ofa_search.__getattr__("prune")
