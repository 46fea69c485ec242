"""Each benchmark runs, with small arguments. The figures mean nothing here."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT
from support.referees import REFEREES

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.row import Row
from ofa_search import AccuracyPredictor

BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main" in path.read_text())
#: Modules that later versions of Python add to the standard library.
FUTURE = {"profiling"}
#: Arguments, and what the output must contain.
RUNS = {
    "additivity": ("cifar-mbv3 3", r"sum \+ constant +[\d.]+%"),
    "bounds": ("--lut t.csv --budget 1ms --predictor macs --seconds 0.1,0.2", r"after 0\.\d+ s bound [\d.e+]+ \("),
    "budgets": ("--lut c/cifar-mbv3-24-litert-t1.csv --out b --budgets 1", r"verified: \d of 1 over the budget"),
    "calibration": (
        "--out c --cell cifar-mbv3-litert-t1 --resolution 24 --networks 4 --found 2 --calibrate 20 --time-limit 1",
        r"cifar-mbv3-24-litert-t1: \d+ networks measured",
    ),
    "calibration_figures": ("--out c --cell cifar-mbv3-litert-t1 --resolution 24", r"litert-t1 \| [\d.]+% \| [\d.]+%"),
    "calibration_models": ("--out c --cell cifar-mbv3-litert-t1 --resolution 24", r"regression \| [\d.]+% \| [\d.]+%"),
    "cold_start": ("--runs 1 -- --lut t.csv --budget 1ms --predictor macs", r"peak memory: \d+\.\d MB \("),
    "evaluation": ("cifar-mbv3 2", r"largest +[\d.]+ "),
    "export": ("--space cifar-mbv3 --resolution 24", r"cold +[\d.]+ s"),
    "forms": ("cifar-mbv3 --networks 2 --rounds 2 --runs 2", r"litert +geometric mean [\d.]+x"),
    "forms_search": ("t.csv t.csv --predictor p.safetensors --images photos", r" ms +[\d.]+% +[\d.]+% .* ms "),
    "int8_accuracy": (
        "--test photos.parquet --out int8 --images 4 --subnets 0 --runtime litert",
        r"mean, worst \| \| \| [+-][\d.]+, ",
    ),
    "joint_search": (
        "--fp32 pair/p-litert-fp32-t1.csv --int8 pair/p-litert-int8-t1.csv --test photos.parquet --out joint "
        "--budgets 1 --images 2 --quantized 3",
        r"\| [\d.]+ ms \| [\d.]+ ms, [\d.]+% ",
    ),
    "ladder": (
        "steps --target 50us --repeats 1 --frames 20",
        r"\| ladder \| +\| [\d.]+% \| [\d.]+% \| [\d.]+% \|",
    ),
    "like": ("--pair t.csv t.csv --shares 0.1 0.5 --out like.json", r"t -> t \| 27 \(10%\) \| - \| 0.0%"),
    "measuring_share": ("--space cifar-mbv3 --resolution 24 --time-limit 1s", r"share of the wall time +[\d.]+%"),
    "precisions": ("cifar-mbv3 --networks 2 --rounds 2 --runs 2", r"`cifar-mbv3` \| litert \| [\d.]+x"),
    "predictor_transfer": (
        "--samples mixed --same mixed --counts 10 --held-out 6 --splits 1",
        r"\| 10 \| transferred \| -?[\d.]+ ± ",
    ),
    "pruning": (
        "resnet20 --data photos --epochs 1 --batch 8 --ways uniform --out pruning",
        r"\| uniform \| [\d.]+% \| [\d.]+ \| ",
    ),
    "pruning_graphs": ("resnet18", r"resnet18 +ours "),
    "pruning_latency": ("--network resnet20 --resolution 32 --out latency --levels 2 --count 2", r"mean error [\d.]+%"),
    "pruning_networks": ("--data photos --epochs 1 --batch 8 --out resnet20.safetensors", r"test: [\d.]+%"),
    "quantizers": ("cifar-mbv3 --networks 1 --rounds 2 --runs 2", r"onnxruntime: theirs / ours [\d.]+"),
    "referees": ("--only wakeword-alexa --time-limit 1s", r"wakeword-alexa \| litert \| 1 \| [\d.]+ \| "),
    "regret": (
        "--lut t.csv --predictor p.safetensors --space cifar-mbv3 --budget 1ms --points 20,40 --seeds 1 --out regret",
        r"1ms: the best network has 0\.\d+",
    ),
    "repeat": ("--out r --resolution 24 --time-limit 1s --load", r"\d+ ops: median difference [\d.]+%"),
    "saliency": ("--data photos", r"50% of the MACs by taylor2: loss "),
    "schedules": (
        "--data photos --test-data photos --out out --images 27 --batch 8 --cost 0.001 --only smallest",
        r"each alone \| [\d.]+%",
    ),
    "search": (
        "--lut t.csv --predictor p.safetensors --space cifar-mbv3 --budget 1ms --engine random --seeds 1",
        r"min +0\.\d+",
    ),
    "tables": ("t.csv", r"predict_ms: \d+ architectures/s"),
    "train_step": ("cifar-mbv3 24 2 1 2", r"largest +ours +[\d.]+"),
    "transport": ("--resolution 24 --time-limit 1s", r"local +96 ops"),
}


def test_every_benchmark_is_run_here() -> None:
    assert sorted(RUNS) == BENCHMARKS


def test_none_shadows_the_standard_library() -> None:
    """Python puts the folder of a program first on its path."""
    assert not set(BENCHMARKS) & (set(sys.stdlib_module_names) | FUTURE)


def save_parquet(path: Path) -> None:
    """Four labelled images."""
    import pyarrow as pa
    from PIL import Image
    from pyarrow import parquet

    files = []
    for i in range(4):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (60 * i, 90, 40)).save(file, "png")
        files.append({"bytes": file.getvalue()})
    parquet.write_table(pa.table({"img": files, "label": list(range(4))}), path)


def save_mixed_samples(path: Path) -> None:
    """Networks in mixed precision, two per architecture, with made-up accuracies."""
    space = get_space("cifar-mbv3-mixed")
    assert isinstance(space, MixedSpace)
    rng = np.random.default_rng(0)
    plain = np.repeat(space.plain.sample_genomes(rng, 10), 2, axis=0)
    networks = space.decode(space.canonical(np.hstack([plain, space.draw_bits(rng, len(plain))])))
    path.parent.mkdir()
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("index", "accuracy", "images", "architecture"))
        rows.writerows((i, 0.8 + i / 200, 9, json.dumps(network.to_json())) for i, network in enumerate(networks))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a predictor and images."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("benchmarks")
    space = get_space("cifar-mbv3")
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[0.01 + op.macs / 5e7]) for op in space.unique_ops()]
    LatencyTable("t", tuple(rows), {"spaces": [space.name]}).save(folder / "t.csv")
    samples = [space.sample(np.random.default_rng(seed)) for seed in range(30)]
    AccuracyPredictor.fit(space, samples, np.linspace(0.7, 0.8, 30), hidden=(8,)).save(folder / "p.safetensors")
    save_parquet(folder / "photos.parquet")
    save_mixed_samples(folder / "mixed" / "samples-0-of-1.csv")
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            images = folder / "photos" / part / name
            images.mkdir(parents=True)
            for i in range(15):
                Image.new("RGB", (32, 32), (100 * number + i, 9 * i, 40)).save(images / f"{i}.png")
    return folder


QUICK = {"like", "search", "tables"}
LONG = {
    "budgets",
    "calibration",
    "calibration_figures",
    "calibration_models",
    "pruning",
    "pruning_latency",
    "transport",
}
MARKS = {name: [] if name in QUICK else [pytest.mark.long if name in LONG else pytest.mark.slow] for name in BENCHMARKS}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
#: Benchmarks that read what another one wrote.
AFTER = dict.fromkeys(("budgets", "calibration_figures", "calibration_models"), "calibration")


#: Commands that write what a benchmark reads.
BEFORE = {
    "ladder": "ofa_search.cli.search --lut t.csv --predictor p.safetensors --ladder 0.5ms,1ms --out steps",
    "joint_search": "ofa_profiler.cli.profile --device local --precision fp32,int8 --runtime litert --resolution 24 "
    "--time-limit 1s --calibrate 10 --out pair --name p",
}


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *RUNS[name][0].split()],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS[n]) for n in BENCHMARKS])
def test_it_runs(name: str, folder: Path) -> None:
    if name == "transport" and shutil.which("sshd", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("needs an OpenSSH server: apt-get install openssh-server")
    if name == "referees":
        assert REFEREES["wakeword-alexa"].path  # skips where it cannot be downloaded
    if name in AFTER:
        run(AFTER[name], folder)  # it resumes, so at once if it ran before
    if name in BEFORE:
        subprocess.run([sys.executable, "-m", *BEFORE[name].split()], cwd=folder, env=ENVIRONMENT, check=True)
    done = run(name, folder)
    assert done.returncode == 0, done.stderr
    assert re.search(RUNS[name][1], done.stdout), done.stdout
