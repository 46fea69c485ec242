"""The report of a table of a user's model: what it shows follows from the table, and fits a narrow screen."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.pages.page import Grid, Page, Section, page_html
from ofa_profiler.tables.row import Row
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.model_report import model_report, short_name
from ofa_profiler.verification.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Milliseconds, kind, MACs, bytes, and milliseconds in the runtime's profile.
BLOCKS = [
    (4.0, "Conv", 400_000_000, 1_000_000, 3.9),
    (1.0, "MaxPool", 0, 4_000_000, 0.4),
    (3.0, "Conv", 60_000_000, 30_000_000, 3.1),
    (2.0, "Gemm+Softmax", 1_000_000, 100_000, 2.0),
]
LONG = "/backbone/features/features.{}/a_very_long_name_of_a_residual_block/depthwise_convolution/Conv_{}"


def row(i: int, block: tuple[float, str, int, int, float]) -> Row:
    ms, kind, macs, n_bytes, runtime_ms = block
    tensors = (TensorSpec("x", "float32", (1, 24, 56, 56)),), (TensorSpec("y", "float32", (1, 48, 28, 28)),)
    op = Op(kind, *tensors, {"macs": macs, "bytes": n_bytes, "kernels": 1}, LONG.format(i, i))
    extra = {"place": str(i), "share": "0.1", "macs": str(macs), "bytes": str(n_bytes), "runtime_ms": str(runtime_ms)}
    samples = ms * np.array([0.9, 1.0, 1.1])
    return Row(**{**vars(Row.from_op(op, batch=1, precision="fp32", samples_ms=samples)), "extra": extra})


METADATA: dict[str, Any] = {
    "model": {"file": "nets/net.onnx", "sha256": "0123456789abcdef" * 4, "bytes": 5_300_000},
    "device": {"model": "A board"},
    "runtime": "onnxruntime",
    "runtime_version": "1.22.0",
    "precision": "fp32",
    "threads": 1,
    "date": "2026-01-01",
    "whole_ms": 9.8,
    "sum_ms": 10.0,
    "whole": {"median_ms": 9.8, "p10_ms": 9.7, "p90_ms": 10.1},
    "runtime_profile": {"sum_ms": 9.5, "named_ms": 9.405, "kernels": []},
    "what_if": [
        {"change": "hard-swish -> ReLU in head", "places": ["a", "b"], "saved_ms": 0.49, "noise_ms": 0.02},
        {"change": "depthwise kernel 7 -> 5 in body", "places": ["a"], "saved_ms": -0.1, "noise_ms": 0.02},
    ],
}


def table(**more: Any) -> LatencyTable:
    rows = tuple(row(i, block) for i, block in enumerate(BLOCKS, 1))
    return LatencyTable("net", rows, {**METADATA, **more})


def section(page: Page, title: str) -> Section:
    return next(section for section in page.sections if section.title == title)


def grid(page: Page, title: str) -> list[dict[str, str]]:
    found = section(page, title).figure
    assert isinstance(found, Grid)
    return [dict(zip(found.columns, line, strict=True)) for line in found.rows]


def test_the_headline() -> None:
    facts = model_report(table()).facts
    assert facts["model"] == "net.onnx, 5.3 MB, SHA-256 0123456789ab"
    assert facts["settings"] == "onnxruntime, 1.22.0, fp32, 1 thread"
    assert facts["whole network"] == "9.8 ms; 80% of the runs took 9.7 to 10.1 ms"
    assert facts["sum of the blocks"] == "10 ms, 102.0% of the whole network"
    assert facts["profile of the runtime"] == (
        "9.5 ms in its kernels, 96.9% of the whole network; 99.0% of that is in blocks of this table"
    )
    bare = model_report(table(runtime_profile=None, whole_ms=None, whole=None, sum_ms=None)).facts
    assert bare["profile of the runtime"] == "none"
    assert bare["whole network"] == "not measured"
    assert bare["sum of the blocks"].startswith("unknown")


def test_the_longest_blocks_and_their_limits() -> None:
    """The best of the table are 100 GMAC/s (first block) and 10 GB/s (third block)."""
    found = grid(model_report(table()), "The 4 longest blocks")
    assert [line["ms"] for line in found] == ["4", "3", "2", "1"]
    assert found[0]["limit"] == "compute (100% of the roof)"
    assert found[1]["limit"] == "memory (100% of the roof)"
    assert found[2]["limit"] == "neither (0% of the roof)"
    assert found[3]["limit"] == "memory (40% of the roof)"
    assert (found[0]["MACs"], found[0]["bytes"], found[0]["GMAC/s"]) == ("400M", "1 MB", "100")
    assert found[3]["GMAC/s"] == "none"
    assert found[0]["shapes"] == "1x24x56x56 to 1x48x28x28"
    assert found[0]["block"] == LONG.format(1, 1)
    peaks = {"gmacs_per_s": 200.0, "gbytes_per_s": 100.0}
    assert grid(model_report(table(peaks=peaks)), "The 4 longest blocks")[0]["limit"] == "compute (50% of the roof)"


def test_blocks_in_order_and_by_kind() -> None:
    page = model_report(table())
    bars = section(page, "Blocks in order of execution")
    drawn = {trace.name: trace for trace in bars.figure.data}  # type: ignore[union-attr]
    assert list(drawn["Conv"].x) == [4.0, 3.0]
    assert list(drawn["Conv"].y) == [0, 2]
    labels = bars.figure.layout.yaxis.ticktext  # type: ignore[union-attr]
    assert list(labels) == [f"{i} …se_convolution/Conv_{i}" for i in (1, 2, 3, 4)]
    (tree,) = section(page, "By kind").figure.data  # type: ignore[union-attr]
    assert sum(tree.values) == pytest.approx(10.0)
    assert list(tree.parents) == ["", "", "", "group 0", "group 2", "group 0", "group 1"]


def test_the_roofline_has_the_blocks_with_macs() -> None:
    found = section(model_report(table()), "Roofline")
    points = [trace for trace in found.figure.data if trace.mode == "markers"]  # type: ignore[union-attr]
    assert sum(len(trace.x) for trace in points) == 3
    assert found.says.startswith("Each point is a block. The roof is that of the best blocks: 100 GMAC/s")
    peaks = {"gmacs_per_s": 200.0, "gbytes_per_s": 100.0}
    assert "peaks of the device" in section(model_report(table(peaks=peaks)), "Roofline").says


def test_changes_and_disagreements() -> None:
    page = model_report(table())
    first, second = grid(page, "Changes that would save most")
    assert (first["saves"], first["of the network"], first["places"]) == ("0.49 ms", "5.0%", "2")
    assert second["saves"] == "-0.1 ms (no more than the noise)"
    beside = {**METADATA["what_if"][0], "before_ms": 4.9}
    (only,) = grid(model_report(table(what_if=[beside])), "Changes that would save most")
    assert only["of the network"] == "10.0%"
    found = grid(page, "Where the runtime's profile differs most")
    assert found[0]["difference (ms)"] == "+0.6"
    assert found[0]["kind"] == "MaxPool"
    without = [each.title for each in model_report(table(runtime_profile=None, what_if=None)).sections]
    assert without == ["The 4 longest blocks", "By kind", "Blocks in order of execution", "Roofline"]


def test_failed_blocks_are_counted() -> None:
    op = row(5, BLOCKS[0]).description
    failed = Row.failed(op, batch=1, precision="fp32", error="out of memory")
    page = model_report(LatencyTable("net", (*table().rows, failed), METADATA))
    assert page.facts["measured"] == "2026-01-01, 4 of 5 blocks"
    only = LatencyTable("net", (failed,), {**METADATA, "what_if": None})
    assert model_report(only).sections == []


@given(st.text(min_size=1, max_size=80), st.integers(8, 30))
def test_short_names_keep_the_end(name: str, width: int) -> None:
    short = short_name(name, width)
    first = name.partition(";")[0] or name
    assert len(short) <= max(width, 1)
    assert first.endswith(short.lstrip("…").lstrip("/"))
    assert short == first or short.startswith("…")


def test_short_names() -> None:
    assert short_name("/features/features.3/conv/Conv") == "…/features.3/conv/Conv"
    assert short_name("/a/b") == "/a/b"
    assert short_name("conv/Relu;conv/BiasAdd;bias") == "conv/Relu"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [500, pytest.param(1200, marks=pytest.mark.slow)])
def test_a_screen_shows_all_of_it(tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None
    narrow = 390 if width == 500 else width
    path, saved = tmp_path / "page.html", tmp_path / "net.csv"
    table().save(saved)
    assert write_report(LatencyTable.load(saved)) == tmp_path / "net.html"
    report = (tmp_path / "net.html").read_text(encoding="utf-8")
    assert "Where the time of net.onnx goes" in report
    path.write_text(framed(report, narrow), encoding="utf-8")
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    words += ["--virtual-time-budget=10000", f"--user-data-dir={tmp_path / 'user'}", "--enable-logging=stderr"]
    done = subprocess.run([*words, path.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'data-inner="(\d+)" data-needed="(\d+)" data-bars="(\d+)"', done.stdout)
    assert found is not None, done.stdout[-2000:]
    inner, needed, bars = map(int, found.groups())
    assert inner == narrow
    assert needed <= inner
    assert bars == 4


def framed(report: str, width: int) -> str:
    """The report in a frame of a width that windows of browsers do not have."""
    look = (
        "<script>setTimeout(() => parent.postMessage([innerWidth, document.documentElement.scrollWidth, "
        "document.querySelectorAll('.barlayer .point').length], '*'), 2000)</script></body>"
    )
    inner = report.replace("</body></html>", look).replace("&", "&amp;").replace('"', "&quot;")
    listen = "onmessage = e => { const d = document.body.dataset; [d.inner, d.needed, d.bars] = e.data; }"
    return (
        f'<!DOCTYPE html><html><body><script>{listen}</script><iframe width="{width}" height="800" '
        f'style="border: 0" srcdoc="{inner}"></iframe></body></html>'
    )


def test_the_page_is_one_file() -> None:
    text = re.sub(r"<script.*?</script>", "", page_html(model_report(table())), flags=re.DOTALL)
    assert not re.search(r"<(img|link|iframe)\b", text)
