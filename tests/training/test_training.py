"""Training: the same seed gives the same weights, whatever interrupts it; schedules; several processes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.training import finish, made_images, rows, start

from ofa_profiler.base.progress import Progress
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import get_space, space_names
from ofa_search.data.images import DataSplit, Images
from ofa_search.evaluation.world import World
from ofa_search.supernet.supernet import Supernet
from ofa_search.training import loop as run
from ofa_search.training.log import TrainingLog, plot_log, read_log
from ofa_search.training.schedule import load_schedule, schedule_names
from ofa_search.training.subnet_trainer import SubnetTrainer, from_scratch, from_supernet
from ofa_search.training.supernet_trainer import SupernetTrainer, _kept, new_supernet
from ofa_search.training.trainer import Trainer, TrainingOptions

SPACE = get_space("cifar-mbv3").with_classes(3)
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trainer(schedule: str = "deps", **options: object) -> SupernetTrainer:
    given = {"epochs": 1.0, "batch": 4, "learning_rate": 1e-3} | options
    return SupernetTrainer(SPACE, load_schedule(schedule), TrainingOptions(**given), made_images(8), ALONE)


def weights(a_trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in a_trainer.network.state_dict().items()}


def same(these: dict[str, torch.Tensor], those: dict[str, torch.Tensor]) -> bool:
    return these.keys() == those.keys() and all(torch.equal(tensor, those[name]) for name, tensor in these.items())


def test_the_carried_images_are_the_only_ones_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of one image is known without the others: those of ImageNet would take 250 GB."""
    images = made_images(3)
    many = images.take(np.zeros(1 << 20, dtype=np.int64))
    pixels = Images.pixels.fget
    assert pixels is not None

    def few(some: Images) -> torch.Tensor:
        assert len(some) <= run.CARRIED_IMAGES
        return pixels(some)

    monkeypatch.setattr(Images, "pixels", property(few))
    monkeypatch.setattr(run, "CARRIED_BYTES", 5 * images.image_bytes)
    carried, about = run._carried(Supernet(SPACE), many, run.IMAGES, ALONE, None)
    assert about == {"by": "images", "images": 5}
    assert isinstance(carried, np.ndarray)
    assert carried.shape == (5, 3, 32, 32)


# --- interruptions ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_training_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    """Killed at any time, twice, and in fresh processes: the same weights to the last bit, and the same log."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole, "progressive", 2.5, 8))
    for wait_s in (random.uniform(0.5, 1.5), random.uniform(0, 1)):
        process = start(broken, "progressive", 2.5, 8)
        while process.poll() is None and not (broken / "training.safetensors").exists():
            time.sleep(0.02)
        time.sleep(wait_s)
        process.kill()
        process.communicate()
    finish(start(broken, "progressive", 2.5, 8))
    for name in ("training.safetensors", "supernet.safetensors"):
        assert same(load_file(whole / name), load_file(broken / name)), name
    assert rows(whole) == rows(broken)
    assert {row["phase"] for row in rows(whole)} >= {"full", "kernel", "depth-2", "expand-2"}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_going_on_is_exact(optimizer: str, tmp_path: Path) -> None:
    unbroken = trainer("sandwich", epochs=2.0, optimizer=optimizer)
    unbroken.run_step()
    unbroken.run_step()
    unbroken.state({}).save(tmp_path / "state")
    resumed = trainer("sandwich", epochs=2.0, optimizer=optimizer)
    resumed.resume(run.TrainingState.load(tmp_path / "state"))
    for _ in range(2):
        assert unbroken.run_step() == resumed.run_step()
    assert same(weights(unbroken), weights(resumed))


def test_a_training_with_other_options_is_not_taken_up(tmp_path: Path) -> None:
    first = trainer()
    data = DataSplit(made_images(8), made_images(4, seed=1))
    description = run.run_training(first, data, tmp_path, fresh=False)
    assert description["schedule"] == "deps"
    again = trainer()
    run.run_training(again, data, tmp_path, fresh=False)
    assert again.step == again.steps  # nothing was left to do
    assert same(weights(first), weights(again))
    with pytest.raises(InputFileError, match=r"another seed \(0, now 1\): choose another --out, or .* --fresh"):
        run.run_training(trainer(seed=1), data, tmp_path, fresh=False)
    saved = (tmp_path / run.STATE).read_bytes()
    run.run_training(trainer(seed=1), data, tmp_path, fresh=True)
    assert (tmp_path / f"{run.STATE}.old").read_bytes() == saved
    (tmp_path / run.STATE).write_bytes(b"cut short")
    with pytest.raises(InputFileError, match="damaged: start over with --fresh"):
        run.run_training(trainer(), data, tmp_path, fresh=False)


