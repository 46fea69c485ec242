"""Samples that outlive any interruption, whatever the number of processes, and the predictor fitted to them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.image_files import write_shapes

from ofa_profiler import Architecture, get_space
from ofa_search.cli.train import main
from ofa_search.data.images import Images, load_images
from ofa_search.evaluation.samples import Sample, SampleFolder, draw_architectures, is_drawn_evenly
from ofa_search.evaluation.subnets import Evaluator, accuracy, calibrated, calibration_images, representatives
from ofa_search.evaluation.world import World
from ofa_search.supernet.supernet import load_trained, save_supernet
from ofa_search.training.supernet_trainer import new_supernet

SPACE = get_space("cifar-mbv3")
HELD_OUT = 60
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One thread, and a few steps of fitting only: how well predictors are fitted is tested elsewhere."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ofa_search.predictor.fit._MIN_STEPS", 20)
        patch.setattr("ofa_search.predictor.fit._MIN_EPOCHS", 1)
        yield


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with training and test images, a supernet that has learned nothing, and a cache of its own."""
    folder = tmp_path_factory.mktemp("workshop")
    write_shapes(folder / "train.parquet", 120, seed=1)
    write_shapes(folder / "test.parquet", 80, seed=2)
    supernet = new_supernet(SPACE.with_classes(3), seed=0)
    training = {"held_out": HELD_OUT, "images": 60}
    save_supernet(supernet, folder / "supernet.safetensors", metadata={"training": training})
    save_supernet(
        new_supernet(SPACE.with_classes(3), seed=1), folder / "other.safetensors", metadata={"training": training}
    )
    save_supernet(supernet, folder / "silent.safetensors")
    labels = ["disc", "cross", "square"]
    save_supernet(supernet, folder / "named.safetensors", metadata={"training": training, "labels": labels})
    return folder


def options(workshop: Path, out: Path, *more: str, samples: int = 14) -> list[str]:
    return [
        "predictor", "--supernet", str(workshop / "supernet.safetensors"), "--data", str(workshop / "train.parquet"),
        "--out", str(out), "--samples", str(samples), "--images", "40", "--device", "cpu", "--threads", "1", *more,
    ]  # fmt: skip


def environment(workshop: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(workshop / "cache")}


@pytest.fixture(autouse=True)
def own_cache(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workshop / "cache"))


def rows_of(out: Path) -> dict[int, tuple[str, str]]:
    """Accuracy and architecture by index, of all shards; nothing is there twice."""
    rows = [row for path in sorted(out.glob("samples-*.csv")) for row in csv.DictReader(path.open())]
    assert len({row["index"] for row in rows}) == len(rows)
    return {int(row["index"]): (row["accuracy"], row["architecture"]) for row in rows}


