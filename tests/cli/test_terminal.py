"""What the commands print fits 80 columns: no cell is cut, and a unit is never lost."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ofa_profiler import get_space
from ofa_profiler.base.progress import Progress
from ofa_profiler.cli.terminal import progress_bar
from ofa_search.results.report import results_table
from ofa_search.searching.objectives import Macs


def found(space: str, *tables: float) -> Any:
    names = [f"table{i}" for i in range(len(tables))]
    result = SimpleNamespace(
        architecture=get_space(space).largest,
        predicted_accuracy=0.8234,
        budget_ms=dict.fromkeys(names, 1234.5),
        latency_ms=dict(zip(names, tables, strict=True)),
        macs=583.4e6,
        params=12.34e6,
    )
    return SimpleNamespace(result=result, measured_latency_ms=dict(zip(names, tables, strict=True)), objective=Macs())


@pytest.mark.parametrize("space", ["cifar-mbv3", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50"])
@pytest.mark.parametrize("tables", [(0.4996,), (1234.5, 0.01234, 517.25)])
@pytest.mark.parametrize("width", [80, 120, 40])
def test_the_table_of_a_search_is_whole(space: str, tables: tuple[float, ...], width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(results_table([found(space, *tables)]))
    text = out.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    if width >= 80:
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
        for value in (*tables, 1234.5):
            assert f" {value:.4g} " in f" {' '.join(text.split())} "
        assert text.count(" ms ") + text.count("ms ") >= 3


def test_the_progress_of_a_measurement_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress_bar() as show:
        show(Progress("export", 273, 273))
        show(Progress("measure", 1015, 1281, 68.4, "100 of 273 finished"))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"measure .* 1015/1281 .* about 1.14 min left, 100 of 273 finished *[\r\n]", text)
