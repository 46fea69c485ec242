"""`ofa-search` as a command: its document, its files, its exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.tables.table import Row
from ofa_search.cli.search import main
from ofa_search.supernet.supernet import Supernet, save_supernet

CIFAR = get_space("cifar-mbv3")
AS_MEASURED = {"runtime": "onnxruntime", "precision": "fp32", "provider": None, "threads": 1, "batch": 1}


def save_table(path: Path, *, factor: float = 1.0, failing: str = "", **metadata: Any) -> Path:
    """A table of `cifar-mbv3`; an op whose key contains `failing` failed."""
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[factor * (op.macs / 1e6 + 0.05)] * 3)
            for op in CIFAR.unique_ops()]  # fmt: skip
    if failing:
        broken = {op.key: Row.failed(op, batch=1, precision="fp32", error="crashed") for op in CIFAR.unique_ops()}
        rows = [broken[row.op] if failing in row.op else row for row in rows]
    LatencyTable(path.stem, tuple(rows), {"spaces": ["cifar-mbv3"], **metadata}, path).save(path)
    return path


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_table(tmp_path_factory.mktemp("tables") / "board.csv", **AS_MEASURED))


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def complaint(self) -> str:
        """The one line, of all that is neither a warning nor the progress of a machine that takes its time."""
        lines = [line for line in self.err.splitlines() if not re.match(r"warning: |\w+: \d+ of \d+", line)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("ofa-search: ")
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ofa_search.artifacts.shipped.FOLDER", tmp_path / "nothing ships")

    def run(*arguments: str) -> Done:
        code = main(arguments)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def in_a_process(*arguments: str, cwd: Path) -> Done:
    command = [sys.executable, "-m", "ofa_search.cli.search", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)
    return Done(done.returncode, done.stdout, done.stderr)


# --- the document --------------------------------------------------------------------------------------


def test_the_document(run: Any, board: str) -> None:
    done = run("--lut", board, "--budget", "8ms", "--predictor", "macs", "--no-export", "--json", "--seed", "4")
    assert done.code == 0
    document = done.document
    assert list(document) == ["space", "engine", "seed", "evaluations", "search_seconds", "results"]
    assert (document["space"], document["engine"], document["seed"]) == ("cifar-mbv3", "evolutionary", 4)
    assert document["evaluations"] > 0
    assert 0 < document["search_seconds"] < 60
    (result,) = document["results"]
    assert list(result) == [
        "architecture", "predicted_accuracy", "latency_ms", "budget_ms", "macs", "params", "weights", "accuracy",
        "preprocessing", "labels", "forms", "files", "latency_interval_ms", "measured_latency_ms",
        "precision", "ranges", "size_bytes", "peak_memory_bytes", "precisions",
        "score", "gap", "bound", "is_optimal", "changes",
    ]  # fmt: skip
    architecture = Architecture.from_json(result["architecture"])
    assert result["predicted_accuracy"] is None
    assert result["latency_ms"] == {"board": pytest.approx(LatencyTable.load(board).predict_ms([architecture])[0])}
    assert result["budget_ms"] == {"board": 8.0}
    assert result["latency_ms"]["board"] <= 8.0
    assert (result["macs"], result["params"]) == (CIFAR.macs(architecture), CIFAR.params(architecture))
    assert result["weights"] == "untrained"
    assert result["preprocessing"] == {
        "crop": "centred square",
        "resize": "bilinear, antialiased",
        "mean": list(CIFAR.preprocessing.mean),
        "std": list(CIFAR.preprocessing.std),
        "resolution": architecture.resolution,
        "channels": "RGB",
        "range": [0.0, 1.0],
    }
    assert result["labels"] is None
    assert result["accuracy"] == {"predicted": None, "predictor": None, "supernet": None}
    assert result["files"] == {}
    assert result["latency_interval_ms"] == {"board": None}
    assert result["measured_latency_ms"] is None
    assert list(Path.cwd().iterdir()) == [], "--no-export wrote something"


def test_evaluations_are_limited(run: Any, board: str) -> None:
    done = run("--lut", board, "--budget", "8ms", "--predictor", "macs", "--no-export", "--json", "--evaluations", "50")
    assert done.code == 0
    assert done.document["evaluations"] == 50
    assert run("--lut", board, "--budget", "8ms", "--predictor", "macs", "--evaluations", "0").code == 2


def repeatable(document: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the time that something took."""
    timed = {"gap": 0, "bound": 0, "is_optimal": False}
    return {**document, "search_seconds": 0, "results": [{**result, **timed} for result in document["results"]]}