@pytest.fixture(scope="module")
def finished(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has disturbed."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(workshop / "cache"))
        assert main(options(workshop, out, "--test-data", str(workshop / "test.parquet"))) == 0
    return out


# --- what is drawn -----------------------------------------------------------------------------------


def test_architectures_are_distinct_and_stay_when_more_are_drawn() -> None:
    drawn = draw_architectures(SPACE, 300, seed=3)
    assert len(set(drawn)) == 300
    assert drawn[:40] == draw_architectures(SPACE, 40, seed=3)
    assert drawn[2:] != draw_architectures(SPACE, 300, seed=4)[2:]
    assert drawn[:2] == [SPACE.smallest, SPACE.largest]


def test_some_lean_to_the_ends_and_the_others_do_not() -> None:
    drawn = draw_architectures(SPACE, 802, seed=0)
    macs = np.array([SPACE.macs(architecture) for architecture in drawn])
    even = np.array([is_drawn_evenly(index) for index in range(len(drawn))])
    assert even.sum() == 600
    low, high = np.quantile(macs[even], [0.005, 0.995])
    assert ((macs[~even] < low) | (macs[~even] > high)).mean() > 0.2
    expected = SPACE.sample_genomes(np.random.default_rng(9), 5000)
    depths = [i for i, gene in enumerate(SPACE.genes) if gene.kind == "depth"]
    genomes = SPACE.encode([a for a, is_even in zip(drawn, even, strict=True) if is_even])
    assert np.abs(genomes[:, depths].mean(0) - expected[:, depths].mean(0)).max() < 0.15


# --- what is measured --------------------------------------------------------------------------------


def test_onnxruntime_finds_what_torch_finds(workshop: Path) -> None:
    supernet = load_trained(workshop / "supernet.safetensors").supernet
    training, held_out = load_images(workshop / "train.parquet").split(HELD_OUT)
    calibration = calibration_images(training)
    evaluator = Evaluator(supernet, calibration, held_out)
    for architecture in representatives(SPACE).values():
        network = calibrated(supernet, architecture, calibration)
        expected = accuracy(network, architecture, SPACE, held_out)
        assert evaluator.accuracy(architecture) == pytest.approx(expected, abs=1.01 / HELD_OUT)


def test_a_row_holds_the_accuracy_of_its_architecture(workshop: Path, finished: Path) -> None:
    rows = rows_of(finished)
    assert sorted(rows) == list(range(14))
    supernet = load_trained(workshop / "supernet.safetensors").supernet
    training, held_out = load_images(workshop / "train.parquet").split(HELD_OUT)
    images = held_out.take(slice(40))
    for index in (0, 5):
        architecture = Architecture.from_json(json.loads(rows[index][1]))
        network = calibrated(supernet, architecture, calibration_images(training))
        assert float(rows[index][0]) == pytest.approx(accuracy(network, architecture, SPACE, images), abs=1.01 / 40)
    assert len({accuracy for accuracy, _ in rows.values()}) > 1


def test_calibration_images_of_the_supernet_come_first(workshop: Path, finished: Path, tmp_path: Path) -> None:
    trained = load_trained(workshop / "supernet.safetensors")
    black = np.zeros((20, 3, 32, 32), dtype=np.uint8)
    path = save_supernet(
        trained.supernet,
        tmp_path / "own",
        metadata={"training": trained.description["training"]},
        calibration=black,
    )
    assert main([*options(workshop, tmp_path / "out"), "--supernet", str(path)]) == 0
    assert rows_of(tmp_path / "out") != rows_of(finished)
    about = json.loads((tmp_path / "out" / "predictor.json").read_text())
    assert "from 20 others" in about["accuracy_of"]


# --- interruptions -------------------------------------------------------------------------------------


def made_up(architecture: Architecture) -> float:
    """An accuracy that depends on the architecture alone, and costs nothing."""
    return SPACE.macs(architecture) % 1009 / 1009


def collect(folder: Path, count: int, world: World = ALONE, **changes: object) -> list[Sample]:
    wanted = dict(enumerate(draw_architectures(SPACE, count, seed=0)))
    return SampleFolder(folder, "samples", {"supernet": "a", **changes}).collect(wanted, 1009, made_up, world)


def test_cut_short_at_any_byte_it_goes_on(tmp_path: Path) -> None:
    samples = collect(tmp_path, 4)
    shard = tmp_path / "samples-0-of-1.csv"
    whole = shard.read_bytes()
    assert [s.accuracy for s in samples] == [made_up(s.architecture) for s in samples]
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in sorted(
        {*range(0, len(whole), 23), *ends[:-1], *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])}
    ):
        shard.write_bytes(whole[:cut])
        assert collect(tmp_path, 4) == samples
        assert shard.read_bytes() == whole


def test_whatever_was_measured_by_whomever_is_not_measured_again(tmp_path: Path) -> None:
    """As if other numbers of processes had been killed in between."""
    samples = collect(tmp_path / "whole", 20)
    header, *rows = (tmp_path / "whole" / "samples-0-of-1.csv").read_text().splitlines(keepends=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "samples.json").write_bytes((tmp_path / "whole" / "samples.json").read_bytes())
    parts = {
        "samples-0-of-3.csv": rows[0:9:3],
        "samples-2-of-3.csv": rows[2:6:3],
        "samples-1-of-2.csv": [rows[1], rows[0]],
    }
    for name, part in parts.items():
        (out / f"samples-{name}.csv").write_text("".join([header, *part]) + rows[15][:30])
    assert collect(out, 20) == samples
    mine = (out / "samples-0-of-1.csv").read_text().splitlines(keepends=True)
    assert sorted(mine[1:]) == sorted(set(rows) - {row for part in parts.values() for row in part})


