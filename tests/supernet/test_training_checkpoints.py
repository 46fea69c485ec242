"""Checkpoints of other people's trainings: prefixes, wrappers, what lies beside the weights, numbers of classes."""

from __future__ import annotations

import argparse
import datetime
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_profiler import get_space
from ofa_profiler.errors import InputFileError
from ofa_search.supernet.checkpoint import read_checkpoint
from ofa_search.supernet.ofa_names import published_names
from ofa_search.supernet.supernet import Supernet

SPACE = "cifar-mbv3"


def weights(n_classes: int = 10, seed: int = 0) -> dict[str, torch.Tensor]:
    """A supernet under the names of the OFA authors."""
    torch.manual_seed(seed)
    space = get_space(SPACE).with_classes(n_classes)
    tensors = Supernet(space).state_dict()
    names = published_names(tensors, (slot.name for slot in space.slots))
    return {names[name]: tensor for name, tensor in tensors.items()}


WEIGHTS = weights()
OTHER = weights(seed=1)
BIAS = WEIGHTS["classifier.linear.bias"].numpy()


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor] = WEIGHTS) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def optimizer() -> dict[str, Any]:
    layer = torch.nn.Linear(3, 2)
    adam = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    adam.step()
    return adam.state_dict()


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def saved(content: object, protocol: int = 2) -> Path:
        path = tmp_path / "checkpoint.pth.tar"
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not request.param)
        return path

    return saved


