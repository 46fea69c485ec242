"""The training in which a network is pruned: zeros at the end, the same result whatever interrupts it, one choice."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.pruning import SmallNet, dependencies, keep_share
from support.training import finish, made_images, rows
from torch import nn

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces.base import Preprocessing
from ofa_search.data.batches import prepare
from ofa_search.data.images import DataSplit
from ofa_search.evaluation.world import World
from ofa_search.pruning.optimizers import pruning_optimizer_names
from ofa_search.training import loop
from ofa_search.training import pruning_trainer as pruning
from ofa_search.training.choices import Choices
from ofa_search.training.state import TrainingState
from ofa_search.training.trainer import TrainingOptions

ALONE = World(0, 1, torch.device("cpu"))
PREPROCESSING = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
OPTIONS = TrainingOptions(epochs=10.0, batch=8, learning_rate=2e-3)
PRUNING = pruning.PruningOptions(start=0.1, end=0.6, periods=3, samples=2)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(seed: int = 0, kind: Callable[[], nn.Module] = SmallNet) -> pruning.PrunableNetwork:
    torch.manual_seed(seed)
    return pruning.PrunableNetwork(kind(), dependencies(), PREPROCESSING, 16)


def data() -> DataSplit:
    return DataSplit(*made_images(40, size=16).split(8))


def trainer(kind: Callable[[], nn.Module] = SmallNet, **options: Any) -> pruning.PruningTrainer:
    return pruning.PruningTrainer(
        network(0, kind),
        keep_share,
        OPTIONS,
        pruning.PruningOptions(**{**vars(PRUNING), **options}),
        data().training,
        ALONE,
    )


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", pruning_optimizer_names())
@pytest.mark.parametrize("distill", [False, True])
def test_a_network_is_trained_and_pruned(name: str, distill: bool, tmp_path: Path) -> None:
    options = pruning.PruningOptions(**{**vars(PRUNING), "optimizer": name, "distill": distill})
    given = network()
    pruned = pruning.train_pruned(given, keep_share, OPTIONS, options, data(), tmp_path, ALONE)
    assert pruned.module is given.module
    assert not pruned.module.training
    assert {group: len(units) for group, units in pruned.kept.items()} == {"stem": 4, "up": 8, "pairs": 2}
    for group in dependencies().groups:
        removed = np.setdiff1d(np.arange(group.n_units), pruned.kept[group.name])
        for axis in group.made:
            where = torch.from_numpy(np.flatnonzero(np.isin(axis.units, removed)))
            assert not pruned.module.state_dict()[axis.tensor].index_select(axis.axis, where).any(), axis.tensor
    assert {row["phase"] for row in rows(tmp_path)} <= {"warm-up", "prune", "recover"}
    assert pruned.description["pruning"]["optimizer"] == name
    assert pruned.description["groups"][0] == ["stem", "channels", 8]
    json.dumps(pruned.description)
    weights = {key: tensor.clone() for key, tensor in pruned.module.state_dict().items()}
    again = pruning.train_pruned(network(), keep_share, OPTIONS, options, data(), tmp_path, ALONE)
    assert same(weights, again.module.state_dict())
    with pytest.raises(InputFileError, match="another weights"):
        pruning.train_pruned(network(seed=1), keep_share, OPTIONS, options, data(), tmp_path, ALONE)


class Dropping(SmallNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.2, self.training))


@pytest.mark.parametrize("name", pruning_optimizer_names())
def test_going_on_is_exact(name: str, tmp_path: Path) -> None:
    unbroken = trainer(Dropping, optimizer=name, distill=True)
    for cut in (3, 6, 9, 17):
        while unbroken.step < cut:
            unbroken.run_step()
        unbroken.state({}).save(tmp_path / f"state-{cut}")
    while unbroken.step < unbroken.steps:
        unbroken.run_step()
    for cut in (3, 6, 9, 17):
        resumed = trainer(Dropping, optimizer=name, distill=True)
        resumed.resume(TrainingState.load(tmp_path / f"state-{cut}"))
        assert resumed.step == cut
        while resumed.step < resumed.steps:
            resumed.run_step()
        differing = trainer(Dropping, optimizer=name, distill=True)
        assert not same(differing.network.state_dict(), resumed.network.state_dict())
        assert same(unbroken.network.state_dict(), resumed.network.state_dict()), cut


def test_a_parameter_of_two_names_is_saved(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        module = SmallNet()
        module.again = module.head
        return module

    training = trainer(tied)
    training.run_step()
    training.state({}).save(tmp_path / "state")
    resumed = trainer(tied)
    resumed.resume(TrainingState.load(tmp_path / "state"))
    assert same(training.network.state_dict(), resumed.network.state_dict())


#: Trains in folder argv[1]; saves at every row of the log, and writes how often it was asked to choose.
PROGRAM = """
import sys
from pathlib import Path
import test_pruning_trainer as t
from ofa_search.evaluation.world import join_world
from ofa_search.training import loop, pruning_trainer as pruning
import numpy as np, torch