@pytest.mark.slow
def test_killed_with_9_while_it_measures(workshop: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ofa_search.train_cli", *options(workshop, out)]
    shard = out / "samples-0-of-1.csv"
    with subprocess.Popen(command, env=environment(workshop), stderr=subprocess.DEVNULL) as process:
        while not (shard.exists() and shard.read_bytes().count(b"\n") > 3):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = shard.read_bytes()
    assert 3 < before.count(b"\n") < 15
    assert main(options(workshop, out)) == 0
    assert shard.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert rows_of(out) == rows_of(finished)


@pytest.mark.slow
def test_more_samples_and_other_numbers_of_processes_go_on(workshop: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(options(workshop, out, samples=12)) == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "ofa_search.train_cli", *options(workshop, out), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(workshop), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 14
    counts = {path.name: len(path.read_text().splitlines()) - 1 for path in out.glob("samples-*.csv")}
    assert counts == {"samples-0-of-1.csv": 12, "samples-0-of-2.csv": 1, "samples-1-of-2.csv": 1}
    assert rows_of(out) == rows_of(finished)


# --- the predictor ---------------------------------------------------------------------------------------


def test_the_predictor_says_what_it_is_of_and_loads_without_torch(finished: Path) -> None:
    code = (
        "import sys, numpy as np; from ofa_profiler import get_space; from ofa_search import AccuracyPredictor; "
        f"p = AccuracyPredictor.load({str(finished / 'predictor.safetensors')!r}); s = get_space('cifar-mbv3'); "
        "a = p.predict([s.smallest, s.largest]); assert a.shape == (2,) and ((0 <= a) & (a <= 1)).all(); "
        "assert p.metrics.samples == 3 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    about = json.loads((finished / "predictor.json").read_text())
    assert about["samples"] == {"fitted": 14, "images": 40, "seed": 0}
    assert about["accuracy_of"].startswith("40 images held out from the training images train.parquet")
    assert about["n_classes"] == 3


def test_the_offset_is_the_mean_difference_on_the_test_images(workshop: Path, finished: Path) -> None:
    about = json.loads((finished / "predictor.json").read_text())
    rows = rows_of(finished)
    tested = list(csv.DictReader((finished / "test-0-of-1.csv").open()))
    assert [row["images"] for row in tested] == ["80"] * 8
    differences = [float(row["accuracy"]) - float(rows[int(row["index"])][0]) for row in tested]
    assert about["offset"] == pytest.approx(np.mean(differences))
    assert f"{100 * abs(np.mean(differences)):.2f} points" in about["offset_of"]["says"]
    macs = [SPACE.macs(Architecture.from_json(json.loads(row["architecture"]))) for row in tested]
    assert macs == sorted(macs)
    assert [macs[0], macs[-1]] == [SPACE.macs(SPACE.smallest), SPACE.macs(SPACE.largest)]
    network = Architecture.from_json(json.loads(tested[0]["architecture"]))
    supernet = load_trained(workshop / "supernet.safetensors").supernet
    training, _ = load_images(workshop / "train.parquet").split(HELD_OUT)
    test: Images = load_images(workshop / "test.parquet")
    measured = accuracy(calibrated(supernet, network, calibration_images(training)), network, SPACE, test)
    assert float(tested[0]["accuracy"]) == pytest.approx(measured, abs=1.01 / 80)


# --- what is refused -----------------------------------------------------------------------------------


def said_in_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    # Where the machine is slow there may be lines of progress before it.
    assert [line for line in lines if not line.startswith("decode: ")] == lines[-1:], lines
    return lines[-1]


def test_samples_of_something_else_are_refused(
    workshop: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shapes(tmp_path / "others.parquet", 120, seed=5)
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    for change, word in (
        (["--supernet", str(workshop / "other.safetensors")], "differ in supernet"),
        (["--seed", "1"], "differ in seed"),
        (["--images", "30"], "differ in images"),
        (["--data", str(tmp_path / "others.parquet")], "differ in calibration"),
    ):
        capsys.readouterr()
        assert main([*options(workshop, finished), *change]) == 2
        said = said_in_one_line(capsys)
        assert word in said
        assert "--fresh" in said
    assert before == {path.name: path.read_bytes() for path in finished.iterdir()}


@pytest.mark.slow
def test_fresh_forgets(workshop: Path, tmp_path: Path) -> None:
    assert main(options(workshop, tmp_path, samples=12)) == 0
    assert main(options(workshop, tmp_path, "--seed", "1", "--fresh", samples=12)) == 0
    drawn = draw_architectures(SPACE, 12, seed=1)
    assert {i: Architecture.from_json(json.loads(a)) for i, (_, a) in rows_of(tmp_path).items()} == dict(
        enumerate(drawn)
    )


def test_wrong_input_is_told_in_one_line(
    workshop: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = write_shapes(tmp_path / "small.parquet", 50, seed=5)
    middle = write_shapes(tmp_path / "middle.parquet", 130, seed=5)
    for change, word in (
        (["--supernet", str(tmp_path / "none.safetensors")], "no such file"),
        (["--supernet", str(workshop / "silent.safetensors")], "lacks the number of training images"),
        (["--supernet", str(workshop / "named.safetensors")], "has other classes than train.parquet (0, 1, 2)"),
        (["--data", str(small)], "cannot hold out 60 of 50"),
        (["--data", str(middle)], "was trained with 60 images"),
        (["--data", str(tmp_path / "none")], "none"),
        (["--images", "61"], "only 60 images were held out"),
        (["--held-out-samples", "9"], "9 of 14 samples"),
        (["--samples", "0"], "--samples"),
        (["--device", "gpu"], "--device"),
    ):
        capsys.readouterr()
        assert main([*options(workshop, tmp_path / "out"), *change]) == 2
        assert word in said_in_one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("index,", "number,"), (",40,", ",39,"), ("\n1,", "\n2,"), ("\n1,", "\n1,7"), ("cifar-mbv3", "x")]
)
def test_a_damaged_row_is_named(
    workshop: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    (tmp_path / "samples.json").write_bytes((finished / "samples.json").read_bytes())
    text = (finished / "samples-0-of-1.csv").read_text()
    (tmp_path / "samples-0-of-1.csv").write_text(text.replace(old, new, 1))
    capsys.readouterr()
    assert main(options(workshop, tmp_path)) == 2
    said = said_in_one_line(capsys)
    assert "samples-0-of-1.csv, row" in said
    assert "--fresh" in said
