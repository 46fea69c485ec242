"""Pages: what they contain, that nothing in the data can become code, and that a real browser draws every chart."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.errors import UsageError
from ofa_profiler.pages import charts, page
from ofa_profiler.pages.charts import Part, Points
from ofa_profiler.pages.page import Page, Section, page_html, write_page

HOSTILE = "</script><script>document.title='taken'</script><img src=http://127.0.0.1:9/x>&\"'"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=10000"]
QUIET += ["--enable-logging=stderr"]


def points(name: str = "a", count: int = 20) -> Points:
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 10, count)
    return Points(name, list(x), list(x * rng.uniform(0.9, 1.1, count)), [f"label {i}" for i in range(count)])


PARTS = [Part(f"{HOSTILE} {i}", 1.0 + i, f"kind {i % 12}", HOSTILE) for i in range(15)]
ALL_CHARTS = {
    "scatter": lambda: charts.scatter([points(), points(HOSTILE)], "x", "y"),
    "scatter, some marked": lambda: charts.scatter([points()], "x", "y", marked=points(HOSTILE, 3)),
    "scatter, logarithmic": lambda: charts.scatter([points()], "x", "y", log_x=True, log_y=True),
    "agreement": lambda: charts.agreement([points()], "x", "y", band=0.05),
    "boxes": lambda: charts.boxes({"160": [1.0, 2.0, 3.0], HOSTILE: [2.0, 2.5]}, "x", "y"),
    "roofline": lambda: charts.roofline([points()], 8.0, {"roof": 2.0, "memory": 1.0}, "x", "y"),
    "over time": lambda: charts.over_time(points(), "x", "y"),
    "bars": lambda: charts.bars(PARTS, "ms"),
    "treemap": lambda: charts.treemap(PARTS),
    # The counterpart: without marks there is nothing to find.
    "nothing": lambda: charts.scatter([Points("a", [float("nan")] * 3, [1.0] * 3, ["x"] * 3)], "x", "y"),
}


#: What the browser must have drawn: points, boxes, lines (each in the chart and in its legend).
MARKS = {
    "scatter": (40, 0, 0),
    "scatter, some marked": (23, 0, 0),
    "scatter, logarithmic": (20, 0, 0),
    "agreement": (20, 0, 6),
    "boxes": (5, 2, 0),
    "roofline": (20, 0, 4),
    "over time": (20, 0, 0),
    "bars": (15, 0, 0),
    "treemap": (0, 0, 0),
    "nothing": (0, 0, 0),
}


def page_of(title: str = "All charts") -> Page:
    return Page(title, {"device": HOSTILE}, [Section(name, HOSTILE, draw()) for name, draw in ALL_CHARTS.items()])


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_every_chart_without_an_error_or_a_request(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    path, log = tmp_path / "page.html", tmp_path / "net.json"
    write_page(page_of(), path)
    words = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'user'}", f"--log-net-log={log}", "--dump-dom"]
    done = subprocess.run([*words, path.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    requested = re.findall(r'"url":"(https?:[^"]*)"', log.read_text(encoding="utf-8", errors="replace"))
    own = re.compile(r"https?://[^/]*\b(google|googleapis|gvt1|gstatic)\.com[:/]")  # the browser's, not the page's
    assert [url for url in requested if not own.match(url)] == []
    assert "<title>All charts</title>" in done.stdout
    drawn = re.split(r'<div class="chart[^"]*" id="chart\d+"', done.stdout)[1:]
    found = {
        name: tuple(len(re.findall(f'class="{mark}[ "]', chart)) for mark in ("point", "box", "js-line"))
        for name, chart in zip(ALL_CHARTS, drawn, strict=True)
    }
    assert found == MARKS


@pytest.mark.slow
@given(st.text(), st.text())
def test_texts_stay_texts(name: str, text: str) -> None:
    section = page._section("chart0", Section(name, text, charts.scatter([Points(text, [1], [2], [name])], name, text)))
    assert section.count("<script") == section.count("</script>") == 1
    assert section.count("<div") == 1
    data = re.search(r"<script[^>]*>(.*)</script>", section, re.DOTALL)
    assert data is not None
    json.loads(data[1])


def test_a_page_needs_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "can_write_pages", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'ofa-profiler\[report\]'"):
        write_page(page_of(), tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_a_page_contains_all_it_needs() -> None:
    text = page_html(page_of(HOSTILE))
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"<(img|link|iframe|script)\b", outside)
    assert "default-src 'none'" in text