def test_two_runs_in_one_folder_are_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    first, data, refused = trainer(), DataSplit(made_images(8), made_images(4, seed=1)), []

    def second(_report: Progress) -> None:
        with pytest.raises(UsageError, match=r"another run is training in .*: wait for it, or choose another --out"):
            run.run_training(trainer(), data, tmp_path, fresh=True)
        refused.append(first.step)

    run.run_training(first, data, tmp_path, fresh=False, progress=second)
    assert refused
    assert first.step == first.steps
    again = trainer()
    run.run_training(again, data, tmp_path, fresh=False)
    assert same(weights(first), weights(again))


def test_a_log_goes_back_to_the_step_that_training_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = TrainingLog(path, 0, ("top",))
    for step in (20, 40, 60):
        log.write({"step": step, "epoch": step / 20, "seconds": step / 10, "loss": 1 / step, "top": ""})
    with path.open("a") as file:
        file.write("80,4.0,al")  # killed while it wrote
    assert [row["step"] for row in read_log(path)] == ["20", "40", "60"]
    log = TrainingLog(path, 40, ("top",))
    assert log.seconds == 4.0
    log.write({"step": 60, "epoch": 3, "seconds": 6, "top": 0.5})
    assert [(row["step"], row["top"]) for row in read_log(path)] == [("20", ""), ("40", ""), ("60", "0.5")]
    pytest.importorskip("matplotlib")
    plot_log(path, tmp_path / "log.png", title="a log")
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")


# --- steps ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", schedule_names())
def test_every_schedule_runs_through_all_its_phases(name: str) -> None:
    training = trainer(name, epochs=12.0)
    schedule, seen = training.schedule, []
    for _ in range(training.steps):
        number = schedule.at(training.step / training.steps)[0]
        measured = training.run_step()
        assert np.isfinite(list(measured.values())).all()
        seen.append(number)
    assert sorted(set(seen)) == list(range(len(schedule.phases)))
    assert seen == sorted(seen)


@pytest.mark.parametrize("name", space_names())
def test_all_subnets_begin_as_the_smallest(name: str) -> None:
    """Larger kernels, wider layers and more blocks add nothing at first, to the last bit but for rounding."""
    space = get_space(name)
    supernet, resolution = new_supernet(space, 0).train(), min(space.resolutions)
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, resolution, resolution), np.float32))
    rng = np.random.default_rng(1)
    with torch.no_grad():
        smallest = supernet(inputs, replace(space.smallest, resolution=resolution))
        assert smallest.abs().max() > 0.01
        for architecture in (space.largest, space.sample(rng), space.sample(rng)):
            logits = supernet(inputs, replace(architecture, resolution=resolution))
            torch.testing.assert_close(logits, smallest, rtol=1e-4, atol=1e-5)


def test_kernel_transformations_wait_until_larger_kernels_learn() -> None:
    training = trainer("cifar-cpu", epochs=12.0)
    matrices = {n: p for n, p in training.supernet.named_parameters() if n.endswith("_matrix")}
    assert matrices
    phases = training.schedule.phases
    first = next(number for number, phase in enumerate(phases) if phase.largest)
    before = {name: matrix.detach().clone() for name, matrix in matrices.items()}
    while training.schedule.at(training.step / training.steps)[0] < first:
        training.run_step()
        assert all(torch.equal(before[name], matrix) for name, matrix in matrices.items())
    training.run_step()
    assert not all(torch.equal(before[name], matrix) for name, matrix in matrices.items())


@pytest.mark.slow
def test_what_is_trained_learns() -> None:
    training = trainer("sandwich", epochs=16.0, learning_rate=3e-3)
    losses = [training.run_step()["first_loss"] for _ in range(training.steps)]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_bf16_trains_on_a_cpu() -> None:
    training = trainer("deps", epochs=2.0, bf16=True)
    before = weights(training)
    for _ in range(training.steps):
        assert np.isfinite(training.run_step()["loss"])
    after = weights(training)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert not same(before, after)


def test_a_training_that_diverges_says_so() -> None:
    training = trainer("sandwich", epochs=4.0)
    with torch.no_grad():
        next(iter(training.supernet.parameters())).fill_(float("nan"))
    with pytest.raises(UsageError, match=r"diverged.*step 1.*lower the learning rate"):
        training.run_step()


def test_batches_that_cannot_be_dealt_are_refused() -> None:
    options = TrainingOptions(epochs=1, batch=9)
    with pytest.raises(UsageError, match="8 images to train on do not fill a batch of 9"):
        SupernetTrainer(SPACE, load_schedule("deps"), options, made_images(8), ALONE)
    with pytest.raises(UsageError, match="cannot be dealt evenly to 2 processes"):
        SupernetTrainer(SPACE, load_schedule("deps"), replace(options, batch=5), made_images(8), replace(ALONE, size=2))


