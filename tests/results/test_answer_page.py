"""The page of `ofa-search`: a browser shows all of it on a phone and on a desk, with the figures of the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.screens import CHROMIUM, Seen, look
from support.small_spaces import random_predictor

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.base.units import format_count
from ofa_profiler.networks.op import Op
from ofa_profiler.pages import page
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.row import Row
from ofa_search.cli.search import main

CIFAR = get_space("cifar-mbv3")
MIXED = MixedSpace.of(CIFAR)
WIDTHS = (390, 1200)
QUICK = ("--no-export", "--evaluations", "300", "--json")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def save_table(path: Path, factor: float = 1.0, precision: str = "fp32") -> str:
    def row(op: Op, ms: float) -> Row:
        return Row.from_op(op, batch=1, precision=precision, samples_ms=[ms] * 3)

    rows = [row(op, factor * (op.macs / 1e6 + 0.05)) for op in CIFAR.unique_ops()]
    if precision == "int8":
        rows += [row(op, 0.01) for op in MIXED.boundary_ops]
    about = {"runtime": "onnxruntime", "precision": precision, "provider": None, "threads": 1, "batch": 1}
    LatencyTable(path.stem, tuple(rows), {"spaces": ["cifar-mbv3"], **about}, path).save(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and predictors."""
    folder = tmp_path_factory.mktemp("answer")
    save_table(folder / "board.csv")
    save_table(folder / "another-board-with-a-long-name.csv", 1.3)
    save_table(folder / "int8.csv", 0.7, "int8")
    random_predictor(CIFAR, 0).save(folder / "predictor.safetensors")
    random_predictor(MIXED, 0).save(folder / "mixed.safetensors")
    return folder


