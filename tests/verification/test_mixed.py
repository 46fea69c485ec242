"""Networks in mixed precision: both tables are calibrated by some, resumed, restored, and say when they are not."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler import Architecture, LatencyTable, MixedTable, get_space, profile_matrix, verify
from ofa_profiler.base.progress import Progress
from ofa_profiler.base.registry import Registry
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.cli.verify import main as ofa_verify
from ofa_profiler.devices import Agent, DeviceKind, FakeDevice
from ofa_profiler.devices import registry as device_registry
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.corrections.mixed import MixedCorrection
from ofa_profiler.tables.mixed import MIXED_FIELD
from ofa_profiler.verification.mixed import MixedCalibration, calibrate_mixed, mixed_journal, store_mixed
from ofa_profiler.verification.networks import network_name

SPACE = MixedSpace.of(get_space("cifar-mbv3").with_resolutions([24]))
OPS = {op.key: op for op in (*SPACE.unique_ops(), *SPACE.boundary_ops)}
NAMES = {precision: f"t-onnxruntime-{precision}-t1" for precision in ("fp32", "int8")}
N_FITTED, N_VALIDATED = 12, 4


def op_ms(op: Op, precision: str) -> float:
    return 0.01 + op.macs / (1e7 if precision == "fp32" else 2.5e7) + op.boundary / 1e7


def network_ms(architecture: Architecture) -> float:
    """A network of the ops; a change of precision takes 0.05 ms, far more than its op alone says."""
    ops, precisions = SPACE.ops(architecture), list(SPACE.precisions(architecture).values())
    changes = sum(before != after for before, after in pairwise(precisions))
    return sum(op_ms(op, precision) for op, precision in zip(ops, precisions, strict=True)) + 0.05 * changes


@dataclass(frozen=True)
class Board(FakeDevice):
    """A device whose networks follow from its ops."""

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        if kit is not None:
            manifest = json.loads((kit / "manifest.json").read_text())
            networks = manifest["about"].get("networks", {}).values()
            known = {network_name(a): network_ms(a) for part in networks for a in map(Architecture.from_json, part)}
            precision = manifest["settings"]["precision"]
            object.__setattr__(self, "latency_ms", lambda k: known[k] if k in known else op_ms(OPS[k], precision))
        return super().start(kit, arguments)


def measure(folder: Path, **options: object) -> Path:
    how = {"resolutions": [24], "name": "t", "calibrate": 0, **options}
    profile_matrix(Board(), "cifar-mbv3", folder, **how)  # type: ignore[arg-type]
    return folder


def both(folder: Path) -> MixedTable:
    return MixedTable.of([LatencyTable.load(folder / f"{name}.csv") for name in NAMES.values()])


def calibrated(folder: Path, device: FakeDevice | None = None, **options: object) -> MixedCalibration:
    how = {"fitted": N_FITTED, "validated": N_VALIDATED, **options}
    return calibrate_mixed(both(folder), device or Board(), **how)  # type: ignore[arg-type]


def said(folder: Path) -> list[dict[str, object]]:
    """What the JSON of both tables say of mixed networks."""
    return [json.loads((folder / f"{name}.json").read_text()).get(MIXED_FIELD) for name in NAMES.values()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated pair of tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setenv("OFA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        folder = measure(tmp_path_factory.mktemp("made"))
        calibrated(folder)
    return folder


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> Path:
    """Its own copy for each test."""
    folder = tmp_path / "pair"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_both_tables_have_the_fit_and_its_validation_by_other_networks(pair):
    fp32, int8 = said(pair)
    assert [fp32["with"], int8["with"]] == [NAMES["int8"], NAMES["fp32"]]
    assert (fp32["correction"], fp32["validation"]) == (int8["correction"], int8["validation"])
    about = json.loads(mixed_journal(both(pair).int8.path).read_text().splitlines()[0])["about"]["networks"]
    names = {part: {network_name(Architecture.from_json(a)) for a in about[part]} for part in about}
    assert set(fp32["correction"]["networks"]) == names["fitted"]
    assert (len(names["fitted"]), names["fitted"] & names["validated"]) == (N_FITTED, set())
    assert fp32["validation"]["subnets"] == N_VALIDATED
    table = both(pair)
    assert table.unfitted == ""
    before = table.before_fit()
    networks = SPACE.decode(SPACE.sample_genomes(np.random.default_rng(5), 60))
    truth = [network_ms(a) for a in networks]
    fit, none = (np.abs(t.predict_ms(networks) / truth - 1).mean() for t in (table, before))
    assert fit < 0.03
    assert fit < none / 3


def test_what_was_measured_is_not_measured_again(pair):
    figures = {"mape": 0.5, "subnets": 30}
    store_mixed(both(pair), {"validation": figures})
    files = {path: path.read_bytes() for path in pair.iterdir()}
    assert calibrated(pair, fitted=None).verification.mape < 0.5
    assert {path: path.read_bytes() for path in pair.iterdir()} == files, "with the later validation of ofa-verify"
    journal = mixed_journal(both(pair).int8.path)
    calibrated(pair, fitted=N_FITTED + 1)
    assert len(said(pair)[0]["correction"]["networks"]) == N_FITTED + 1
    assert journal.read_bytes() != files[journal], "another number is another measurement"


@pytest.mark.slow
def test_an_interrupted_calibration_resumes(pair):
    journal = mixed_journal(both(pair).int8.path)
    journal.unlink()

    def stop(progress: Progress) -> None:
        if isinstance(progress, MeasuringProgress) and progress.visits >= 30:
            raise KeyboardInterrupt

    files = {path: path.read_bytes() for path in pair.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        calibrated(pair, progress=stop)
    assert {path: path.read_bytes() for path in files} == files
    kept = journal.read_bytes()
    assert kept.count(b'"visit"') == 30
    calibrated(pair)
    assert journal.read_bytes().startswith(kept)
    assert said(pair)[0]["correction"] == json.loads(files[pair / f"{NAMES['fp32']}.json"])[MIXED_FIELD]["correction"]


@pytest.mark.parametrize("first", ["fp32", "int8"])
def test_imported_tables_get_their_fit_back(pair, tmp_path, first, capsys):
    out, wanted = tmp_path / "out", said(pair)
    for precision in (first, *({"fp32", "int8"} - {first})):
        assert both_lost(out)
        journal = str(pair / f"{NAMES[precision]}.jsonl")
        assert ofa_profile(["--import", journal, "--out", str(out), "--name", NAMES[precision]]) == 0
    assert "restored the correction of mixed networks" in capsys.readouterr().err
    assert said(out) == wanted
    # Deriving one of them again, in its own folder, keeps it.
    assert ofa_profile(["--import", str(pair / f"{NAMES[first]}.jsonl"), "--out", str(pair)]) == 0
    assert said(pair) == wanted


def both_lost(out: Path) -> bool:
    return not any(json.loads(path.read_text()).get(MIXED_FIELD) for path in out.glob("*.json"))


def test_a_partner_that_was_made_again_is_noticed(pair, capsys, monkeypatch):
    kinds: Registry[DeviceKind] = Registry("kind of device")
    kinds.add("board", DeviceKind("board", lambda spec, _: FakeDevice(spec=spec), "board:ADDRESS"))
    monkeypatch.setattr(device_registry, "_KINDS", kinds)
    path = pair / f"{NAMES['int8']}.json"
    again = {name: value for name, value in json.loads(path.read_text()).items() if name != MIXED_FIELD}
    path.write_text(json.dumps(again))
    table = both(pair)
    assert table.correction == table.before_fit().correction
    assert f"({NAMES['fp32']} with {NAMES['int8']}, {NAMES['int8']} with none)" in table.unfitted
    assert table.unfitted in table.warnings
    found = pair / "found.json"
    found.write_text(json.dumps(SPACE.smallest.to_json()))
    luts = [word for each in table.tables for word in ("--lut", str(each.path))]
    assert ofa_verify([*luts, "--device", "board:a", "--architecture", str(found)]) == 0
    assert f"warning: {table.unfitted}" in capsys.readouterr().err


def test_what_cannot_be_calibrated_is_refused_before_it_is_measured(pair):
    files = {path: path.read_bytes() for path in pair.iterdir()}
    for words, options in (
        ("3 networks: a calibration takes 10", {"fitted": 3}),
        ("another device", {"fresh": True, "device": Board(model="other board")}),
    ):
        with pytest.raises(UsageError, match=words):
            calibrated(pair, **options)
    assert {path: path.read_bytes() for path in pair.iterdir()} == files


@pytest.mark.parametrize("damage", [{"errors_each": 0}, {"coefficients": {}}, {"held_out_errors": [-1]}, {"more": 1}])
def test_a_damaged_fit_is_one_line_with_its_file(pair, damage):
    entry = said(pair)[0]["correction"]
    store = [(pair / f"{name}.json") for name in NAMES.values()]
    for path in store:
        path.write_text(json.dumps({**json.loads(path.read_text()), MIXED_FIELD: {"correction": {**entry, **damage}}}))
    with pytest.raises(InputFileError, match=rf"{NAMES['fp32']}\.json: 'mixed'"):
        both(pair)


def test_a_fit_that_cannot_be_is_not_used(pair, monkeypatch):
    """Without a fit there are no errors of it, and so no intervals."""
    monkeypatch.setattr(MixedCorrection, "fitted", lambda self, *_: _without_time(self))
    found = calibrated(pair)
    assert found.table.correction == found.table.before_fit().correction
    assert found.table.correction.interval_factors(0.5) is None
    assert "not fitted" in found.table.unfitted


def _without_time(correction):
    zero = {group: dict.fromkeys(values, 0.0) for group, values in correction.coefficients.items()}
    return replace(correction, coefficients=zero, networks=("a",))


def test_two_tables_are_verified_in_python(pair):
    table = both(pair)
    networks = SPACE.decode(SPACE.sample_genomes(np.random.default_rng(1), 3))
    result = verify([table.int8.path, table.fp32], FakeDevice(), architectures=networks)
    assert [subnet.architecture for subnet in result.subnets] == networks
    assert verify(table, FakeDevice(), architectures=networks).mape == result.mape
    with pytest.raises(UsageError, match="a table of fp32 and one of int8"):
        verify([table.int8], FakeDevice(), architectures=networks)
