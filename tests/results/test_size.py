"""Size and memory of the files of a search, and `--max-size`."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from results.test_int8_search import save_table

from ofa_profiler import LatencyTable
from ofa_search.cli.search import main
from ofa_search.results import memory, size_limit
from ofa_search.searching.problem import SizeLimit

TABLE: dict[str, Any] = {"threads": 1, "batch": 1, "provider": None}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_table(tmp_path_factory.mktemp("tables") / "board.csv", "int8", "litert", **TABLE)


def searched(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    (result,) = json.loads(capfd.readouterr().out)["results"]
    found: dict[str, Any] = result
    return found


def test_the_document_and_the_report_have_sizes_and_memory(
    table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = searched(capfd, "--lut", table, "--budget", "9ms", "--out", str(tmp_path))
    sizes = {kind: Path(result["files"][kind]).stat().st_size for kind in ("onnx", "tflite")}
    assert result["size_bytes"] == sizes
    assert json.loads((tmp_path / "search.json").read_text())["results"][0]["size_bytes"] == sizes
    memory_bytes = result["peak_memory_bytes"]
    assert memory_bytes.keys() == sizes.keys()
    if sys.platform == "linux":
        # At least the weights are in memory. A network this small takes far less than its runtime.
        assert all(sizes[kind] / 2 < memory_bytes[kind] < 60e6 for kind in sizes)
    assert main(["--lut", table, "--budget", "9ms", "--out", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert "peak memory" in out
    assert re.search(rf"cifar-mbv3-9ms.tflite +{sizes['tflite'] / 1e3:.0f} KB", out)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is a number of Linux")
def test_a_larger_network_takes_more_memory(table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = searched(capfd, "--lut", table, "--budget", "8ms", "--out", str(tmp_path / "small"))
    large = searched(capfd, "--lut", table, "--budget", "30ms", "--out", str(tmp_path / "large"))
    for kind, size in small["size_bytes"].items():
        assert large["size_bytes"][kind] > size
        assert large["peak_memory_bytes"][kind] > small["peak_memory_bytes"][kind]


def test_memory_that_cannot_be_measured_is_null(
    table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "device_agents", type("nowhere", (), {"__path__": [str(tmp_path)]}))
    result = searched(capfd, "--lut", table, "--budget", "9ms", "--out", str(tmp_path))
    assert result["peak_memory_bytes"] == {"onnx": None, "tflite": None}


@pytest.mark.parametrize("limit", ["750KB", pytest.param("1.1MB", marks=pytest.mark.slow)])
def test_the_file_keeps_the_limit(table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], limit: str) -> None:
    result = searched(capfd, "--lut", table, "--budget", "30ms", "--max-size", limit, "--out", str(tmp_path))
    size, allowed = result["size_bytes"]["tflite"], {"750KB": 750_000, "1.1MB": 1_100_000}[limit]
    assert 0.97 * allowed < size <= allowed


def test_the_runtime_and_the_precision_of_the_table_count(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = save_table(tmp_path / "other.csv", "fp32", "onnxruntime", **TABLE)
    result = searched(capfd, "--lut", other, "--budget", "30ms", "--max-size", "3MB", "--out", str(tmp_path))
    assert 2_900_000 < result["size_bytes"]["onnx"] <= 3_000_000


@pytest.mark.slow
def test_a_limit_below_the_smallest_file_names_the_attainable_range(
    table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--lut", table, "--budget", "30ms", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--max-size", "500KB"]) == 3
    error = capfd.readouterr().err
    assert "meets 500KB as a .tflite file; attainable: 65" in error
    assert not (tmp_path / "out").exists()
    lowest = error.split("attainable: ")[1].split(" to ")[0]
    assert searched(capfd, *arguments, "--max-size", lowest)["size_bytes"]["tflite"] <= float(lowest[:-2]) * 1000


@pytest.mark.parametrize(
    ("size", "words"),
    [("2", "has no unit; use one of B, KB, MB, GB, like 2MB"), ("2mb", "unknown unit"), ("0MB", "must be above zero")],
)
def test_a_wrong_size_is_refused(table: str, capfd: pytest.CaptureFixture[str], size: str, words: str) -> None:
    assert main(["--lut", table, "--budget", "9ms", "--max-size", size]) == 2
    error = capfd.readouterr().err
    assert "--max-size" in error
    assert words in error


def test_a_table_without_a_runtime_cannot_limit_the_size(
    table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = LatencyTable.load(table)
    metadata = {key: value for key, value in loaded.metadata.items() if key not in ("runtime", "forms")}
    replace(loaded, metadata=metadata).save(tmp_path / "old.csv")
    arguments = ["--lut", str(tmp_path / "old.csv"), "--budget", "9ms", "--max-size", "1MB", "--no-export"]
    assert main(arguments) == 2
    assert "does not name its runtime" in capfd.readouterr().err


@pytest.mark.slow
def test_a_file_above_the_limit_is_not_written(
    table: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no prediction of the bytes should let happen."""
    right = size_limit.size_limit

    def too_low(*arguments: Any) -> SizeLimit:
        limit = right(*arguments)
        return replace(limit, cost=limit.cost.affine(0.9, 0.0))

    monkeypatch.setattr(size_limit, "size_limit", too_low)
    arguments = ["--lut", table, "--budget", "30ms", "--max-size", "1MB", "--out", str(tmp_path / "out")]
    assert main(arguments) == 5
    assert "above --max-size" in capfd.readouterr().err
    assert not list((tmp_path / "out").iterdir())