def searched(folder: Path, out: Path, capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    words = [str(folder / word) if word.endswith((".csv", ".safetensors")) else word for word in arguments]
    assert main([*words, *QUICK, "--out", str(out)]) == 0
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert document == json.loads((out / "search.json").read_text(encoding="utf-8"))
    return document


def assert_readable(seen: Seen, width: int) -> None:
    assert seen.inner == width
    assert seen.needed <= width, "it scrolls sideways"
    assert seen.cut == []
    assert seen.crossing == []
    assert all(seen.drawn), "a chart is empty"


ONE = ("--lut", "board.csv", "--budget", "12ms", "--predictor", "predictor.safetensors", "--explain")


@needs_chromium
def test_a_person_reads_the_answer_on_a_phone_and_on_a_desk(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (result,) = searched(folder, tmp_path, capfd, *ONE)["results"]
    for width, seen in zip(
        WIDTHS, look([(tmp_path / "search.html", width) for width in WIDTHS], tmp_path), strict=True
    ):
        assert_readable(seen, width)
        words = " ".join(seen.text.split())
        assert f"{result['predicted_accuracy']:.2%} predicted" in words
        assert f"{result['latency_ms']['board']:.4g} ms predicted of 12 ms" in words
        assert format_count(result["macs"]) in words
        assert format_count(result["params"]) in words
        for size in ("smallest", "middle", "largest"):
            assert size in seen.labels
            assert size in words
        assert f"All {len(result['changes'])} changes" in words
        for change in result["changes"]:
            assert change["choice"] in words
            assert f"{100 * change['accuracy_change']:+.3f} points" in words
            assert f"{change['latency_change_ms']['board']:+.3g} ms" in words
        assert_drawn(result["architecture"], seen)


def assert_drawn(architecture: dict[str, Any], seen: Seen) -> None:
    """The drawing says the stages, kernels, expansions and the resolution, in their order."""
    pixels, stages = architecture["resolution"], architecture["stages"]
    assert f"image of {pixels}x{pixels} pixels" in seen.labels
    start = seen.labels.index("stage0")
    assert start < seen.labels.index("10 classes")
    blocks = [
        f"{kernel}x{kernel}, expand\u00a0{ratio}"
        for stage in stages
        for kernel, ratio in zip(stage["kernel_sizes"], stage["expand_ratios"], strict=True)
    ]
    drawn = [label for label in seen.labels if "expand\u00a0" in label and "," in label]
    assert [label[: len(block)] for label, block in zip(drawn, blocks, strict=True)] == blocks
    assert [label for label in seen.labels if label.startswith("stage") and "_" not in label] == [
        f"stage{number}" for number in range(len(stages))
    ]


SEVERAL = {
    "mixed precision": (
        *("--lut", "board.csv", "--lut", "int8.csv", "--precision", "mixed"),
        *("--budget", "10ms", "--predictor", "mixed.safetensors"),
    ),
    "two tables, MACs": (
        *("--lut", "board.csv", "--budget", "12ms", "--predictor", "macs", "--max-params", "1M"),
        *("--lut", "another-board-with-a-long-name.csv", "--budget", "13ms"),
    ),
    "a front": ("--lut", "board.csv", "--pareto", "8ms:16ms:3", "--predictor", "predictor.safetensors"),
}


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("what", SEVERAL)
def test_all_kinds_of_answers_are_readable(
    what: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    document = searched(folder, tmp_path, capfd, *SEVERAL[what])
    for width, seen in zip(
        WIDTHS, look([(tmp_path / "search.html", width) for width in WIDTHS], tmp_path), strict=True
    ):
        assert_readable(seen, width)
        for result in document["results"]:
            assert all(
                f"{ms:.4g} ms predicted of" in " ".join(seen.text.split()) for ms in result["latency_ms"].values()
            )


OWN = """
from ofa_profiler.spaces.language import *
wide = choice("width", [8, 16])
mix = choice("mix", [conv(wide, 3, activation="relu"), concat(conv(wide), conv(wide, 5)), None])
network = sequence(conv(wide, 3, 2), mix, repeat(lambda n: residual(conv(wide, choice("kernel", [1, 3]))), 2), linear())
SPACE = space(network, resolutions=[16, 24], classes=3)
"""


@needs_chromium
@pytest.mark.slow
def test_a_space_of_a_user(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "space_of_a_user.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    space = get_space("space_of_a_user:SPACE")
    rows = [
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.01] * 3) for op in space.unique_ops()
    ]
    LatencyTable("own", tuple(rows), {"spaces": [space.name]}, None).save(tmp_path / "own.csv")
    words = ("--space", space.name, "--lut", "own.csv", "--budget", "300us", "--predictor", "macs", "--explain")
    (result,) = searched(tmp_path, tmp_path / "out", capfd, *words)["results"]
    assert {change["choice"] for change in result["changes"]} >= {"resolution", "width", "mix"}
    for width, seen in zip(
        WIDTHS, look([(tmp_path / "out/search.html", width) for width in WIDTHS], tmp_path), strict=True
    ):
        assert_readable(seen, width)
        pixels = result["architecture"]["resolution"]
        assert f"image of {pixels}x{pixels} pixels" in seen.labels
        assert "3 classes" in seen.labels


def test_without_plotly_there_is_no_page(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "can_write_pages", lambda: False)
    document = searched(folder, tmp_path, capfd, *ONE)
    assert not (tmp_path / "search.html").exists()
    assert document["results"][0]["changes"]


def test_changes_are_those_of_the_table_and_the_predictor(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (result,) = searched(folder, tmp_path, capfd, *ONE)["results"]
    changes = result["changes"]
    gains = [change["score_change"] for change in changes]
    assert gains == sorted(gains, reverse=True)
    assert len({(change["choice"], change["to"]) for change in changes}) == len(changes)
    table = LatencyTable.load(folder / "board.csv")
    stages = result["architecture"]["stages"]
    for change in changes:
        stage, _, kind = change["choice"].partition(".block")
        if not kind.endswith("kernel_size"):
            continue
        block = int(kind.partition(".")[0])
        changed = json.loads(json.dumps(result["architecture"]))
        kernels = changed["stages"][int(stage.removeprefix("stage"))]["kernel_sizes"]
        assert kernels[block] == change["from"]
        kernels[block] = change["to"]
        ms = table.predict_ms([CIFAR.codec.decode(CIFAR.encode([from_json(changed)]))[0]])[0]
        assert change["latency_change_ms"]["board"] == pytest.approx(ms - result["latency_ms"]["board"], abs=1e-9)
        assert change["keeps_limits"] == (ms <= 12)
    assert sum(change["choice"].endswith("kernel_size") for change in changes) == 2 * sum(s["depth"] for s in stages)


def from_json(architecture: dict[str, Any]) -> Any:
    from ofa_profiler import Architecture

    return Architecture.from_json(architecture)


def test_the_text_of_explain(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / word) if word.endswith((".csv", ".safetensors")) else word for word in ONE]
    assert main([*words, "--no-export", "--evaluations", "300"]) == 0
    lines = capfd.readouterr().out.splitlines()
    title = next(i for i, line in enumerate(lines) if line.startswith("12 ms: every change of one choice"))
    rows = [line for line in lines[title + 3 :] if " → " in line]
    points = [float(row.split(" points")[0].split()[-1]) for row in rows]
    assert len(rows) > 30
    assert points == sorted(points, reverse=True)
    assert all(row.rstrip().endswith("kept") for row in rows)
    assert np.ptp(points) > 0
