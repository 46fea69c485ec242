"""`ofa-profile --like`: a few ops are measured, the others inferred from the table of a similar device."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler import Architecture, LatencyTable, get_space, profile
from ofa_profiler.base.progress import Progress
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.devices import Agent, FakeDevice
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.measuring.offline import import_results
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.tables.row import INFERRED, OK
from ofa_profiler.verification import like as like_module
from ofa_profiler.verification.like import TARGET_MAPE
from ofa_profiler.verification.networks import network_name
from ofa_profiler.verification.profile import NetworkCounts
from ofa_profiler.verification.report import report
from ofa_search.cli.search import main as ofa_search

SPACE = get_space("cifar-mbv3").with_resolutions([24])
OPS = {op.key: op for op in SPACE.unique_ops()}
FIRST, N_FITTED, N_VALIDATED = 12, 10, 3


def old_ms(op: Op) -> float:
    return 0.01 + op.macs / 1e7


def similar_ms(op: Op) -> float:
    """A device with slow 7x7 kernels and fast memory."""
    slow = 1.5 if op.attributes.get("kernel_size") == 7 else 1.0
    return 2 * slow * old_ms(op) * (op.boundary / 1e4) ** 0.1


def unlike_ms(op: Op) -> float:
    """A device of which the old one tells nothing."""
    return old_ms(op) * math.exp(random.Random(op.key).gauss(0, 1.5))


@dataclass(frozen=True)
class Board(FakeDevice):
    """A device whose networks take as long as their ops, and a bit."""

    op_ms: Callable[[Op], float] = similar_ms

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        names = {}
        if kit is not None:
            about = json.loads((kit / "manifest.json").read_text())["about"].get("networks", {})
            listed = [Architecture.from_json(data) for part in about.values() for data in part]
            names = {network_name(a): 0.05 + sum(map(self.op_ms, SPACE.ops(a))) for a in listed}
        object.__setattr__(self, "latency_ms", lambda key: names[key] if key in names else self.op_ms(OPS[key]))
        return super().start(kit, arguments)


UNLIKE = Board(op_ms=unlike_ms)


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def few_networks() -> Iterator[None]:
    """Their export takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(like_module, "FEW_NETWORKS", NetworkCounts(N_FITTED, N_VALIDATED, {"min_rounds": 2}))
        yield


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """The table of the old device."""
    out = tmp_path_factory.mktemp("old")
    board = Board(op_ms=old_ms, model="old board")
    return profile(board, "cifar-mbv3", out, resolutions=[24], name="old", calibrate=0).table


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, old: LatencyTable) -> Profile:
    """What a call gives that nothing interrupts, and that must measure more and more ops."""
    return make(tmp_path_factory.mktemp("whole"), UNLIKE, like=old)


def make(out: Path, device: FakeDevice | None = None, **options: object) -> Profile:
    how = {"resolutions": [24], "name": "new", **options}
    return profile(device or Board(), "cifar-mbv3", out, **how)  # type: ignore[arg-type]


def test_few_ops_are_measured_and_the_others_are_near(tmp_path: Path, old: LatencyTable) -> None:
    made = make(tmp_path, like=old)
    table = made.table
    measured = [row for row in table.rows if row.status == OK]
    inferred = [row for row in table.rows if row.status == INFERRED]
    assert len(measured) == FIRST
    assert [row.op for row in table.rows] == list(OPS)
    for row in inferred:
        assert row.median_ms == pytest.approx(similar_ms(row.description), rel=0.3)
        assert row.p10_ms < row.median_ms < row.p90_ms  # type: ignore[operator]
        assert (row.mean_ms, row.std_ms, row.samples) == (None, None, 0)
    assert isinstance(table.correction, Regression)
    assert table.metadata["validation"]["subnets"] == N_VALIDATED
    assert table.metadata["validation"]["mape"] <= TARGET_MAPE
    assert len(table.correction.networks) == N_FITTED
    others = SPACE.decode(SPACE.sample_genomes(np.random.default_rng(0), 100))
    truth = np.array([0.05 + sum(map(similar_ms, SPACE.ops(a))) for a in others])
    assert np.mean(np.abs(table.predict_ms(others) / truth - 1)) < TARGET_MAPE
    assert made.replay.n_visits < 4 * FIRST


