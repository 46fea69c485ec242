"""Every snippet of the README and the documents, run in a scratch folder as a reader would run it, in a quick form.

Some commands are made quicker (fewer pixels, less time, less training), and budgets are moved into the range of the
table. Nothing else is changed. `docs/python.md` and `docs/extending.md` have tests of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from support.onnx_nets import FLOAT, network, weights
from support.paths import ROOT
from support.tflite_nets import Net, options, packed

from ofa_profiler import LatencyTable, get_space, profile
from ofa_profiler.devices import FakeDevice
from ofa_profiler.tables.row import Row

#: What cannot be run here: set-up of the environment, and what needs the internet or another machine.
SKIPPED = ("make ", "pip install ", ".ci/run", "scp ", "python3 ", "ofa-profile --device adb:", "ofa-profile: ")
MODULES = {
    "ofa-profile": "ofa_profiler.cli.profile",
    "ofa-verify": "ofa_profiler.cli.verify",
    "ofa-compare": "ofa_profiler.cli.compare",
    "ofa-search": "ofa_search.cli.search",
    "ofa-train": "ofa_search.cli.train",
    "ofa-prune": "ofa_search.cli.prune",
}
#: Shapes of the network of docs/any-model.md, which is smaller here.
SMALLER = {"1x3x224x224": "1x3x32x32", "image=1x3x224x224": "image=1x3x32x32"}
#: Tables that the commands of a page measure.
_MEASURED = ("this-machine.csv", "out/board.csv")
OVER_BUDGET = 5
#: A convolution without padding.
VALID = options("Conv2DOptions", padding=1, strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shell_lines(page: str) -> list[str]:
    """The commands in blocks of sh, and the indented ones, in their order."""
    text = text_of(page).replace("\\\n", " ")
    found = re.finditer(r"^```sh\n(.*?)^```|^ {4}((?:ofa-[a-z]+|scp|python3) [^\n]*)$", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(match[1] or match[2] for match in found).splitlines()
    return [line.strip() for line in lines if line.strip()]


def quick(words: list[str], folder: Path) -> list[str]:
    """The same command, quicker."""
    program, *arguments = words
    if program == "ofa-profile" and "--model" in arguments:
        return [program, *(SMALLER.get(word, word) for word in arguments), "--time-limit", "1s"]
    if program == "ofa-profile" and "--plan" not in arguments and "--import" not in arguments:
        less = ["--resolution", "24", *([] if "--calibrate" in arguments else ["--no-calibration"])]
        return [program, *arguments, *less, *([] if "--kit" in arguments else ["--time-limit", "1s"])]
    if program == "ofa-verify":
        return [program, *arguments, "--subnets", "3", "--time-limit", "1s"]
    if program == "ofa-search" and arguments[1].endswith(_MEASURED):
        table = LatencyTable.load(folder / arguments[1])
        cost = table.cost(get_space("cifar-mbv3").with_resolutions(table.resolutions(get_space("cifar-mbv3"))))
        budget = f"{(cost.minimum()[0] + cost.maximum()[0]) / 2:.6f}ms"
        return [budget if before == "--budget" else word for before, word in zip(["", *words], words, strict=False)]
    return words


def run(line: str, folder: Path) -> None:
    """Run a line of a document in `folder`."""
    words = shlex.split(line, comments=True)
    words = ["local" if word == "DEVICE" else word for word in words]
    words = [str(next(folder.glob("out/search/*.onnx"))) if word.endswith("0.7ms.onnx") else word for word in words]
    words = [word.replace("NAME", "this-machine") for word in words]
    program, *arguments = quick(words, folder)
    command = ["-m", MODULES[program]] if program in MODULES else [str(ROOT / arguments.pop(0))]
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0 or (done.returncode == OVER_BUDGET and "--verify" in words), f"{line}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents take for granted: a photo, results of a board, published tables."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("scratch")
    Image.new("RGB", (40, 50), (200, 30, 30)).save(folder / "photo.jpg")
    own_networks(folder)
    result = profile(
        FakeDevice(model="a board"), "cifar-mbv3", folder / "latency_tables", resolutions=[24], name="this-machine"
    )
    shutil.copy(result.path.with_suffix(".jsonl"), folder / "results.jsonl")
    (folder / "found.json").write_text(json.dumps(get_space("cifar-mbv3").smallest.to_json()))
    for path in (ROOT / "latency_tables").glob("epyc-cifar-mbv3*"):
        shutil.copy(path, folder / "latency_tables")
    for suffix in (".csv", ".json"):
        shutil.copy(ROOT / "latency_tables" / f"epyc-cifar-mbv3{suffix}", folder / "latency_tables" / f"board{suffix}")
    return folder


def published(folder: Path, shared_dir: Path) -> bool:
    """Put the files of the OFA authors where the documents expect them."""
    for name in ("note10", "acc_predictor.pth"):
        found = next(shared_dir.rglob(name), None)
        if found is None:
            return False
        if not (folder / name).exists():
            (folder / name).symlink_to(found)
    return True


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("README.md", marks=pytest.mark.slow),
        pytest.param("latency_tables/README.md", marks=pytest.mark.slow),
        "device_agents/README.md",
    ],
)
def test_the_commands_run(page: str, scratch: Path, request: pytest.FixtureRequest) -> None:
    ran = []
    for line in shell_lines(page):
        if line.startswith((*SKIPPED, "ofa-train ", "ofa-prune ")) or "--wheels" in line:
            continue
        if "note10" in line and not published(scratch, request.getfixturevalue("shared_dir")):
            continue
        if "--kit" in line:
            shutil.rmtree(scratch / "board-kit", ignore_errors=True)
        if "--name epyc-cifar-mbv3" in line:  # the table is there, and need not be measured again
            line = line.replace("--name epyc-cifar-mbv3", "--name this-new")
        run(line, scratch)
        ran.append(line)
    assert ran


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/tables.md", "docs/search.md", "docs/contracts.md"])
def test_the_python_runs(page: str, scratch: Path) -> None:
    """Each block alone; a device is replaced by one that measures nothing."""
    prepare(scratch)
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        code = block.replace('device="local"', "device=__import__('ofa_profiler.devices').devices.FakeDevice()")
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def prepare(folder: Path) -> None:
    """The files that the Python of the documents reads."""
    from ofa_search import AccuracyPredictor, Supernet
    from ofa_search.supernet.supernet import save_supernet

    if (folder / "pixel1.csv").exists():
        return
    space = get_space("ofa-mbv3-w1.0")
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[0.01 + op.macs / 1e8]) for op in space.unique_ops()]
    LatencyTable("pixel1", tuple(rows), {"spaces": [space.name]}).save(folder / "pixel1.csv")
    save_supernet(Supernet(space), folder / "supernet.safetensors")
    samples = [space.sample(np.random.default_rng(seed)) for seed in range(40)]
    accuracies = np.linspace(0.7, 0.8, len(samples))
    AccuracyPredictor.fit(space, samples, accuracies, hidden=(8,)).save(folder / "predictor.safetensors")
    run("ofa-search --lut latency_tables/board.csv --ladder 700us,900us", folder)  # writes out/search


@pytest.mark.slow
def test_the_page_about_your_own_network(tmp_path: Path) -> None:
    """All commands and the Python of docs/any-model.md, in their order."""
    own_networks(tmp_path)
    for line in shell_lines("docs/any-model.md"):
        if line.startswith("ofa-compare"):  # the table of another device
            for suffix in (".csv", ".json"):
                shutil.copy(tmp_path / f"tables/real{suffix}", tmp_path / f"tables/other{suffix}")
        run(line, tmp_path)
    assert {path.name for path in (tmp_path / "tables").glob("*-matrix.csv")} == {"both-matrix.csv"}
    assert (tmp_path / "tables" / "small.onnx").exists()
    (block,) = re.findall(r"^```python\n(.*?)^```", text_of("docs/any-model.md"), re.MULTILINE | re.DOTALL)
    code = block.replace("224, 224", "32, 32").replace('out="tables"', 'out="python", time_limit_s=1.0')
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, timeout=300)
    assert list((tmp_path / "python").glob("*-net.csv"))


def own_networks(folder: Path) -> None:
    """What the page takes for granted: a network as ONNX and TFLite, real inputs, a torch module."""
    image = {"image": (FLOAT, ["batch", 3, "height", "width"])}
    node = helper.make_node("Conv", ["image", "w"], ["y"], "conv", pads=[1, 1, 1, 1])
    onnx.save(network([node], image, ["y"], [weights("w", 16, 3, 3, 3)]), folder / "net.onnx")
    net = Net()
    net.tensor("image", (1, 3, 32, 32))
    net.add("CONV_2D", ["image", net.weights("w", 16, 3, 3, 32), ""], "y", (1, 1, 30, 16), options=VALID)
    (folder / "net.tflite").write_bytes(packed(["image"], ["y"], net))
    np.savez(folder / "inputs.npz", image=np.zeros((1, 3, 32, 32), np.float32))
    (folder / "my_nets.py").write_text("import torch\n\ndef small():\n    return torch.nn.Conv2d(3, 8, 3)\n")


# --- training ----------------------------------------------------------------------------------------------


def save_images(folder: Path) -> None:
    """The folders `photos` and `cifar10`, with 30 images of each of three classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for data, part, (number, name) in product(
        ("photos", "cifar10"), ("train", "test"), enumerate(("cat", "dog", "horse"))
    ):
        images = folder / data / part / name
        images.mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 90, (40, 40, 3)) + 60 * number
            Image.fromarray(pixels.astype(np.uint8)).save(images / f"{i:04}.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", ["README.md", pytest.param("docs/own-data.md", marks=pytest.mark.long), "docs/training.md"]
)
def test_the_trainings_run(page: str, scratch: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With a few images and a part of an epoch, in one process where the page starts two.

    What needs the included supernet needs the images of its training, too.
    """
    save_images(tmp_path)
    shutil.copytree(scratch / "latency_tables", tmp_path / "out" / "tables")
    run("ofa-search --lut out/tables/board.csv --budget 700us --out out/search", tmp_path)
    ran = 0
    for line in shell_lines(page):
        words = shlex.split(line)
        if "ofa_search.train_cli" in words:
            words = ["ofa-train", *words[words.index("ofa_search.train_cli") + 1 :]]
        if words[0] == "ofa-train":
            more = ["--samples", "24"] if words[1] == "predictor" else ["--epochs", "0.2", "--batch", "16"]
            words += [*more, "--device", "cpu"] if "--device" not in words else more
        elif page != "docs/own-data.md":
            continue
        if words[0] == "ofa-train" and not words[2].startswith("--"):  # the list of the commands
            continue
        if "--supernet cifar-mbv3 --data" in line:
            words[words.index("--data") + 1] = str(request.getfixturevalue("shared_dir") / "data" / "cifar10")
            words += ["--images", "100"]
        run(shlex.join(words), tmp_path)
        ran += 1
    assert ran