def test_the_same_command_gives_the_same_document_in_another_process(run: Any, board: str, tmp_path: Path) -> None:
    arguments = ("--lut", board, "--budget", "7.5ms", "--predictor", "macs", "--no-export", "--json")
    here, *there = (in_a_process(*arguments, cwd=tmp_path).document for _ in range(2))
    assert [repeatable(document) for document in there] == [repeatable(here)]
    assert run(*arguments).document["results"][0]["architecture"] == here["results"][0]["architecture"]


def test_published_table_and_predictor(run: Any, shared_dir: Path) -> None:
    data = shared_dir / "data" / "ofa"
    arguments = ["--lut", f"{data / 'note10'}/", "--predictor", str(data / "acc_predictor.pth"), "--budget", "25ms"]
    done = run(*arguments, "--space", "ofa-mbv3-w1.2", "--no-export", "--json")
    (result,) = done.document["results"]
    assert result["predicted_accuracy"] >= 0.8195
    assert result["budget_ms"] == {"note10": 25.0}
    inferred = run(*arguments, "--no-export", "--json").document
    assert inferred["results"] == [result]


def test_a_table_that_knows_no_forms_gives_plain_models_and_says_so(run: Any, tmp_path: Path, board: str) -> None:
    """As the published ones: they do not name a runtime."""
    published = str(save_table(tmp_path / "published.csv"))
    words = ["--budget", "9ms", "--predictor", "macs", "--out", str(tmp_path / "out")]
    done = run("--lut", published, *words)
    assert done.code == 0
    assert "note: table published does not say which forms are fast on its device, so the models are plain" in done.err
    (result,) = json.loads((tmp_path / "out" / "search.json").read_text())["results"]
    assert result["forms"] == {}
    assert "the models are plain" not in run("--lut", published, *words, "--no-export").err
    assert "the models are plain" not in run("--lut", board, *words).err


def test_a_predictor_of_another_space_is_said_to_be_one(run: Any, tmp_path: Path) -> None:
    space = get_space("ofa-mbv3-w1.0")
    rows = [
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e7 + 0.1]) for op in space.unique_ops([160])
    ]
    LatencyTable("narrow", tuple(rows), {"spaces": [space.name]}).save(tmp_path / "narrow.csv")
    path = predictor_file(tmp_path / "p.pth")
    done = run("--lut", "narrow.csv", "--budget", "1s", "--predictor", str(path), "--no-export", "--json")
    assert done.code == 0
    assert "was trained on ofa-mbv3-w1.2" in done.err


def predictor_file(path: Path, *sizes: int) -> Path:
    first, last = sizes or (128, 1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(first, 8), torch.nn.ReLU(), torch.nn.Linear(8, last))
    torch.save(model.state_dict(), path)
    return path


# --- files ---------------------------------------------------------------------------------------------


