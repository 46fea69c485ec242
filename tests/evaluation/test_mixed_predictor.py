"""Networks in mixed precision are measured as they are deployed, and fine-tune the predictor of fp32."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.image_files import write_shapes

from ofa_profiler import Architecture, get_space
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.ranges import TABLE, Ranges, made_up_ranges
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search import AccuracyPredictor
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.cli.train import main
from ofa_search.data.images import Images, load_images
from ofa_search.evaluation.measured import digest_of
from ofa_search.evaluation.mixed_subnets import MixedEvaluator, mixed_classes
from ofa_search.evaluation.subnets import CPU_BATCH, Evaluator, PreparedImages, calibration_images, representatives
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.checkpoint import Checkpoint, read_checkpoint
from ofa_search.supernet.supernet import as_trained, load_trained, save_supernet
from ofa_search.training.supernet_trainer import new_supernet

pytest.importorskip("ai_edge_litert")

SPACE = get_space("cifar-mbv3")
MIXED = MixedSpace.of(SPACE)
HELD_OUT, SAMPLES = 60, 13


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- measuring ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """The included supernet: trained, with tables of statistics and ranges."""
    path = shipped_supernet("cifar-mbv3")
    assert path is not None
    return read_checkpoint(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return load_images(write_shapes(tmp_path_factory.mktemp("images") / "some.parquet", 120, seed=3))


def classes_of(checkpoint: Checkpoint, architecture: Architecture, images: Images, ranges: Ranges) -> np.ndarray:
    plain = MIXED.plain_architecture(architecture)
    layout, precisions = MIXED.layout(architecture), MIXED.precisions(architecture)
    inputs = PreparedImages(images, SPACE, CPU_BATCH).at(plain.resolution)
    return np.asarray(mixed_classes(layout, precisions, checkpoint.weights(plain), ranges, inputs))


def test_in_fp32_it_is_the_accuracy_of_fp32(checkpoint: Checkpoint, images: Images) -> None:
    assert checkpoint.ranges is not None
    assert checkpoint.calibration is not None
    supernet, statistics = as_trained(checkpoint).supernet, checkpoint.calibration
    assert not isinstance(statistics, np.ndarray)
    plain = Evaluator(supernet, statistics, images)
    mixed = MixedEvaluator(supernet, statistics, checkpoint.ranges, images)
    for architecture in representatives(SPACE).values():
        network = MIXED.with_bits(architecture, [32] * len(SPACE.layout(architecture)))
        assert mixed.accuracy(network) == pytest.approx(plain.accuracy(architecture), abs=1.01 / len(images))


def test_all_slots_of_all_precisions_fit_together(checkpoint: Checkpoint, images: Images) -> None:
    """A part that were quantized with the range of another tensor would give noise."""
    assert checkpoint.ranges is not None
    rng = np.random.default_rng(0)
    for plain in (SPACE.smallest, *SPACE.decode(SPACE.sample_genomes(rng, 2))):
        slots = len(SPACE.layout(plain))
        exact = classes_of(checkpoint, MIXED.with_bits(plain, [32] * slots), images, checkpoint.ranges)
        assert len(set(exact.tolist())) > 2
        alternating = [(8, 32)[i % 2] for i in range(slots)]
        for bits in ([8] * slots, alternating, alternating[::-1], rng.choice([8, 32], slots).tolist()):
            found = classes_of(checkpoint, MIXED.with_bits(plain, bits), images, checkpoint.ranges)
            assert (found == exact).mean() > 0.85


def test_without_a_table_ranges_are_measured(checkpoint: Checkpoint, images: Images) -> None:
    supernet, statistics = as_trained(checkpoint).supernet, checkpoint.calibration
    assert statistics is not None
    assert not isinstance(statistics, np.ndarray)
    assert checkpoint.ranges is not None
    network = MIXED.with_bits(SPACE.smallest, [8] * len(SPACE.layout(SPACE.smallest)))
    few = images.take(slice(0, 50))
    own, from_table = (
        MixedEvaluator(supernet, statistics, ranges, few).accuracy(network) for ranges in (few, checkpoint.ranges)
    )
    assert own == pytest.approx(from_table, abs=0.1)


def test_the_last_batch_may_be_smaller(checkpoint: Checkpoint, images: Images) -> None:
    assert checkpoint.ranges is not None
    network = MIXED.with_bits(SPACE.smallest, [8, 32] * (len(SPACE.layout(SPACE.smallest)) // 2))
    whole = classes_of(checkpoint, network, images, checkpoint.ranges)
    few = classes_of(checkpoint, network, images.take(slice(0, 7)), checkpoint.ranges)
    np.testing.assert_array_equal(few, whole[:7])


# --- ofa-train predictor --precision mixed -----------------------------------------------------------


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images, a supernet that has learned nothing, with a table of ranges, and a predictor of fp32."""
    folder = tmp_path_factory.mktemp("workshop")
    write_shapes(folder / "train.parquet", 120, seed=1)
    space = SPACE.with_classes(3)
    training = {"held_out": HELD_OUT, "images": 60}
    spans = made_up_ranges(as_graph(SPACE.layout(SPACE.largest))).spans
    save_supernet(
        new_supernet(space, seed=0),
        folder / "supernet.safetensors",
        metadata={"training": training},
        ranges=Ranges(spans, TABLE),
    )
    genomes = space.sample_genomes(np.random.default_rng(0), 30)
    made_up = 0.2 + 0.3 * (genomes / space.n_choices).mean(axis=1)
    fitted = AccuracyPredictor.fit(space, space.decode(genomes), made_up, hidden=(16, 16))
    fitted.save(folder / "supernet-predictor")
    return folder