def test_every_epoch_sees_every_image_once() -> None:
    training = trainer(epochs=2.0)
    images = training.images
    seen = []
    for epoch in range(2):
        labels = []
        for position in range(2):
            training.step = 2 * epoch + position
            labels += training._batch()[1].tolist()
        assert sorted(labels) == sorted(images.labels.tolist())
        seen.append(list(training._order(epoch)))
    assert seen[0] != seen[1]


def test_widths_are_kept_one_by_one() -> None:
    """Before narrower blocks are trained, every width that was open has an architecture that stays as it is."""
    expand_1 = next(phase for phase in load_schedule("progressive").phases if phase.name == "expand-1")
    kept = _kept(SPACE, expand_1.open_choices(SPACE))
    assert {ratio for a in kept for stage in a.stages for ratio in stage.expand_ratios} == {4, 6}
    assert all(stage.depth == 4 and set(stage.kernel_sizes) == {7} for a in kept for stage in a.stages)


# --- one network ------------------------------------------------------------------------------------------


def subnet_trainer(**options: object) -> SubnetTrainer:
    given = TrainingOptions(**({"epochs": 2.0, "batch": 4, "learning_rate": 1e-3} | options))
    return SubnetTrainer(SPACE, from_scratch(SPACE, SPACE.smallest, given.seed), given, made_images(8), ALONE)


def test_one_network_is_trained_by_the_same_loop(tmp_path: Path) -> None:
    data = DataSplit(made_images(8), made_images(4, seed=1))
    first, second = subnet_trainer(), subnet_trainer()
    for out, training in ((tmp_path / "a", first), (tmp_path / "b", second)):
        run.run_training(training, data, out, fresh=False)
    assert same(weights(first), weights(second))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert 0 <= float(rows(tmp_path / "a")[-1]["accuracy"]) <= 1


def test_a_distilled_network_goes_on_with_its_teacher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    supernet = Supernet(SPACE)
    start_ = from_supernet(SPACE, SPACE.smallest, supernet, "digest", 0, new_classes=False)
    options = TrainingOptions(epochs=2.0, batch=4)

    def make() -> SubnetTrainer:
        own = replace(start_, network=supernet.extract(SPACE.smallest))
        return SubnetTrainer(SPACE, own, options, made_images(8), ALONE, supernet)

    unbroken, resumed = make(), make()
    unbroken.run_step()
    unbroken.state(unbroken.description(0)).save(tmp_path / "state")
    resumed.resume(run.TrainingState.load(tmp_path / "state"))
    assert unbroken.run_step() == resumed.run_step()
    assert same(weights(unbroken), weights(resumed))


def test_new_classes_get_a_new_classifier_and_nothing_else() -> None:
    supernet = Supernet(get_space("cifar-mbv3")).eval()
    theirs = supernet.extract(SPACE.smallest).state_dict()
    own = from_supernet(SPACE, SPACE.smallest, supernet, "digest", 0, new_classes=True).network.state_dict()
    differing = [name for name in own if not torch.equal(own[name], theirs[name])]
    last = SPACE.slots[-1].name
    assert own[f"{last}.linear.weight"].shape[0] == 3
    assert {name.split(".")[0] for name in differing} == {last}


# --- several processes ------------------------------------------------------------------------------------


@pytest.mark.long
def test_two_processes_train_like_one_with_the_whole_batch(tmp_path: Path) -> None:
    """Same images, same subnets, same rates. BatchNorm sees half of the batch, and images are changed by
    other random numbers: the means of five rows of the log agree within 15%, or 0.05 where hardly any is left."""
    finish(start(tmp_path / "one", "sandwich", 10, 32))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pair = [start(tmp_path / "two", "sandwich", 10, 32, RANK=rank, LOCAL_RANK=rank, **common) for rank in "01"]
    for process in pair:
        finish(process)
    one, two = (np.array([float(row["loss"]) for row in rows(tmp_path / name)]) for name in ("one", "two"))
    assert len(one) == len(two) == 10
    assert [row["learning_rate"] for row in rows(tmp_path / "one")] == [
        row["learning_rate"] for row in rows(tmp_path / "two")
    ]
    for part in (slice(0, 5), slice(5, 10)):
        assert one[part].mean() == pytest.approx(two[part].mean(), rel=0.15, abs=0.05)
    assert one[5:].mean() < one[:5].mean()


@pytest.mark.slow
def test_processes_average_broadcast_and_agree() -> None:
    program = """
import os, torch
from ofa_search.evaluation.world import join_world
with join_world("cpu") as world:
    mine = [torch.full((2, 3), float(world.rank)), torch.tensor([4.0 * world.rank])]
    world.average(mine)
    assert mine[0].eq(0.5).all() and mine[1].eq(2.0).all()
    mine = torch.tensor([world.rank])
    world.broadcast([mine])
    assert mine.item() == 0
    assert world.agree(7) and not world.agree(world.rank)
    assert world.share(8) == slice(4 * world.rank, 4 * world.rank + 4)
    with world.one_first():
        pass
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    for process in pair:
        finish(process)