torch.set_num_threads(1)
loop.SAVE_EVERY_S, loop.LOG_STEPS, loop.WATCHED = 0.0, 2, 4
out = Path(sys.argv[1])

def choose(saliency, share):
    with (out / "asked").open("a") as file:
        file.write(f"{share}\\n")
    return t.keep_share(saliency, share)

with join_world("cpu") as world:
    print("ready", flush=True)
    options = pruning.PruningOptions(**{**vars(t.PRUNING), "optimizer": sys.argv[2], "periods": 2})
    training = t.TrainingOptions(epochs=float(sys.argv[3]), batch=8)
    pruned = pruning.train_pruned(t.network(world.rank), choose, training, options, t.data(), out, world)
    kept = {f"kept.{name}": torch.from_numpy(units) for name, units in pruned.kept.items()}
    torch.save({**pruned.module.state_dict(), **kept}, out / f"result-{world.rank}")
"""


def start(out: Path, optimizer: str, epochs: float, **environment: str) -> subprocess.Popen[str]:
    folders = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    paths = {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), optimizer, str(epochs)],
        env=os.environ | paths | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=[pytest.mark.long] if each != "hesso" else []) for each in pruning_optimizer_names()],
)
def test_a_killed_training_ends_like_an_unbroken_one(name: str, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole, name, 60))
    for wait_s in (random.uniform(0, 0.5), random.uniform(0, 0.5)):
        process = start(broken, name, 60)
        while process.poll() is None and not (broken / loop.STATE).exists():
            time.sleep(0.02)
        time.sleep(wait_s)
        process.kill()
        process.communicate()
    finish(start(broken, name, 60))
    assert same(load_file(whole / loop.STATE), load_file(broken / loop.STATE))
    assert same(torch.load(whole / "result-0"), torch.load(broken / "result-0"))
    assert rows(whole) == rows(broken)


@pytest.mark.slow
def test_two_processes_prune_the_same_and_ask_once(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for process in [start(tmp_path, "hesso", 3, RANK=rank, LOCAL_RANK=rank, **common) for rank in "01"]:
        finish(process)
    assert same(torch.load(tmp_path / "result-0"), torch.load(tmp_path / "result-1"))
    assert (tmp_path / "asked").read_text() == "0.5\n1.0\n"


# --- choices ----------------------------------------------------------------------------------------------


def test_an_answer_is_not_asked_for_twice(tmp_path: Path) -> None:
    saliency = {group.name: np.arange(float(group.n_units)) for group in dependencies().groups}
    asked: list[float] = []

    def choose(_saliency: Any, share: float) -> Any:
        asked.append(share)
        return {"stem": np.array([1, 2]), "up": np.arange(len(asked))}

    def choices(training: Mapping[str, Any], *, fresh: bool = False) -> Choices:
        made = Choices(choose, dependencies(), ALONE)
        made.remember(tmp_path / "choices.json", training, fresh=fresh)
        return made

    first = choices({"seed": 0, "pair": (1, 2)})
    assert [len(first(saliency, share)["up"]) for share in (0.5, 1.0)] == [1, 2]
    assert list(first(saliency, 1.0)["pairs"]) == [0, 1, 2, 3, 4]
    second = choices({"seed": 0, "pair": (1, 2)})
    second.made = 1
    assert list(second(saliency, 1.0)["stem"]) == [1, 2]
    assert second.made == 2
    assert asked == [0.5, 1.0, 1.0]
    choices({"seed": 1})(saliency, 0.25)
    choices({"seed": 1}, fresh=True)(saliency, 0.125)
    (tmp_path / "choices.json").write_text("cut sh")
    choices({"seed": 1})(saliency, 0.0625)
    assert asked == [0.5, 1.0, 1.0, 0.25, 0.125, 0.0625]


def test_an_error_of_the_chooser_comes_through() -> None:
    def choose(_saliency: Any, _share: float) -> Any:
        raise InputFileError(Path("lut.csv"), "cannot be read")

    with pytest.raises(InputFileError, match="cannot be read"):
        Choices(choose, dependencies(), ALONE)({}, 1.0)


# --- inputs and schedule ----------------------------------------------------------------------------------


def test_a_network_of_other_outputs_is_refused() -> None:
    def wide() -> nn.Module:
        module = SmallNet()
        module.head = nn.Linear(12, 5)
        return module

    with pytest.raises(UsageError, match=r"outputs of shape \(5,\) per image, but made has 3 classes"):
        trainer(wide)

    class Two(SmallNet):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), x

    with pytest.raises(UsageError, match="gives a tuple per image"):
        trainer(Two)


class Viewing(SmallNet):
    """It takes maps apart as many networks do; a map in channels-last does not have such a view."""

    def __init__(self) -> None:
        super().__init__()
        for module in (self.stem, self.up):
            module.register_forward_hook(lambda _module, _inputs, map_: map_.view(len(map_), -1).view(map_.shape))


@pytest.mark.parametrize("kind", [SmallNet, Viewing])
def test_a_network_is_trained_in_the_fastest_format_that_it_takes(kind: type[SmallNet], tmp_path: Path) -> None:
    options = pruning.PruningOptions(**{**vars(PRUNING), "distill": True})
    done = pruning.train_pruned(network(0, kind), keep_share, OPTIONS, options, data(), tmp_path, ALONE)
    weight = done.module.stem.weight
    assert isinstance(weight, torch.Tensor)
    assert weight.is_contiguous(memory_format=torch.channels_last) == (kind is SmallNet)
    assert weight.is_contiguous() == (kind is Viewing)


class Assisted(SmallNet):
    """With another classifier while it trains, like GoogLeNet."""

    def forward(self, x: torch.Tensor) -> Any:
        out = super().forward(x)
        return (out, out.detach()) if self.training else out


def test_outputs_of_auxiliary_classifiers_are_left_out() -> None:
    losses = [trainer(kind).run_step()["loss"] for kind in (SmallNet, Assisted)]
    assert losses[0] == losses[1]


def test_pruning_has_its_place_in_the_schedule() -> None:
    schedule = pruning.pruning_schedule(10, pruning.PruningOptions(start=0.2, end=0.6))
    assert [(phase.name, round(phase.share, 6)) for phase in schedule.phases] == [
        ("warm-up", 0.05),
        ("warm-up", 0.15),
        ("prune", 0.4),
        ("recover", 0.4),
    ]
    rates = [phase.learning_rate for phase in schedule.phases]
    assert rates[0] == (0.1, 1.0)
    assert all(one[1] == other[0] for one, other in pairwise(rates))
    assert rates[-1][1] == 0
    assert sum(phase.share for phase in schedule.phases) == pytest.approx(1)
    always = pruning.pruning_schedule(1, pruning.PruningOptions(start=0.0, end=1.0))
    assert [phase.name for phase in always.phases] == ["prune", "prune"]
    with pytest.raises(UsageError, match=r"cannot go from 0\.6 to 0\.5"):
        pruning.PruningOptions(start=0.6, end=0.5)


def test_channels_in_the_other_order() -> None:
    pixels = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1)
    plain = Preprocessing((0, 0, 0), (1, 1, 1), range=(0.0, 255.0))
    assert prepare(pixels, None, plain).flatten().tolist() == [0, 1, 2]
    turned = Preprocessing((0, 0, 1), (1, 1, 1), "BGR", (0.0, 255.0))
    assert prepare(pixels, None, turned).flatten().tolist() == [2, 1, -1]