def test_the_winner_is_exported(run: Any, board: str) -> None:
    done = run("--lut", board, "--budget", "8ms", "--predictor", "macs", "--out", "found", "--json")
    (result,) = done.document["results"]
    suffixes = {"architecture": "json", "onnx": "onnx", "tflite": "tflite"}
    assert result["files"] == {kind: f"found/cifar-mbv3-8ms.{suffix}" for kind, suffix in suffixes.items()}
    assert sorted(p.name for p in Path("found").iterdir()) == [
        "cifar-mbv3-8ms.json", "cifar-mbv3-8ms.onnx", "cifar-mbv3-8ms.tflite", "search.html",
        "search.json",
    ]  # fmt: skip
    assert json.loads(Path("found/search.json").read_text()) == done.document
    architecture = json.loads(Path(result["files"]["architecture"]).read_text())
    assert architecture == result["architecture"]
    model = onnx.load(result["files"]["onnx"])
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["weights"] == "untrained"
    assert json.loads(about["architecture"]) == architecture
    assert json.loads(about["preprocessing"]) == result["preprocessing"]
    session = onnxruntime.InferenceSession(result["files"]["onnx"])
    side = architecture["resolution"]
    image = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    (logits,) = session.run(None, {"input": image})
    assert logits.shape == (1, 10)
    interpreter = Interpreter(result["files"]["tflite"])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.transpose(0, 2, 3, 1).copy())
    interpreter.invoke()
    same = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(same, logits, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_a_supernet_gives_its_weights(run: Any, board: str, tmp_path: Path) -> None:
    """The exported model computes what the subnet cut out of the supernet does, and is called trained."""
    torch.manual_seed(0)
    supernet = Supernet(CIFAR).eval()
    path = save_supernet(supernet, tmp_path / "net.safetensors")
    arguments = ("--lut", board, "--budget", "8ms", "--predictor", "macs", "--supernet", str(path), "--json")
    (result,) = run(*arguments).document["results"]
    assert result["weights"] == "trained"
    images = np.random.default_rng(0).normal(size=(1, 3, *[result["preprocessing"]["resolution"]] * 2))
    (logits,) = onnxruntime.InferenceSession(result["files"]["onnx"]).run(None, {"input": images.astype(np.float32)})
    with torch.no_grad():
        expected = supernet.extract(Architecture.from_json(result["architecture"]))(torch.tensor(images).float())
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_same_seed_same_model(run: Any, board: str) -> None:
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run("--lut", board, "--budget", "8ms", "--predictor", "macs", "--out", out, "--seed", seed).code == 0
    for kind in ("onnx", "tflite"):
        first, again, other = (Path(out, f"cifar-mbv3-8ms.{kind}").read_bytes() for out in "abc")
        assert first == again
        assert first != other


def test_pareto(run: Any, board: str) -> None:
    done = run("--lut", board, "--pareto", "6ms:18ms:4", "--predictor", "macs", "--out", "found", "--json")
    results = done.document["results"]
    assert [r["budget_ms"]["board"] for r in results] == [6.0, 10.0, 14.0, 18.0]
    macs = [r["macs"] for r in results]
    assert macs == sorted(macs)
    assert len(set(macs)) == 4
    for result in results:
        assert result["latency_ms"]["board"] <= result["budget_ms"]["board"]
        assert all(Path(path).exists() for path in result["files"].values())
    assert len({r["files"]["onnx"] for r in results}) == 4


def test_a_front_lists_each_network_once(run: Any, board: str) -> None:
    """The slowest network takes less than the last two budgets."""
    slowest = LatencyTable.load(board).cost(CIFAR).maximum()[0]
    budgets = f"{slowest / 2:.4f}ms:{2.5 * slowest:.4f}ms:5"
    done = run("--lut", board, "--pareto", budgets, "--predictor", "macs", "--out", "found", "--json")
    results = done.document["results"]
    assert len(results) == len({json.dumps(result["architecture"]) for result in results}) == 2
    assert [result["budget_ms"]["board"] for result in results] == pytest.approx([slowest / 2, slowest], abs=0.01)
    assert len(list(Path("found").glob("*.onnx"))) == 2
    assert done.err.count("note: 3 of 5 budgets give the network of a lower budget, which is listed once") == 1
    assert done.err.count(f"note: the slowest network takes {slowest:.4g} ms on board; budgets from ") == 1


def test_a_budget_that_excludes_nothing_is_said(run: Any, board: str) -> None:
    done = run("--lut", board, "--budget", "10m", "--predictor", "macs", "--no-export")
    assert "budgets from 600000ms on exclude none" in done.err
    done = run("--lut", board, "--budget", "9ms", "--predictor", "macs", "--no-export")
    assert "exclude none" not in done.err


def test_several_tables_and_counts(run: Any, board: str, tmp_path: Path) -> None:
    slow = save_table(tmp_path / "slow.csv", factor=3)
    done = run(
        "--lut", board, "--budget", "9ms", "--lut", str(slow), "--budget", "24ms", "--max-macs", "5.5M",
        "--max-params", "600K", "--predictor", "macs", "--no-export", "--json",
    )  # fmt: skip
    (result,) = done.document["results"]
    assert result["budget_ms"] == {"board": 9.0, "slow": 24.0}
    assert result["latency_ms"]["slow"] == pytest.approx(3 * result["latency_ms"]["board"])
    assert result["latency_ms"]["slow"] <= 24.0
    assert result["macs"] <= 5.5e6
    assert result["params"] <= 600e3


def test_words_for_people(run: Any, board: str) -> None:
    done = run("--lut", board, "--budget", "8ms", "--predictor", "macs")
    assert done.code == 0
    assert "highest MACs" in done.out
    assert "MACs were maximised instead of accuracy" in done.err
    assert "not trained" in done.err
    assert Path("out/search/search.json").exists()


def test_failed_ops_are_left_out_with_a_warning(run: Any, tmp_path: Path) -> None:
    table = save_table(tmp_path / "t.csv", failing="kernel:7")
    done = run("--lut", str(table), "--budget", "1s", "--predictor", "macs", "--no-export", "--json")
    assert done.code == 0
    assert "failed and will not be used" in done.err
    stages = done.document["results"][0]["architecture"]["stages"]
    assert 7 not in {k for stage in stages for k in stage["kernel_sizes"]}


# --- measured again ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("without_drift")
def test_verify_measures_the_winner(run: Any, tmp_path: Path) -> None:
    """Far from the budget, either way, so that the speed of the machine does not matter."""
    generous = save_table(tmp_path / "generous.csv", factor=1000, **AS_MEASURED)
    done = run("--lut", str(generous), "--budget", "8s", "--predictor", "macs", "--verify", "local", "--json")
    assert done.code == 0, done.err
    measured = done.document["results"][0]["measured_latency_ms"]
    assert list(measured) == ["generous"]
    assert 0 < measured["generous"] < 8000
    assert json.loads(Path("out/search/search.json").read_text()) == done.document


@pytest.mark.slow
@pytest.mark.usefixtures("without_drift")
def test_over_the_budget_when_measured(run: Any, tmp_path: Path) -> None:
    hopeless = save_table(tmp_path / "hopeless.csv", factor=1e-5, **AS_MEASURED)
    arguments = ("--lut", str(hopeless), "--budget", "0.1us", "--predictor", "macs", "--verify", "local", "--no-export")
    done = run(*arguments, "--json")
    assert done.code == 5
    assert "over the budget" in done.complaint
    result = done.document["results"][0]
    assert result["measured_latency_ms"]["hopeless"] > result["budget_ms"]["hopeless"]


# --- mistakes ------------------------------------------------------------------------------------------

MACS = ("--predictor", "macs", "--no-export", "--json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--lut"),
        (("--lut", "{board}"), "--budget"),
        (("--budget", "20ms"), "--lut"),
        (("--lut", "{board}", "--budget", "20"), "has no unit"),
        (("--lut", "{board}", "--budget", "0ms"), "above zero"),
        (("--lut", "{board}", "--budget", "nan"), "not a positive number"),
        (("--lut", "{board}", "--budget", "nanms"), "not a positive number"),
        (("--lut", "{board}", "--budget", "-3ms"), "--budget '-3ms' is not a positive number"),
        (("--lut", "{board}", "--budget", "20ms", "--out", "{board}"), "is a file, not a folder"),
        (("--lut", "{board}", "--budget", "20ms", "--out", "{board}/found"), "is a file, not a folder"),
        (("--lut", "{board}", "--budget", "20MB"), "unknown unit"),
        (("--lut", "{board}", "--budget", "1e999ms"), "--budget"),
        (("--lut", "{board}", "--budget", "20ms", "--budget", "30ms"), "1 --lut but 2 --budget"),
        (("--lut", "{board}", "--lut", "{board}", "--budget", "20ms"), "2 --lut but 1 --budget"),
        (("--lut", "{board}", "--budget", "9ms", "--lut", "{board}", "--budget", "9ms"), "board.csv is given twice"),
        (("--lut", "none.csv", "--budget", "20ms"), "none.csv"),
        (("--lut", "empty.csv", "--budget", "20ms"), "empty.csv"),
        (("--lut", "noise.csv", "--budget", "20ms"), "noise.csv"),
        (("--lut", "{board}", "--budget", "20ms", "--space", "ofa-mbv3-w1.2"), "does not cover ofa-mbv3-w1.2"),
        (("--lut", "{board}", "--budget", "20ms", "--space", "resnet"), "unknown search space"),
        (("--lut", "{board}", "--budget", "20ms", "--engine", "magic"), "unknown engine"),
        (("--lut", "{board}", "--budget", "20ms", "--seed", "text"), "--seed"),
        (("--lut", "{board}", "--budget", "20ms", "--seed", "-1"), "--seed"),
        (("--lut", "{board}", "--budget", "20ms", "--max-macs", "300"), "has no unit"),
        (("--lut", "{board}", "--budget", "20ms", "--max-params", "many"), "--max-params"),
        (("--lut", "{board}", "--pareto", "15ms:40ms"), "LOW:HIGH:N"),
        (("--lut", "{board}", "--pareto", "15:40ms:3"), "has no unit"),
        (("--lut", "{board}", "--pareto", "40ms:15ms:3"), "below"),
        (("--lut", "{board}", "--pareto", "15ms:40ms:1"), "2 to 1000"),
        (("--lut", "{board}", "--pareto", "15ms:40ms:x"), "2 to 1000"),
        (("--lut", "{board}", "--budget", "20ms", "--supernet", "none.pth"), "none.pth"),
        (("--lut", "{board}", "--budget", "20ms", "--supernet", "noise.csv"), "noise.csv"),
        (("--lut", "{board}", "--budget", "20ms", "--verify", "toaster"), "unknown device"),
        (("--lut", "{board}", "--budget", "20ms", "--frobnicate"), "--frobnicate"),
        (("--lut", "{board}", "--budget", "20ms", "positional"), "positional"),
        (("--lut", "dead.csv", "--budget", "20ms"), "dead.csv"),
    ],
    ids=lambda value: " ".join(value).replace("{board}", "T") if isinstance(value, tuple) else "",
)
def test_bad_usage_is_one_line(run: Any, board: str, tmp_path: Path, arguments: Sequence[str], words: str) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "noise.csv").write_bytes(np.random.default_rng(0).bytes(3000))
    if "dead.csv" in arguments:
        save_table(tmp_path / "dead.csv", failing="Logits")
    done = run(*(a.format(board=board) for a in arguments), *MACS)
    assert done.code == 2
    assert words in done.complaint
    assert done.out == ""


