"""The quickstart, run as a user runs it, on real measurements of this machine (few and short ones)."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.no_torch import without_torch

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.tables.table import Row
from ofa_search.artifacts.shipped import shipped_predictor, shipped_supernet

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "examples" / "quickstart.py"
SMALL = ("--resolution", "24", "--time-limit", "2s")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As after `make quickstart` on a fresh machine: nothing cached, and no torch."""
    folder = tmp_path_factory.mktemp("environment")
    return {**without_torch(folder / "site"), "XDG_CACHE_HOME": str(folder / "cache")}


def start(out: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), "--out", str(out), *SMALL]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def visits(out: Path) -> int:
    journal = out / "this-machine.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> tuple[Path, list[tuple[int, str]]]:
    """The folder after three runs, the first of them ended by Ctrl-C, and what each said."""
    out = tmp_path_factory.mktemp("out") / "quickstart"
    first = start(out, environment)
    deadline = time.monotonic() + 300
    while visits(out) < 20 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    ends = [finish(first)]
    kept = visits(out)
    ends.append(finish(start(out, environment)))
    assert visits(out) > kept >= 20, ends
    ends.append(finish(start(out, environment)))
    return out, ends


@pytest.mark.long
def test_ctrl_c_ends_it_with_130_and_says_how_to_go_on(runs: tuple[Path, list[tuple[int, str]]]) -> None:
    code, output = runs[1][0]
    assert code == 130, output
    assert "run the same command again to resume" in output


@pytest.mark.slow
def test_it_leaves_what_it_promises(runs: tuple[Path, list[tuple[int, str]]]) -> None:
    out, ends = runs
    code, output = ends[1]
    assert code == 0, output
    table = LatencyTable.load(out / "this-machine.csv")
    assert table.metadata["validation"]["subnets"] == 20
    assert len(table.metadata["correction"]["networks"]) == 32
    document = json.loads((out / "search.json").read_text(encoding="utf-8"))
    (result,) = document["results"]
    cost = table.cost(get_space("cifar-mbv3").with_resolutions([24]))
    low, high = cost.minimum()[0], cost.maximum()[0]
    budget = result["budget_ms"]["this-machine"]
    assert budget == pytest.approx(low + 0.6 * (high - low), rel=1e-3)
    assert low <= result["latency_ms"]["this-machine"]
    assert (
        0 < result["measured_latency_ms"]["this-machine"] <= budget
    )  # the measured network counts, not the prediction
    trained = shipped_supernet("cifar-mbv3") is not None
    assert result["weights"] == ("trained" if trained else "untrained")
    assert (result["predicted_accuracy"] is not None) == (shipped_predictor("cifar-mbv3") is not None)
    import onnxruntime

    session = onnxruntime.InferenceSession(result["files"]["onnx"], providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["weights"] == result["weights"]


@pytest.mark.slow
def test_it_shows_the_commands_and_sums_up(runs: tuple[Path, list[tuple[int, str]]]) -> None:
    output = runs[1][1][1]
    commands = [line.split()[1].rsplit("/", 1)[-1] for line in output.splitlines() if line.startswith("$ ")]
    assert commands == ["ofa-profile", "ofa-search"]
    for words in ("error of the table", "budget", "measured latency", "predicted accuracy", "weights"):
        assert words in output


@pytest.mark.slow
def test_a_second_time_nothing_is_measured_again_but_the_network(runs: tuple[Path, list[tuple[int, str]]]) -> None:
    code, output = runs[1][2]
    assert code == 0, output
    assert "the table is up to date" in output


def test_the_code_of_a_command_that_fails_is_its_own(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "file").touch()
    code, output = finish(start(tmp_path / "file" / "out", environment))
    assert code == 2, output
    assert "the quickstart stops here (exit code 2)" in output
    assert "Traceback" not in output


def load_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("measured_ms", "words"), [(1.25, "over the budget by 25.0%"), (0.9, "within the budget")])
def test_over_budget_is_said_and_explained(
    measured_ms: float, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = {"subnets": 30, "mape": 0.2, "within_3pct": 0.1, "spearman": 0.99, "ratio": 0.8}
    about = {"device": {"model": "a board"}, "runtime": "onnxruntime", "runtime_version": "1.0"}
    about |= {"precision": "fp32", "threads": 1, "validation": checked}
    rows = tuple(
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[0.1] * 3) for op in get_space("cifar-mbv3").unique_ops()
    )
    result = {
        "architecture": get_space("cifar-mbv3").sample(np.random.default_rng(0)).to_json(),
        "latency_ms": {"this-machine": 0.99},
        "budget_ms": {"this-machine": 1.0},
        "measured_latency_ms": {"this-machine": measured_ms},
        "macs": 3e7,
        "params": 9e5,
        "predicted_accuracy": None,
        "weights": "untrained",
        "files": {kind: str(tmp_path / f"network.{kind}") for kind in ("onnx", "tflite")},
    }
    for kind in result["files"]:
        (tmp_path / f"network.{kind}").touch()
    load_program().sum_up(tmp_path, LatencyTable("this-machine", rows, about), (0.2, 1.5), result)
    output = " ".join(capsys.readouterr().out.split())
    assert words in output
    assert "network.onnx the network for onnxruntime" in output
    assert "network.tflite the same network for LiteRT" in output
    assert ("A budget of 0.8 ms by the table means about 1 ms on the device" in output) == (measured_ms > 1)
