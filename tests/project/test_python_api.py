"""What Python users get: the commands as functions, frames, and a page of documentation that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.paths import ROOT

import ofa_profiler
from ofa_profiler import LatencyTable, get_space, profile, verify
from ofa_profiler.devices import FakeDevice
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.tables.row import Row
from ofa_search import Macs, search

SHIPPED = ROOT / "latency_tables" / "epyc-cifar-mbv3.csv"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return profile(FakeDevice(), "cifar-mbv3", tmp_path_factory.mktemp("tables"), resolutions=[24], name="fake")


def test_profile_does_what_the_command_does(result):
    assert result.path.name == "fake.csv"
    assert {path.name for path in result.path.parent.iterdir()} == {"fake.csv", "fake.json", "fake.jsonl"}
    again = profile(FakeDevice(), get_space("cifar-mbv3"), result.path.parent, resolutions=[24], name="fake")
    assert again.was_complete
    assert again.table.to_frame().equals(result.table.to_frame())


def test_verify_stores_its_figures_in_the_table(result):
    found = verify(result.path, FakeDevice(), subnets=4)
    assert len(found.subnets) == 4
    assert repr(found).startswith("<Verification: networks 4 of 4; device fake device; MAPE ")
    assert "<th>Spearman</th>" in found._repr_html_()
    validation = LatencyTable.load(result.path).metadata["validation"]
    assert validation["mape"] == pytest.approx(found.mape)
    assert (validation["subnets"], "none; run ofa-verify" in repr(result.table)) == (4, True)


def test_an_unknown_device_or_space_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="unknown device"):
        profile("telnet:board", out=tmp_path)
    with pytest.raises(UsageError, match="unknown search space"):
        profile(FakeDevice(), "resnet18", tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- frames ------------------------------------------------------------------------------------------------


def test_a_frame_is_what_pandas_reads_and_becomes_the_table_again():
    table = LatencyTable.load(SHIPPED)
    frame = table.to_frame()
    pd.testing.assert_frame_equal(frame, pd.read_csv(SHIPPED))
    again = LatencyTable.from_frame(frame)
    assert (again.name, again.rows, again.metadata) == (table.name, table.rows, table.metadata)
    architecture = get_space("cifar-mbv3").sample(np.random.default_rng(0))
    assert again.predict_ms([architecture]) == table.predict_ms([architecture])
    fast = LatencyTable.from_frame(frame[frame.kind != "mbconv"])
    assert len(fast.rows) < len(table.rows)


def test_a_frame_with_gaps_is_a_table_too():
    spec = (TensorSpec("x", "float32", (4, 8)),)
    rows = [Row.from_op(get_space("cifar-mbv3").unique_ops()[0], batch=1, precision="fp32", samples_ms=[1.0])]
    rows += [Row.from_op(Op("lstm", spec, spec, {"stride": 3}, "a"), batch=1, precision="fp32", samples_ms=[2.5])]
    again = LatencyTable.from_frame(LatencyTable("t", tuple(rows)).to_frame())
    assert [row.to_op() for row in again.rows] == [row.to_op() for row in rows]


def test_a_wrong_frame_is_refused_with_its_row():
    frame = LatencyTable.load(SHIPPED).to_frame()
    frame.loc[3, "median_ms"] = -1.0
    with pytest.raises(InputFileError, match=r"epyc-cifar-mbv3, row 5: column median_ms: '-1.0' is not a time"):
        LatencyTable.from_frame(frame)


def test_a_table_shows_itself():
    table = LatencyTable.load(SHIPPED)
    assert repr(table).startswith("<LatencyTable epyc-cifar-mbv3: ops 273; spaces cifar-mbv3; device ")
    assert "MAPE" in repr(table)
    shown = table._repr_html_()
    assert "<th>ops</th><td>273</td>" in shown
    assert "<script" not in LatencyTable("<script>", table.rows)._repr_html_()


def test_a_search_result_shows_itself():
    best = search("cifar-mbv3", [(LatencyTable.load(SHIPPED), 1.0)], Macs(), engine="random")
    assert repr(best).startswith("<SearchResult: space cifar-mbv3 at ")
    assert "latency on epyc-cifar-mbv3" in best._repr_html_()
    assert "of 1 ms" in best._repr_html_()


def test_frames_without_pandas_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pip install 'ofa-profiler\[pandas\]'"):
        LatencyTable.load(SHIPPED).to_frame()


# --- documentation -----------------------------------------------------------------------------------------


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_about_python_runs(tmp_path: Path):
    """All of its blocks in one process, in order, in an empty folder."""
    blocks = python_blocks("python.md")
    assert len(blocks) >= 4
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


def test_everything_public_is_there():
    assert all(hasattr(ofa_profiler, name) for name in ofa_profiler.__all__)