@pytest.mark.parametrize("name", ["my_module:", "/folder/module.py:function"])
def test_a_function_that_is_not_named_by_its_module(run: Any, board: str, name: str) -> None:
    done = run("--lut", board, "--budget", "20ms", "--predictor", name)
    assert done.code == 2
    assert done.complaint.endswith("a function of yours is package.module:function")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "not a torch file"),
        (b"not a predictor", "not a torch file"),
        ("truncated", "damaged"),
        ("wrong size", "100 features"),
        ("wrong space", "cifar-mbv3"),
    ],
)
def test_bad_predictor_files(run: Any, board: str, tmp_path: Path, content: bytes | str | None, words: str) -> None:
    path = predictor_file(tmp_path / "p.pth", 100 if content == "wrong size" else 128, 1)
    if content is None:
        path.unlink()
    elif content == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    done = run("--lut", board, "--budget", "20ms", "--predictor", str(path), "--no-export", "--json")
    assert done.code == 2
    assert words in done.complaint


def test_without_a_predictor_the_choices_are_named(run: Any, board: str) -> None:
    done = run("--lut", board, "--budget", "20ms")
    assert done.code == 2
    assert "--predictor macs" in done.complaint
    assert "--predictor FILE" in done.complaint


def test_below_the_fastest(run: Any, board: str) -> None:
    cost = LatencyTable.load(board).cost(CIFAR)
    low, high = cost.minimum()[0], cost.maximum()[0]
    done = run("--lut", board, "--budget", "100us", *MACS)
    assert done.code == 3
    printed = [float(word.removesuffix("ms")) for word in done.complaint.split() if word.endswith("ms")][1:]
    assert printed == [pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3)]
    assert printed[0] >= low
    assert run("--lut", board, "--budget", f"{printed[0]}ms", *MACS).code == 0, "the range printed is attainable"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--budget", "20ms", "--max-macs", "1K"), "MACs"),
        (("--budget", "20ms", "--max-params", "1K"), "parameters"),
        (("--pareto", "1us:20ms:3"), "attainable"),
    ],
)
def test_other_limits_below_the_lowest(run: Any, board: str, arguments: Sequence[str], words: str) -> None:
    done = run("--lut", board, *arguments, *MACS)
    assert done.code == 3
    assert words in done.complaint