def test_what_is_inferred_is_never_silent(
    tmp_path: Path, old: LatencyTable, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make(tmp_path, like=old).table
    like = table.metadata["like"]
    assert (like["table"], like["device"], like["threads"]) == ("old", "old board", 1)
    assert (like["measured"], like["inferred"]) == (FIRST, len(OPS) - FIRST)
    assert 0 < like["left_out_median"] <= like["left_out_p90"]
    count = len(OPS) - FIRST
    (warning,) = [text for text in table.warnings if "inferred" in text]
    assert warning.startswith(f"table new: {count} of {len(OPS)} ops are inferred from table old, not measured (half")
    assert f"{len(OPS)}, {count} inferred" in repr(table)
    assert f"{FIRST} of {len(OPS)} ops" in report(table).facts["measured"]
    assert f"{count} ops are inferred from table old" in report(table).facts["measured"]
    assert f"{count} of {len(OPS)} ops are inferred" in report(table).facts["notes"]
    with pytest.raises(UsageError, match="was inferred, not measured"):
        table.save_published(tmp_path / "published")
    assert LatencyTable.load(table.path).rows == table.rows  # type: ignore[arg-type]
    search = ["--lut", str(table.path), "--budget", "100ms", "--predictor", "macs", "--no-export", "--engine", "random"]
    assert ofa_search([*search, "--out", str(tmp_path / "found")]) == 0
    assert f"{count} of {len(OPS)} ops are inferred from table old" in capsys.readouterr().err
    frame = LatencyTable.from_frame(table.to_frame())
    assert [row.status for row in frame.rows] == [row.status for row in table.rows]


def test_more_ops_are_measured_until_networks_are_right(whole: Profile) -> None:
    table = whole.table
    measured = sum(row.status == OK for row in table.rows)
    assert measured > 4 * FIRST
    assert table.metadata["validation"]["mape"] <= TARGET_MAPE or measured == len(OPS)
    replay = read_journal(whole.path.with_suffix(".jsonl"))[0]
    assert len(replay.run.models) == measured
    assert {len(visits) for visits in replay.visits.values()} == {3}  # none was measured again


def test_the_time_limit_stops_it(tmp_path: Path, old: LatencyTable) -> None:
    table = make(tmp_path, UNLIKE, like=old, time_limit_s=1e-3).table
    assert sum(row.status == OK for row in table.rows) == FIRST
    assert table.metadata["validation"]["mape"] > TARGET_MAPE


class Stop:
    """Ctrl-C when so many things have been told."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress, MeasuringProgress):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 30, 110, 300])
def test_an_interrupted_call_resumes(tmp_path: Path, old: LatencyTable, whole: Profile, at: int) -> None:
    """In the first ops, in the networks, and in the ops that are added."""
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, UNLIKE, like=old, progress=Stop(at))
    resumed = make(tmp_path, UNLIKE, like=old)
    assert resumed.table.rows == whole.table.rows
    assert resumed.table.correction == whole.table.correction
    assert resumed.replay.n_visits == whole.replay.n_visits
    again = make(tmp_path, UNLIKE, like=old)
    assert again.was_complete
    assert again.table.metadata == resumed.table.metadata


def test_fresh_measures_again_and_resumes(tmp_path: Path, old: LatencyTable, whole: Profile) -> None:
    before = whole
    shutil.copytree(whole.path.parent, tmp_path, dirs_exist_ok=True)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, UNLIKE, like=old, fresh=True, progress=Stop(110))
    after = make(tmp_path, UNLIKE, like=old, fresh=True)
    assert after.replay.run.created > before.replay.run.created
    assert after.table.rows == before.table.rows
    assert (tmp_path / "new.jsonl.old").exists()
    assert not (tmp_path / "new.jsonl.new").exists()


def test_a_profile_without_like_measures_the_rest(tmp_path: Path, old: LatencyTable) -> None:
    first = make(tmp_path, like=old)
    completed = make(tmp_path, calibrate=N_FITTED)
    direct = make(tmp_path / "direct")
    assert completed.replay.run.created == first.replay.run.created
    assert completed.table.rows == direct.table.rows
    assert "like" not in completed.table.metadata
    assert completed.table.metadata["validation"]["subnets"] == N_VALIDATED  # the networks that were measured
    assert not [text for text in completed.table.warnings if "inferred" in text]
    assert make(tmp_path, calibrate=N_FITTED).was_complete
    assert make(tmp_path, like=old).was_complete  # nothing is left to infer


def test_the_table_follows_from_the_journal_alone(tmp_path: Path, old: LatencyTable) -> None:
    made = make(tmp_path, like=old)
    files = [made.path, made.path.with_suffix(".json")]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    assert make(tmp_path, like=old).was_complete
    assert [path.read_bytes() for path in files] == before
    table, _ = import_results(tmp_path / "new.jsonl", tmp_path / "elsewhere", name="copy")
    assert table.path is not None
    assert table.path.read_bytes() == before[0]
    assert table.metadata["like"] == made.table.metadata["like"]


def test_ops_that_fail_on_the_new_device_stay_failed(tmp_path: Path, old: LatencyTable) -> None:
    measured = [row.op for row in make(tmp_path / "a", like=old).table.rows if row.status == OK]
    bad = next(key for key in measured if OPS[key].kind == "mbconv")
    table = make(tmp_path / "b", Board(failing=[bad]), like=old).table
    assert [row.op for row in table.rows if row.status == "failed"] == [bad]
    assert sum(row.status == INFERRED for row in table.rows) == len(OPS) - FIRST
    with pytest.raises(DeviceError, match="no op was measured from which the others can be inferred; the first failed"):
        make(tmp_path / "c", Board(failing=list(OPS)), like=old)


def test_ops_that_the_base_lacks_are_measured(tmp_path: Path, old: LatencyTable) -> None:
    lacking = {row.op for row in old.rows if row.description.attributes.get("stride") == 2}
    rows = tuple(row for row in old.rows if row.op not in lacking)
    made = make(tmp_path, like=LatencyTable("old", rows, {**old.metadata, "resolutions": None}))
    measured = {row.op for row in made.table.rows if row.status == OK}
    assert lacking < measured
    assert len(made.table.rows) == len(OPS)


def test_the_forms_that_were_tried_count_for_all_ops(tmp_path: Path, old: LatencyTable) -> None:
    split = Forms({"depthwise 7x7, stride 1": "split", "depthwise 7x7, stride 2": "split"})
    made = make(tmp_path, Board(forms=split, op_ms=unlike_ms), like=old, runtime="litert")
    assert made.table.forms == split
    run = made.replay.run
    assert run.candidates is not None
    tried = {key for trial in run.candidates.trials for key in trial.keys}
    assert tried <= {row.op for row in made.table.rows if row.status == OK}
    groups = {group for trial in run.candidates.trials for group in trial.forms.chosen}
    assert groups >= split.chosen.keys()
    assert make(tmp_path, Board(forms=split, op_ms=unlike_ms), runtime="litert").table.forms == split  # the rest


# --- the command ------------------------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = ofa_profile(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--no-calibration", "--device", "local", "--out", "x"], "--like excludes --no-calibration"),
        (["--kit", "x"], "--like needs --device"),
        (["--import", "x.jsonl", "--out", "x"], "--like needs --device"),
        (["--device", "local", "--out", "x", "--space", "ofa-resnet50"], "too few to infer the rest"),
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path,
    old: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, "--like", old.path, *more)
    assert (code, out, list(tmp_path.iterdir())) == (2, "", [])
    assert words in err
    assert err.count("\n") == 1


def test_a_missing_base_and_the_table_itself_are_refused(
    tmp_path: Path, old: LatencyTable, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(capsys, "--device", "local", "--out", tmp_path, "--like", tmp_path / "none.csv")
    assert (code, err) == (2, f"ofa-profile: {tmp_path / 'none.csv'}: there is no such file\n")
    made = make(tmp_path)
    before = (tmp_path / "new.jsonl").read_bytes()
    with pytest.raises(UsageError, match="is the table that would be written: use another --name or --out"):
        make(tmp_path, like=made.table)
    assert (tmp_path / "new.jsonl").read_bytes() == before
    with pytest.raises(UsageError, match="only their error tells when enough ops are measured"):
        make(tmp_path / "b", like=old, calibrate=0)


def test_another_base_does_not_mix(tmp_path: Path, old: LatencyTable) -> None:
    make(tmp_path, like=old)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = LatencyTable("other", old.rows, old.metadata)
    with pytest.raises(UsageError, match=r"like \{'table': 'old'.*use another --name, or --fresh"):
        make(tmp_path, like=other)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_plan_says_how_few_ops(old: LatencyTable, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["--plan", "--device", "local", "--resolution", "24"]
    code, out, err = said(capsys, *plan, "--like", old.path)
    assert code == 0
    assert f"from old, the other {len(OPS) - FIRST} of {len(OPS)} ops are inferred" in out
    assert f"networks: {N_FITTED + N_VALIDATED} ({N_FITTED} to fit the correction, {N_VALIDATED} to validate it)" in out
    assert f"{FIRST} ops of cifar-mbv3 at 24" in err
    _, few, _ = said(capsys, *plan, "--json", "--like", old.path)
    _, whole, _ = said(capsys, *plan, "--json", "--calibrate", 32)
    assert len(json.loads(few)["ops"]) == FIRST
    assert json.loads(few)["inferred"] == len(OPS) - FIRST
    assert json.loads(whole)["inferred"] == 0
    assert json.loads(few)["seconds"]["expected"] < 0.25 * json.loads(whole)["seconds"]["expected"]
