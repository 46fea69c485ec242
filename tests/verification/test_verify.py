"""`ofa-verify`: the statistics, the draw, and whole networks measured on this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.small_spaces import TINY, everything

from ofa_profiler import Architecture, get_space
from ofa_profiler.base.progress import Progress
from ofa_profiler.cli import verify as verify_cli
from ofa_profiler.devices import Agent, LocalDevice, open_device
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.records import Device
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.table import LatencyTable, Row
from ofa_profiler.verification import plot
from ofa_profiler.verification.agreement import mape, ranks, ratio, spearman, within
from ofa_profiler.verification.conditions import settings_of
from ofa_profiler.verification.doubts import other_conditions, verification_doubts
from ofa_profiler.verification.result import Subnet, Verification
from ofa_profiler.verification.verify import store_validation, verify

pytestmark = pytest.mark.usefixtures("without_drift")

SPACE = get_space("cifar-mbv3").with_resolutions([24])
MACS_PER_MS = 2e7
SETTINGS = {"runtime": "onnxruntime", "precision": "fp32", "provider": None, "threads": 1, "batch": 1}

milliseconds = st.floats(0.01, 1e4)
pairs = st.lists(st.tuples(milliseconds, milliseconds), min_size=3, max_size=40)
# Few distinct values, so that ties are common.
tied = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=40)


def test_errors_are_relative_to_what_was_measured() -> None:
    assert mape([11, 18], [10, 20]) == pytest.approx(0.1)
    assert within([10.5, 11, 9.4], [10, 10, 10], 0.05) == pytest.approx(1 / 3)
    assert within([110.0], [100.0], 0.10) == 1


def test_the_ratio_tells_the_direction() -> None:
    assert ratio([1, 8], [2, 4]) == pytest.approx(1)
    assert ratio([0.9, 1.8], [1, 2]) == pytest.approx(0.9)


def test_statistics_of_nothing_are_not_a_number() -> None:
    assert math.isnan(mape([], []))
    assert math.isnan(ratio([], []))
    assert math.isnan(within([], [], 0.1))


@given(pairs)
def test_errors_do_not_depend_on_the_unit(values: list[tuple[float, float]]) -> None:
    predicted, measured = np.array(values).T
    assert mape(predicted * 1000, measured * 1000) == pytest.approx(mape(predicted, measured))
    assert mape(measured, measured) == 0
    assert within(measured, measured, 0.05) == 1
    assert within(predicted, measured, 0.05) <= within(predicted, measured, 0.10)


@given(tied)
def test_ranks_and_spearman_equal_scipys(values: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = np.array(values).T
    assert ranks(first) == pytest.approx(stats.rankdata(first))
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


@given(pairs)
def test_spearman_sees_order_only(values: list[tuple[float, float]]) -> None:
    first, second = np.array(values).T
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    assert spearman(first, first) == pytest.approx(1)
    assert spearman(first, -first) == pytest.approx(-1)
    assert spearman(first, second) == pytest.approx(spearman(second, first))
    assert -1 <= spearman(first, second) <= 1


def test_spearman_of_a_constant_is_not_a_number() -> None:
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


# --- the draw --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar-mbv3", "ofa-mbv3-w1.2"])
def test_the_draw_spreads_from_the_fastest_to_the_slowest(name: str) -> None:
    space = get_space(name)
    cost = AdditiveCost.from_ops(space, lambda op: op.macs / MACS_PER_MS)
    architectures, costs = draw_spread(space, cost, 30, np.random.default_rng(0))
    lowest, highest = cost.minimum()[0], cost.maximum()[0]
    assert len(set(architectures)) == 30
    assert costs == pytest.approx(cost.evaluate(space.encode(architectures)))
    assert (np.diff(costs) >= 0).all()
    assert costs[0] < lowest + 0.06 * (highest - lowest)
    assert costs[-1] > highest - 0.06 * (highest - lowest)
    assert np.diff(costs).max() < 0.09 * (highest - lowest)  # bands of 1/30: neighbours are at most two bands apart


def test_the_draw_depends_on_the_seed_alone() -> None:
    cost = AdditiveCost.from_ops(SPACE, lambda op: op.macs / MACS_PER_MS)
    first, again, other = (draw_spread(SPACE, cost, 10, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_draw_leaves_out_what_cannot_be_predicted() -> None:
    cost = AdditiveCost.from_ops(
        SPACE, lambda op: math.inf if op.attributes["kernel_size"] == 7 else op.macs / MACS_PER_MS
    )
    architectures, costs = draw_spread(SPACE, cost, 20, np.random.default_rng(0))
    assert np.isfinite(costs).all()
    assert all(7 not in stage.kernel_sizes for a in architectures for stage in a.stages)
    nothing = AdditiveCost.from_ops(SPACE, lambda op: math.inf)
    with pytest.raises(UsageError, match="only 0 of its networks can be used, 20 are needed"):
        draw_spread(SPACE, nothing, 20, np.random.default_rng(0))


def test_of_a_small_space_all_networks_are_drawn_if_fewer_are_enough() -> None:
    cost = AdditiveCost.from_ops(TINY, lambda op: op.macs / MACS_PER_MS)
    whole, costs = draw_spread(TINY, cost, 10_000, np.random.default_rng(0), fewest=3)
    assert 0.95 * len(everything(TINY)) < len(set(whole)) == len(whole)  # some are in no pool
    assert (np.diff(costs) >= 0).all()
    with pytest.raises(UsageError, match=f"only {len(whole)} of its networks can be used, 10000 are needed"):
        draw_spread(TINY, cost, 10_000, np.random.default_rng(0))


# --- on this machine ---------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    """A table whose times are made up of MACs; the networks are measured."""
    rows = tuple(
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[(op.macs + 1000 + i) / MACS_PER_MS])
        for i, op in enumerate(SPACE.unique_ops())
    )
    path = tmp_path / "some $table_.csv"
    LatencyTable("", rows, {**SETTINGS, "spaces": [SPACE.name], "validation": None}).save(path)
    return LatencyTable.load(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = verify_cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command(table: LatencyTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table.path is not None
    before = table.path.read_bytes()
    code, out, err = run(
        capsys, "--lut", table.path, "--device", "local", "--subnets", 4, "--keep-models", tmp_path / "m", "--json"
    )
    assert code == 0, err
    document = json.loads(out)
    assert set(document) == {
        *("subnets", "mape", "within_3pct", "within_5pct", "within_10pct", "spearman", "bias", "noise", "coverage")
    }
    assert len(document["subnets"]) == 4
    for subnet in document["subnets"]:
        assert set(subnet) == {"architecture", "predicted_ms", "interval_ms", "measured_ms", "model"}
        architecture = Architecture.from_json(subnet["architecture"])
        assert subnet["predicted_ms"] == pytest.approx(table.predict_ms([architecture])[0])
        check_model(Path(subnet["model"]), architecture)
    predicted, measured = (
        np.array([s[f"{name}_ms"] for s in document["subnets"]]) for name in ("predicted", "measured")
    )
    assert document["mape"] == pytest.approx(np.mean(np.abs(predicted / measured - 1)))
    assert document["within_10pct"] == np.mean(np.abs(predicted / measured - 1) <= 0.1)
    assert document["noise"] > 0

    # The smallest network is much faster than the largest: these are times of the networks.
    assert measured.argmin() == 0
    assert measured[-1] > 1.5 * measured[0]

    metadata = json.loads(table.path.with_suffix(".json").read_text())
    summary = {name: value for name, value in document.items() if name != "subnets"}
    assert metadata["validation"].items() >= {**summary, "subnets": 4, "failed": 0, "seed": 0}.items()
    assert metadata.items() >= SETTINGS.items()
    assert table.path.read_bytes() == before
    assert json.loads((tmp_path / "some $table_-verify.json").read_text()) == document
    assert (tmp_path / "some $table_-verify.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.jsonl"))
    assert f"mean error             {document['mape']:.1%}" in err
    LatencyTable.load(table.path)


def check_model(path: Path, architecture: Architecture) -> None:
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert properties["weights"] == "untrained"
    assert Architecture.from_json(json.loads(properties["architecture"])) == architecture
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": np.random.default_rng(0).random((1, 3, 24, 24), dtype=np.float32)})
    assert logits.shape == (1, 10)
    assert np.isfinite(logits).all()


class Interrupting:
    """Ctrl-C at the given visit."""

    def __init__(self, visit: int | None = None) -> None:
        self.visit = visit
        self.seen: list[int] = []

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, MeasuringProgress):
            self.seen.append(progress.visits)
            if progress.visits == self.visit:
                raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_verification_goes_on(table: LatencyTable, tmp_path: Path) -> None:
    journal = tmp_path / "v.jsonl"
    with open_device("local") as device:
        with pytest.raises(KeyboardInterrupt):
            verify(table, device, subnets=3, journal=journal, progress=Interrupting(4))
        kept = [line for line in journal.read_bytes().splitlines() if b'"visit"' in line]
        assert len(kept) == 4
        rest = Interrupting()
        verification = verify(table, device, subnets=3, journal=journal, progress=rest)
        assert min(rest.seen) >= 4
        assert [line for line in journal.read_bytes().splitlines() if b'"visit"' in line][:4] == kept
        measured = [t.ms for t in steady_times(read_journal(journal)[0].measurements().values()).values()]
        assert [subnet.measured_ms for subnet in verification.subnets] == measured
        # Another draw has nothing to go on from.
        anew = Interrupting(1)
        with pytest.raises(KeyboardInterrupt):
            verify(table, device, subnets=3, seed=1, journal=journal, progress=anew)


class DamagingDevice(LocalDevice):
    """Some models arrive there with other bytes."""

    def __init__(self, damaged: int) -> None:
        self.damaged = damaged

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        for path in sorted((kit / "models").iterdir())[: self.damaged] if kit else []:
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data[:-1])
        return super().start(kit, arguments)


def test_a_network_that_fails_is_reported(table: LatencyTable) -> None:
    with DamagingDevice(1) as device:
        verification = verify(table, device, subnets=4)
    assert len(verification.usable) == 3
    (failed,) = (subnet for subnet in verification.to_json()["subnets"] if subnet["measured_ms"] is None)
    assert "is damaged" in failed["error"]
    assert any(doubt.text.startswith("1 of 4 networks failed") for doubt in verification_doubts(table, verification))
    assert verification.validation()["subnets"] == 3
    assert verification.validation()["failed"] == 1


@pytest.mark.slow
def test_too_few_networks_say_nothing(table: LatencyTable) -> None:
    with DamagingDevice(2) as device, pytest.raises(DeviceError, match="2 of 4 networks failed"):
        verify(table, device, subnets=4)


# --- what cannot be verified ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subnets", "0"], "--subnets"),
        (["--subnets", "2"], "2 networks: a verification takes 3 to"),
        (["--subnets", "many"], "'many' is not a whole number"),
        (["--seed", "-1"], "--seed"),
        (["--space", "mbv4"], "unknown search space 'mbv4'"),
        (["--space", "ofa-mbv3-w1.2"], "does not cover ofa-mbv3-w1.2"),
        (["--device", "toaster"], "unknown device 'toaster'"),
        (["--plot", "scatter.xyz"], "must end in one of .pdf, .png, .svg"),
        (["--lut", "nowhere.csv"], "nowhere.csv: there is no such file"),
        (["--more"], "--more"),
    ],
)
def test_bad_arguments(
    arguments: list[str], words: str, table: LatencyTable, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--lut", table.path, "--device", "local", *arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_table_that_does_not_say_how_it_was_measured(table: LatencyTable, capsys: pytest.CaptureFixture[str]) -> None:
    assert table.path is not None
    json_path = table.path.with_suffix(".json")
    metadata = json.loads(json_path.read_text())
    for name, value in [("threads", 0), ("threads", "two"), ("batch", None), ("runtime", 3), ("precision", None)]:
        json_path.write_text(json.dumps({**metadata, name: value}))
        with pytest.raises(InputFileError, match=r"\.json: has no valid measurement settings"):
            settings_of(LatencyTable.load(table.path))
    json_path.write_text(json.dumps({**metadata, "runtime": "tensorrt"}))
    code, _, err = run(capsys, "--lut", table.path, "--device", "local")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "unknown runtime 'tensorrt'" in err
    json_path.unlink()
    code, _, err = run(capsys, "--lut", table.path, "--device", "local")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "has no some $table_.json beside it" in err


def test_a_published_table(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--lut", shared_dir / "data" / "ofa" / "note10", "--device", "local")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "is a published table" in err


# --- what is stored ------------------------------------------------------------------------------------------


def verification_of(predicted: list[float], even: list[float], odd: list[float]) -> Verification:
    subnets = tuple(Subnet(SPACE.smallest, p, (e + o) / 2, e, o) for p, e, o in zip(predicted, even, odd, strict=True))
    device = Device.from_json({"time": "2026-01-01", "model": "Pi 4"})
    return Verification(subnets, device, None, 0, "2026-01-01T00:00:00+00:00")


def test_a_table_keeps_no_validation_by_another_device(table: LatencyTable) -> None:
    assert table.path is not None
    verification = verification_of([1, 2, 3], [1, 2, 3], [1, 2, 3])
    other = LatencyTable(table.name, table.rows, {**table.metadata, "device": {"model": "Pi 5"}}, table.path)
    assert not store_validation(other, verification)
    described = {**verification.device.json, "runtime": {"name": "onnxruntime", "version": "0.1"}, "uncontrolled": []}
    elsewhere = replace(verification, device=Device.from_json(described))
    newer = LatencyTable(table.name, table.rows, {**table.metadata, "runtime_version": "0.2"}, table.path)
    assert not store_validation(newer, elsewhere)
    assert LatencyTable.load(table.path).metadata["validation"] is None
    path = table.path.with_suffix(".json")
    odd = {"cable": "lab mate's, \ud800"}  # JSON may hold what no file can
    path.write_text(json.dumps({**json.loads(path.read_text()), **odd}))
    assert store_validation(table, verification)
    metadata = LatencyTable.load(table.path).metadata
    assert metadata["validation"]["mape"] == 0
    assert metadata["cable"] == odd["cable"]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"power_mode": "MAXN"}, "power_mode 'MAXN', now '15W'"),
        ({"cores_used": [0, 1]}, "cores_used (0, 1), now (4,)"),
        ({"cores_used": None}, "cores_used (), now (4,)"),
        ({"governor": "performance"}, "governor 'performance', now 'schedutil'"),
        ({"fixed_performance_mode": True}, "fixed_performance_mode True, now False"),
        ({"soc": "BCM2712"}, "soc 'BCM2712', now 'BCM2711'"),
    ],
)
def test_a_table_keeps_no_validation_under_other_conditions(
    table: LatencyTable, device: dict[str, Any], words: str
) -> None:
    assert table.path is not None
    now = {"model": "Pi 4", "soc": "BCM2711", "power_mode": "15W", "cores_used": [4], "governor": "schedutil",
           "fixed_performance_mode": False}  # fmt: skip
    described = Device.from_json({"time": "2026-01-01", **now})
    verification = replace(verification_of([1, 2, 3], [1, 2, 3], [1, 2, 3]), device=described)
    metadata = {"runtime": "onnxruntime", "format": 1, "validation": {"mape": 0.01}, "device": {**now, **device}}
    measured = LatencyTable(table.name, table.rows, metadata, table.path)
    path = table.path.with_suffix(".json")
    path.write_text(json.dumps(metadata))
    assert not store_validation(measured, verification)
    assert json.loads(path.read_text()) == metadata
    assert other_conditions(measured, described) == f"it was measured under other conditions ({words})"
    unknown = {name: value for name, value in now.items() if name not in device}
    assert store_validation(replace(measured, metadata={**metadata, "device": unknown}), verification)


def test_a_figure_that_is_unknown_says_why() -> None:
    """One round only, and latencies that do not differ."""
    device = Device.from_json({"time": "2026-01-01", "model": "Pi 4"})
    subnets = tuple(Subnet(SPACE.smallest, 1.0, 1.0) for _ in range(3))
    verification = Verification(subnets, device, None, 0, "2026-01-01T00:00:00+00:00")
    assert verification.spell("noise") == "unknown (one round only, it takes two)"
    assert verification.spell("spearman", ".3f") == "unknown (all latencies are equal)"
    assert "nan" not in repr(verification) + verification._repr_html_()


def test_coverage_counts_the_measured_networks_inside_their_intervals() -> None:
    verification = verification_of([1.0] * 4, [1.0] * 4, [1.0] * 4)
    ends = [(0.9, 1.1), (1.0, 1.0), (1.01, 2.0), None]
    subnets = [replace(s, interval_ms=e) for s, e in zip(verification.subnets, ends, strict=True)]
    subnets.append(Subnet(SPACE.smallest, 1.0, None, error="it failed", interval_ms=(0.9, 1.1)))
    assert replace(verification, subnets=tuple(subnets)).coverage == pytest.approx(2 / 3)
    assert np.isnan(verification.coverage)


def test_one_round_gives_no_noise(table: LatencyTable, capsys: pytest.CaptureFixture[str]) -> None:
    """The time limit ends the measurement after the first round."""
    assert table.path is not None
    code, _, error = run(capsys, "--lut", table.path, "--device", "local", "--subnets", "3", "--time-limit", "1us")
    assert code == 0
    assert "noise of the measurement unknown (one round only, it takes two)" in error
    assert "nan%" not in error


def test_what_is_unknown_is_null() -> None:
    document = verification_of([1, 1, 1], [1, 2, 3], [1, 2, 3]).to_json()
    assert document["spearman"] is None
    assert json.loads(json.dumps(document, allow_nan=False)) == document


# --- the plot ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF")])
def test_the_plot(tmp_path: Path, name: str, magic: bytes) -> None:
    verification = verification_of([1, 2, 3], [1, 2, 3], [1, 2, 3])
    plot.plot_verification(verification, tmp_path / name, title="$a_b^{")
    alone = (tmp_path / name).read_bytes()
    assert alone.startswith(magic)
    plot.plot_verification(verification, tmp_path / name, title="$a_b^{", plain_ms=np.array([0.8, 1.6, 2.4]))
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert len((tmp_path / name).read_bytes()) > 1.02 * len(alone)  # the plain sums, and their name


@pytest.mark.slow
def test_without_matplotlib(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    code, out, err = run(capsys, "--lut", table.path, "--device", "local", "--plot", tmp_path / "a.png")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "matplotlib, which is not installed: pip install" in err
    code, out, err = run(capsys, "--lut", table.path, "--device", "local", "--subnets", 3)
    assert code == 0, err
    assert plot.NOT_INSTALLED in err
    assert not list(tmp_path.glob("*.png"))