BESIDE = {
    "numpy scalar": {"best_acc": np.mean([70.1, 71.2]), "epoch": np.int64(3)},
    "numpy array": {"history": np.arange(6.0).reshape(2, 3), "rng": np.random.get_state()},
    "Namespace": {"args": argparse.Namespace(lr=0.1, milestones={30, 60}, out=Path("exp"), name=b"x")},
    "optimizer": {"optimizer": optimizer(), "scaler": {"scale": 65536.0}, "lr": 0.1},
    "optimizer keyed by addresses": {"optimizer": {"state": {140234234234112: {"step": 1}}, "param_groups": []}},
    "odd keys": {"history": {(1, 2): 3, 0.5: 1, None: 2, True: 3, -1: 4}},
    "containers": {"log": defaultdict(list, a=[1]), "last": deque([1, 2]), "at": datetime.datetime(2020, 1, 1)},
    "types of torch": {"device": torch.device("cpu"), "dtype": torch.float16, "size": torch.Size([1])},
    "random states": {"torch": torch.get_rng_state()},
    "a complex tensor": {"fft": torch.zeros(2, dtype=torch.complex64)},
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_weights_are_taken_and_the_rest_is_left(saved: Any, beside: dict[str, Any], protocol: int) -> None:
    path = saved({"epoch": 3, "best": 71.2, "state_dict": OrderedDict(WEIGHTS), **beside}, protocol)
    if "fft" in beside and path.read_bytes()[:2] != b"PK":
        with pytest.raises(InputFileError, match="does not fit"):  # the old layout needs the size of every storage
            read_checkpoint(path, SPACE)
        return
    np.testing.assert_array_equal(read_checkpoint(path, SPACE).tensors["classifier.linear.bias"], BIAS)


WRAPPED = {
    "bare": WEIGHTS,
    "DataParallel": {"state_dict": prefixed("module.")},
    "DataParallel, bare": prefixed("module."),
    "torch.compile": {"model": prefixed("module._orig_mod.")},
    "Lightning": {"state_dict": {**prefixed("model."), "loss.weight": torch.zeros(3)}, "hyper_parameters": {"lr": 1}},
    "mmrazor": {"meta": {"epoch": 1}, "state_dict": prefixed("architecture.")},
    **{name: {name: WEIGHTS} for name in ("model_state_dict", "model", "net", "network", "state_dict_ema", "student")},
    "nested": {"model": {"state_dict": WEIGHTS}},
    "moving average beside": {"model": WEIGHTS, "model_ema": OTHER, "ema": {"module": OTHER}},
    "moving average first": {"state_dict_ema": OTHER, "state_dict": WEIGHTS},
    "tensors beside": {"best_acc": torch.tensor(0.7), "state_dict": WEIGHTS},
    "counters": {**WEIGHTS, "total_ops": torch.zeros(1), "first_conv.total_params": torch.zeros(1),
                 "first_conv.bn.num_batches_tracked": torch.tensor(3)},
    "half": {"state_dict": {name: tensor.half() for name, tensor in WEIGHTS.items()}},
}  # fmt: skip


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_and_prefixes(saved: Any, content: dict[str, Any]) -> None:
    found = read_checkpoint(saved(content), SPACE)
    np.testing.assert_allclose(found.tensors["classifier.linear.bias"], BIAS, rtol=2e-3)


@pytest.mark.parametrize("n_classes", [1, 2, 101, 1000])
def test_the_number_of_classes_is_that_of_the_file(saved: Any, n_classes: int) -> None:
    path = saved({"state_dict": weights(n_classes)})
    found = read_checkpoint(path, SPACE)
    assert found.space.n_classes == n_classes
    assert found.tensors["classifier.linear.weight"].shape[0] == n_classes
    assert Supernet.from_checkpoint(path, SPACE).space.n_classes == n_classes


REFUSED = {
    "two": ({"first": WEIGHTS, "second": OTHER}, "it holds several state_dicts: 'first', 'second'; save one of them"),
    "a module": (torch.nn.Sequential(torch.nn.Linear(2, 2)), "container.Sequential'; save its state_dict() instead"),
    "a module in it": ({"model": torch.nn.Linear(2, 2)}, "linear.Linear'; save its state_dict() instead"),
    "an object for a tensor": ({"state_dict": {**WEIGHTS, "x": np.float64(1)}}, "'x' in it refers to 'numpy"),
    "no weights": ({"epoch": 3, "lr": 0.1}, "'epoch' in its state_dict is not a tensor"),
    "only an optimizer": ({"optimizer": optimizer()}, "'optimizer' in its state_dict is not a tensor"),
    "another space": ({"state_dict": {**WEIGHTS, "first_conv.conv.weight": torch.zeros(12, 3, 3, 3)}}, "has shape"),
    "a classifier of another width": ({**WEIGHTS, "classifier.linear.weight": torch.zeros(10, 99)}, "has shape"),
    "a bias for other classes": ({**WEIGHTS, "classifier.linear.bias": torch.zeros(9)}, "has shape (9,), not (10,)"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_named(saved: Any, content: object, words: str) -> None:
    with pytest.raises(InputFileError) as refused:
        read_checkpoint(saved(content), SPACE)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:34\nsize 192773235\n", "a Git LFS pointer"),
        ("\n<!DOCTYPE html><html>", "a web page"),
        ("<html>404</html>", "a web page"),
        ("epoch 3", "does not begin as one|damaged"),
    ],
)
def test_downloads_that_are_not_the_file(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "net.pth").write_text(content)
    with pytest.raises(InputFileError, match=words):
        read_checkpoint(tmp_path / "net.pth", SPACE)


def test_a_folder_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "exp" / "normal2kernel" / "checkpoint"
    folder.mkdir(parents=True)
    with pytest.raises(InputFileError, match=r"exp: a folder, without a file of weights in it"):
        read_checkpoint(tmp_path / "exp", SPACE)
    for name in ("checkpoint.pth.tar", "latest.txt", "model_best.pth.tar", ".hidden.pth", "a.pth", "b.pth"):
        (folder / name).touch()
    listed = r"a folder; give model_best\.pth\.tar or a\.pth or b\.pth in it, or one of 1 others$"
    with pytest.raises(InputFileError, match=f"checkpoint: {listed}"):
        read_checkpoint(folder, SPACE)
    with pytest.raises(InputFileError, match=r"exp: a folder; give normal2kernel/checkpoint/model_best\.pth\.tar or"):
        Supernet.from_checkpoint(tmp_path / "exp", SPACE)