@pytest.fixture(autouse=True)
def own_cache(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workshop / "cache"))


def options(workshop: Path, out: Path, *more: str) -> list[str]:
    return [
        "predictor", "--precision", "mixed", "--supernet", str(workshop / "supernet.safetensors"),
        "--data", str(workshop / "train.parquet"), "--out", str(out), "--samples", str(SAMPLES), "--images", "20",
        "--device", "cpu", "--threads", "1", *more,
    ]  # fmt: skip


def rows_of(out: Path) -> dict[int, tuple[float, Architecture]]:
    rows = [row for path in sorted(out.glob("samples-*.csv")) for row in csv.DictReader(path.open())]
    assert len({row["index"] for row in rows}) == len(rows)
    return {
        int(r["index"]): (float(r["accuracy"]), Architecture.from_json(json.loads(r["architecture"]))) for r in rows
    }


@pytest.fixture(scope="module")
def finished(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(workshop / "cache"))
        assert main(options(workshop, out)) == 0
    return out


def test_its_samples_are_networks_of_mixed_precision(workshop: Path, finished: Path) -> None:
    rows = rows_of(finished)
    assert sorted(rows) == list(range(SAMPLES))
    networks = [architecture for _, architecture in rows.values()]
    assert {network.space for network in networks} == {"cifar-mbv3-mixed"}
    assert {bits for network in networks for bits in network.bits} == {8, 32}
    trained = load_trained(workshop / "supernet.safetensors")
    assert trained.ranges is not None
    training, held_out = load_images(workshop / "train.parquet").split(HELD_OUT)
    few = held_out.take(slice(20))
    evaluator = MixedEvaluator(trained.supernet, calibration_images(training), trained.ranges, few)
    accuracy, architecture = rows[0]
    assert evaluator.accuracy(architecture) == accuracy


def test_the_predictor_says_from_what_it_was_transferred(finished: Path) -> None:
    predictor = AccuracyPredictor.load(finished / "predictor.safetensors")
    assert predictor.knows_bits
    assert (predictor.space, predictor.n_classes) == ("cifar-mbv3-mixed", 3)
    assert predictor.accuracy_of is not None
    assert predictor.accuracy_of.endswith(
        "BatchNorm statistics from 60 others, ranges of int8 from the supernet's table"
    )
    about = json.loads((finished / "predictor.json").read_text())
    assert about["transfer"]["from"] == "supernet-predictor"
    assert about["transfer"]["metrics_before"]["samples"] == about["metrics"]["samples"] == 3


def test_cut_short_it_resumes_and_gives_the_same(workshop: Path, finished: Path, tmp_path: Path) -> None:
    """As after `kill -9`: a part of the rows, the last one incomplete, and no predictor."""
    shard = tmp_path / "samples-0-of-1.csv"
    shutil.copy(finished / "samples.json", tmp_path)
    whole = (finished / shard.name).read_bytes()
    shard.write_bytes(whole[: whole.rfind(b"\n", 0, -1) + 9])
    assert main(options(workshop, tmp_path)) == 0
    assert shard.read_bytes() == whole
    first, again = (AccuracyPredictor.load(folder / "predictor.safetensors") for folder in (finished, tmp_path))
    networks = [architecture for _, architecture in rows_of(tmp_path).values()]
    np.testing.assert_array_equal(first.predict(networks), again.predict(networks))


_DIGEST = """
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.evaluation.measured import digest_of
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.checkpoint import read_checkpoint
print(digest_of(read_checkpoint(shipped_supernet("cifar-mbv3")).calibration))
"""


@pytest.mark.slow
def test_a_table_is_recognised_in_another_process(checkpoint: Checkpoint) -> None:
    """Otherwise samples could not be resumed with a supernet that has a table."""
    run = subprocess.run([sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True, timeout=300)
    assert isinstance(checkpoint.calibration, StatisticsTable)
    assert run.stdout.strip() == digest_of(checkpoint.calibration)


def test_wrong_input_is_told_in_one_line(
    workshop: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = shutil.copy(workshop / "supernet.safetensors", tmp_path / "alone.safetensors")
    fitted = str(workshop / "supernet-predictor.safetensors")
    for change, word in (
        (["--supernet", str(alone)], "give --from FILE"),
        (["--from", str(tmp_path / "none.safetensors")], "none.safetensors"),
        (["--from", str(finished / "predictor.safetensors")], "mixed precision already"),
        (["--precision", "fp32", "--from", fitted], "--from is for --precision mixed"),
        (["--precision", "int4"], "--precision"),
    ):
        capsys.readouterr()
        assert main([*options(workshop, tmp_path / "out"), *change]) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("decode: ")]
        assert len(said) == 1
        assert word in said[0]
    assert not (tmp_path / "out").exists()
