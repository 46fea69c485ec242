"""Pruned networks from their files, and what is said about each kind of damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ofa_profiler.errors import InputFileError
from ofa_search.pruning.cutting import load_pruned
from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.graph.find import find_groups

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SOURCE = """
from torch import nn


def build():
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    return nn.Sequential(*layers), {"mean": [0.5] * 3}


def broken():
    raise OSError("no weights")
"""


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The pruned network, whose files are in the folder `out`."""
    monkeypatch.chdir(tmp_path)
    name = f"load_nets_{abs(hash(tmp_path))}"
    Path(f"{name}.py").write_text(SOURCE)
    scope: dict[str, Any] = {}
    exec(SOURCE, scope)
    net: nn.Module = scope["build"]()[0].eval()
    record = cut(net, find_groups(net, X), {"0": np.array([0, 2, 7])})
    Path("out").mkdir()
    save_file(net.state_dict(), "out/net.safetensors")
    document = {"model": f"{name}:build", "record": record.to_json(), "weights": "net.safetensors"}
    Path("out/net.json").write_text(json.dumps(document))
    Path("out/net-grid.json").write_text("{}")
    return net


def change(change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(Path("out/net.json").read_text())
    change(document)
    Path("out/net.json").write_text(json.dumps(document))


@pytest.mark.parametrize("path", ["out", "out/net.json", Path("out")])
def test_a_folder_or_its_json(network: nn.Module, path: str | Path) -> None:
    loaded = load_pruned(path)
    assert torch.equal(loaded(X), network(X))
    assert not loaded.training


def test_files_may_be_listed(network: nn.Module) -> None:
    change(lambda document: document.update(weights="trained", files={"weights": "net.safetensors"}))
    assert torch.equal(load_pruned("out")(X), network(X))


def test_a_module_may_be_given(network: nn.Module) -> None:
    change(lambda document: document.pop("model"))
    scope: dict[str, Any] = {}
    exec(SOURCE, scope)
    mine = scope["build"]()[0]
    assert load_pruned("out", mine) is mine
    assert torch.equal(mine(X), network(X))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: d.pop("model"), "'model' names no function package.module:function; give the network as module="),
        (lambda d: d.update(model="no_such_module:build"), "model no_such_module:build: ModuleNotFoundError"),
        (lambda d: d.update(model=d["model"].replace("build", "broken")), "OSError: no weights"),
        (lambda d: d.update(record=[]), "the record: no object"),
        (lambda d: d["record"]["tensors"]["0.weight"]["0"].update(of=9), "not for this network: 0.weight has shape"),
        (lambda d: d["record"]["tensors"]["0.weight"]["0"].update(kept=[3, 2]), "is not ascending within 0 to 7"),
        (
            lambda d: d["record"]["tensors"].pop("0.bias"),
            "weights has 0.bias of shape (3,), and the network needs (8,)",
        ),
        (lambda d: d.update(weights="../net.safetensors"), "names no file NAME.safetensors beside it as its 'weights'"),
        (lambda d: d.update(weights="other.safetensors"), "other.safetensors: cannot be read (No such file"),
        (lambda d: d.pop("weights"), "names no file NAME.safetensors beside it as its 'weights'"),
    ],
)
def test_damage_to_the_json(network: nn.Module, damage: Callable[[dict[str, Any]], object], problem: str) -> None:
    change(damage)
    with pytest.raises(InputFileError) as caught:
        load_pruned("out/net.json")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"), [("{", "no JSON, or cut short"), ("[]", "not of a pruned network: it has no 'record'")]
)
def test_other_files(network: nn.Module, text: str, problem: str) -> None:
    Path("out/net.json").write_text(text)
    with pytest.raises(InputFileError, match=problem):
        load_pruned("out/net.json")
    with pytest.raises(InputFileError, match="no JSON file of a pruned network"):
        load_pruned("out")


def test_missing_and_several(network: nn.Module) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        load_pruned("nowhere")
    Path("out/second.json").write_text(Path("out/net.json").read_text())
    with pytest.raises(InputFileError, match=r"several pruned networks: give one of net.json, second.json"):
        load_pruned("out")


def test_damage_to_the_weights(network: nn.Module) -> None:
    path = Path("out/net.safetensors")
    whole, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-7])
    with pytest.raises(InputFileError, match="no safetensors file, or cut short"):
        load_pruned("out")
    save_file({name: tensor for name, tensor in tensors.items() if name != "4.bias"}, path)
    with pytest.raises(InputFileError, match=r"has no '4.bias' \(1 in all\)"):
        load_pruned("out")
    save_file({**tensors, "more": torch.zeros(1)}, path)
    with pytest.raises(InputFileError, match=r"has more than the network: 'more'"):
        load_pruned("out")


def test_counters_may_be_missing(network: nn.Module) -> None:
    path = Path("out/net.safetensors")
    save_file({name: t for name, t in load_file(path).items() if not name.endswith("num_batches_tracked")}, path)
    assert torch.equal(load_pruned("out")(X), network(X))