def test_a_verification_needs_a_table_that_says_how_it_was_measured(run: Any, tmp_path: Path) -> None:
    table = save_table(tmp_path / "silent.csv")
    done = run("--lut", str(table), "--budget", "20ms", "--verify", "local", *MACS)
    assert done.code == 2
    assert "silent" in done.complaint


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = in_a_process("--lut", "none.csv", "--budget", "20", cwd=tmp_path)
    assert done.code == 2
    assert "has no unit" in done.complaint
    assert in_a_process("--help", cwd=tmp_path).out.count("--") > 15


# --- nothing half-written ------------------------------------------------------------------------------


def test_an_out_that_cannot_be_written(run: Any, board: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    done = run("--lut", board, "--budget", "8ms", "--predictor", "macs", "--out", "file")
    assert done.code == 2
    assert "file" in done.complaint
    assert (tmp_path / "file").read_text() == "here already"


def test_a_full_disk(run: Any, board: str, tmp_path: Path) -> None:
    """An old result of the same name stays whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        (disk / "cifar-mbv3-8ms.json").write_text("old")
        done = run("--lut", board, "--budget", "8ms", "--predictor", "macs", "--out", str(disk))
        assert done.code == 2
        assert "No space left" in done.complaint
        assert {p.name: p.read_text() for p in disk.iterdir()} == {"cifar-mbv3-8ms.json": "old"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_reader_that_leaves_early(board: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ofa_search.cli.search", "--lut", board, "--budget", "8ms", *MACS]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=300, cwd=tmp_path)
    os.close(write)
    assert "Traceback" not in done.stderr
