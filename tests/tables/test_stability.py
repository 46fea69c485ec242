"""The verdict on noise: one measure, computed once, and the same in every command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler import LatencyTable, get_space, profile
from ofa_profiler.cli.profile import main as profile_main
from ofa_profiler.devices import FakeDevice
from ofa_profiler.tables.doubts import noise_doubts
from ofa_profiler.tables.row import Row
from ofa_profiler.tables.stability import Stability, compute_stability, stability
from ofa_search.cli.search import main as search_main

OPS = get_space("cifar-mbv3").with_resolutions([24]).unique_ops()


def rows(*widths: float | None) -> tuple[Row, ...]:
    made = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[1.0, 1.5]) for op in OPS[: len(widths)]]
    cells = ["" if width is None else f"{width:.4g}" for width in widths]
    return tuple(replace(row, extra={"half_width": cell}) for row, cell in zip(made, cells, strict=True))


@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=len(OPS)), st.integers(0, 100))
def test_noisy_ops_are_those_above_the_limit(widths: list[float | None], cut_short: int) -> None:
    found = compute_stability(rows(*widths), {"sampling": {"target_half_width": 0.02, "cut_short": cut_short}})
    assert found is not None
    noisy = sum(width is None or float(f"{width:.4g}") > 0.02 for width in widths)
    assert (found.ops, found.noisy, found.cut_short) == (len(widths), noisy, min(noisy, cut_short))
    assert found.is_noisy == (noisy > 0.05 * len(widths))
    assert stability((), {"stability": json.loads(json.dumps(found.to_json()))}) == found
    assert f"{noisy} of {len(widths)} ops are noisy" in str(found)


def test_tables_without_half_widths_have_their_spread() -> None:
    steady = Row.from_op(OPS[0], batch=1, precision="fp32", samples_ms=[1.0, 1.1])
    noisy = Row.from_op(OPS[1], batch=1, precision="fp32", samples_ms=[1.0, 1.0, 9.0])
    found = compute_stability([steady, noisy, Row.failed(OPS[2], batch=1, precision="fp32", error="no")], {})
    assert found is not None
    assert (found.measure, found.ops, found.noisy, found.worst_op) == ("relative_std", 2, 1, OPS[1].key)
    unknown = replace(steady, std_ms=None)
    assert compute_stability([unknown], {}) is None
    assert LatencyTable("t", (unknown,)).doubts == ()


@pytest.mark.parametrize("value", [{}, {"verdict": "steady"}, {"verdict": 3, "measure": []}])
def test_a_verdict_that_cannot_be_read_is_none(value: dict[str, object]) -> None:
    assert stability(rows(0.5), {"stability": value}) is None
    assert stability(rows(0.5), {"stability": None}) is not None


def test_both_commands_say_the_same_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = profile(FakeDevice(noise=0.2), "cifar-mbv3", tmp_path, resolutions=[24], name="t").path
    kept = json.loads(path.with_suffix(".json").read_text())["stability"]
    table = LatencyTable.load(path)
    assert table.stability is not None
    assert table.stability.to_json() == kept
    assert kept["noisy"] == json.loads(path.with_suffix(".json").read_text())["sampling"]["noisy"] > 10
    assert profile_main(["--import", str(tmp_path / "t.jsonl"), "--out", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["stability"] == kept
    (said,) = [line for line in captured.err.splitlines() if "nois" in line]
    search = ["--lut", str(path), "--budget", "1s", "--no-export"]
    assert search_main(search) == 0
    (again,) = [line for line in capsys.readouterr().err.splitlines() if "nois" in line]
    assert said == f"{again}; {table.stability.remedy}"
    assert len(again) < 110


def test_a_steady_table_is_no_topic_of_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = profile(FakeDevice(), "cifar-mbv3", tmp_path, resolutions=[24], name="t").path
    assert json.loads(path.with_suffix(".json").read_text())["stability"]["verdict"] == "steady"
    assert search_main(["--lut", str(path), "--budget", "1s", "--no-export"]) == 0
    assert "nois" not in capsys.readouterr().err


def test_fields_of_later_versions_are_ignored() -> None:
    found = Stability("steady", "half_width", 0.02, 4, 0, 0, None, None)
    assert stability((), {"stability": {**found.to_json(), "drift": 0.1}}) == found


@pytest.mark.parametrize(
    ("device", "sampling", "reasons", "is_noisy"),
    [
        ({"governor": "performance"}, {"others_share": 0.01}, (), False),
        ({"governor": "schedutil"}, {}, ("governor schedutil",), False),
        ({"governor": "schedutil", "fixed_performance_mode": True}, {}, (), False),
        ({}, {"others_share": 0.06}, ("other programs took 6% of the core",), False),
        (
            {"governor": "ondemand"},
            {"others_share": 0.3},
            ("governor ondemand", "other programs took 30% of the core"),
            True,
        ),
        (None, {"others_share": "much"}, (), False),
    ],
)
def test_the_verdict_has_its_reasons(
    device: object, sampling: dict[str, object], reasons: tuple[str, ...], is_noisy: bool
) -> None:
    found = compute_stability(rows(0.01, 0.001), {"device": device, "sampling": sampling})
    assert found is not None
    assert (found.reasons, found.is_noisy) == (reasons, is_noisy)
    assert str(found).endswith("; ".join(("more than 2%)", *reasons)))
    kept = json.loads(json.dumps({"stability": found.to_json()}))
    assert stability((), kept) == found
    del kept["stability"]["reasons"]  # as earlier versions wrote it
    assert stability((), kept) == replace(found, reasons=())
    doubts = list(noise_doubts(rows(0.01, 0.001), kept))
    assert len(doubts) == is_noisy
    assert all("close other programs" in str(doubt) for doubt in doubts)
