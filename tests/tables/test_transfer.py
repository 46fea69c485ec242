"""Times of ops that were not measured: the Gaussian process, the order of measuring, and what is inferred."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.row import Row
from ofa_profiler.tables.transfer import Base, infer, order_of_measuring
from ofa_profiler.tables.transfer.features import op_features
from ofa_profiler.tables.transfer.process import _OFFSET, Kernel, Process, fit, kernels

SPACE = get_space("cifar-mbv3").with_resolutions([24])
OPS = SPACE.unique_ops()


def base_ms(op: Op) -> float:
    return 0.02 + op.macs / 1e7 + op.params / 1e8


BASE = {op.key: base_ms(op) for op in OPS}
ORDER = order_of_measuring(SPACE, BASE, {})


def factor(op: Op) -> float:
    """How much slower the new device is: it has slow kernels for 7x7, fast squeeze-excite, and slow memory."""
    slow = 1.6 if op.attributes.get("kernel_size") == 7 else 1.0
    return 2.0 * slow * (0.8 if op.attributes.get("se") else 1.0) * (1 + 0.1 * math.sin(math.log(op.macs + 1)))


def points(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, 4))
    return found, np.sin(found[:, 0]) * 0.2 + 0.1 * found[:, 1] + 0.7


# --- the process --------------------------------------------------------------------------------------------


def test_a_process_is_a_joint_normal_distribution() -> None:
    """Predictions follow from the precision matrix of all values, known and unknown (appendix A.2 of the book)."""
    known, values = points(30)
    others, _ = points(20, seed=1)
    kernel = Kernel(linear=0.02, smooth=0.05, length=0.8, noise=0.001)
    everything = np.vstack([others, known])
    precision = np.linalg.inv(kernel(everything, everything) + kernel.noise * np.eye(50))
    covariance = np.linalg.inv(precision[:20, :20])
    means, deviations = Process(kernel, known, values).predict(others)
    np.testing.assert_allclose(means, -covariance @ precision[:20, 20:] @ values, atol=1e-6)
    np.testing.assert_allclose(deviations, np.sqrt(np.diag(covariance)), rtol=1e-5)


def test_the_kernel_and_the_likelihood_are_those_of_the_book() -> None:
    known, values = points(8)
    kernel = Kernel(linear=0.02, smooth=0.05, length=0.8, noise=0.001)
    covariance = np.empty((8, 8))
    for i, j in np.ndindex(8, 8):
        distance = np.mean((known[i] - known[j]) ** 2)
        covariance[i, j] = _OFFSET + 0.02 * known[i] @ known[j] + 0.05 * math.exp(-distance / (2 * 0.8**2))
    np.testing.assert_allclose(kernel(known, known), covariance)
    np.testing.assert_allclose(kernel.variances(known), np.diag(covariance))
    referee = multivariate_normal(cov=covariance + 0.001 * np.eye(8)).logpdf(values)
    constant = len(values) / 2 * math.log(2 * math.pi)
    assert Process(kernel, known, values).log_likelihood() - constant == pytest.approx(referee)


def test_left_out_errors_are_those_of_processes_that_do_not_know_the_value() -> None:
    known, values = points(12)
    kernel = Kernel()
    errors, deviations = Process(kernel, known, values).left_out()
    for i in range(len(values)):
        rest = np.arange(len(values)) != i
        mean, deviation = Process(kernel, known[rest], values[rest]).predict(known[[i]])
        assert errors[i] == pytest.approx(values[i] - mean[0], abs=1e-6)
        assert deviations[i] == pytest.approx(deviation[0], rel=1e-4)


def test_a_fit_averages_kernels_by_their_likelihoods() -> None:
    known, values = points(25)
    others, _ = points(400, seed=1)
    mixture = fit(known, values)
    likelihoods = [process.log_likelihood() for process in mixture.processes]
    everything = [Process(kernel, known, values).log_likelihood() for kernel in kernels()]
    assert max(likelihoods) == max(everything)
    assert 1 < len(likelihoods) < len(everything)
    assert mixture.probabilities.sum() == pytest.approx(1.0)
    ratio = mixture.probabilities[0] / mixture.probabilities[-1]
    assert math.log(ratio) == pytest.approx(likelihoods[0] - likelihoods[-1])
    means, deviations = mixture.predict(others)
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(likelihoods), 4000, p=mixture.probabilities)
    all_means, all_deviations = (
        np.array(part) for part in zip(*(p.predict(others) for p in mixture.processes), strict=True)
    )
    samples = rng.normal(all_means[drawn, 0], all_deviations[drawn, 0])
    assert means[0] == pytest.approx(samples.mean(), abs=4 * deviations[0] / math.sqrt(4000))
    assert deviations[0] == pytest.approx(samples.std(), rel=0.1)


# --- which ops ------------------------------------------------------------------------------------------------


def test_every_op_is_ordered_once_and_the_first_cover_all_kinds() -> None:
    assert sorted(op.key for op in ORDER.ops) == sorted(BASE)
    first = ORDER.ops[: ORDER.needed]
    assert {op.kind for op in first} == {op.kind for op in OPS}
    assert ORDER.needed < 12
    assert order_of_measuring(SPACE, BASE, {}) == ORDER  # a resumed call chooses the same


def test_each_class_is_measured_and_so_are_ops_that_the_base_lacks() -> None:
    classes = {op.key: ("wide",) for op in OPS if op.attributes.get("kernel_size") == 5}
    lacking = [op.key for op in OPS if op.attributes.get("stride") == 2][:5]
    known = {key: ms for key, ms in BASE.items() if key not in lacking}
    order = order_of_measuring(SPACE, known, classes)
    first = [op.key for op in order.ops[: order.needed]]
    assert set(lacking) <= set(first)
    assert classes.keys() & set(first)
    assert order_of_measuring(SPACE, {}, {}).needed == len(OPS)


def test_chosen_ops_tell_more_than_random_ones() -> None:
    new = {op.key: base_ms(op) * factor(op) for op in OPS}

    def error(ops: list[Op]) -> float:
        found = infer(OPS, BASE, {op.key: new[op.key] for op in ops}).ms
        return float(np.mean([abs(ms / new[key] - 1) for key, (ms, _, _) in found.items()]))

    rng = np.random.default_rng(0)
    random_errors = [error([OPS[i] for i in rng.choice(len(OPS), 20, replace=False)]) for _ in range(8)]
    assert error(list(ORDER.ops[:20])) < np.mean(random_errors)


# --- what is inferred -----------------------------------------------------------------------------------------


def test_inferred_times_are_near_the_true_ones_and_say_how_near() -> None:
    new = {op.key: base_ms(op) * factor(op) for op in OPS}
    measured = {op.key: new[op.key] for op in ORDER.ops[:25]}
    found = infer(OPS, BASE, measured)
    assert found.ms.keys() == BASE.keys() - measured.keys()
    errors = [abs(ms / new[key] - 1) for key, (ms, _, _) in found.ms.items()]
    assert np.median(errors) < 0.05  # one factor is off by over 20%
    common = float(np.median([measured[key] / BASE[key] for key in measured]))
    assert np.median([abs(common * BASE[key] / new[key] - 1) for key in found.ms]) > 2 * np.median(errors)
    assert all(low < ms < high for ms, low, high in found.ms.values())
    told = found.to_json()
    assert told["inferred"] == len(found.ms)
    assert 0 < told["left_out_median"] < told["left_out_p90"]


def test_intervals_hold_four_of_five_times() -> None:
    inside = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        new = {op.key: base_ms(op) * factor(op) * math.exp(rng.normal(0, 0.05)) for op in OPS}
        found = infer(OPS, BASE, {op.key: new[op.key] for op in ORDER.ops[:30]})
        inside += [low <= new[key] <= high for key, (_, low, high) in found.ms.items()]
    assert 0.75 < np.mean(inside) < 0.92


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100), count=st.integers(1, 40))
def test_a_device_that_is_faster_by_one_factor_is_inferred_from_any_ops(scale: float, count: int) -> None:
    found = infer(OPS, BASE, {op.key: scale * BASE[op.key] for op in ORDER.ops[:count]})
    assert len(found.ms) == len(OPS) - count
    for key, (ms, low, high) in found.ms.items():
        assert ms == pytest.approx(scale * BASE[key], rel=0.02 * (1 + abs(math.log(scale))))
        assert 0 < low < ms < high < math.inf


def test_features_are_standardised_and_tell_ops_apart() -> None:
    features = op_features(OPS, list(BASE.values()))
    assert np.isfinite(features).all()
    assert len(np.unique(features.round(9), axis=0)) == len(OPS)
    assert np.abs(features[:, :8].mean(axis=0)).max() < 1e-9


# --- the base -------------------------------------------------------------------------------------------------


def table(rows: list[Row]) -> LatencyTable:
    metadata = {"spaces": ["cifar-mbv3"], "device": {"model": "Old board"}, "runtime": "litert", "threads": 2}
    return LatencyTable("old", tuple(rows), metadata)


def measured_row(op: Op) -> Row:
    return Row.from_op(op, batch=1, precision="fp32", samples_ms=[base_ms(op)])


def test_failed_and_inferred_rows_of_the_base_have_no_time() -> None:
    rows = [measured_row(op) for op in OPS]
    rows[3] = Row.failed(OPS[3], batch=1, precision="fp32", error="no")
    rows[4] = Row.inferred(OPS[4], batch=1, precision="fp32", ms=(1.0, 0.9, 1.1))
    base = Base.of(table(rows), SPACE)
    assert base.ms.keys() == BASE.keys() - {OPS[3].key, OPS[4].key}
    assert base.ops == OPS
    assert base.described["device"] == "Old board"
    assert Base.from_json(json.loads(json.dumps(base.to_json()))) == base


def test_a_base_of_too_few_ops_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--like old: it has measured 3 of the \d+ ops of cifar-mbv3 at 24, too few"):
        Base.of(table([measured_row(op) for op in OPS[:3]]), SPACE)


def test_published_tables_are_a_base(tmp_path: Path) -> None:
    space = get_space("cifar-mbv3").with_resolutions([24, 28])
    ops = space.unique_ops()
    LatencyTable("both", tuple(map(measured_row, ops)), {"spaces": [space.name]}).save_published(tmp_path / "phone")
    base = Base.of(LatencyTable.load(tmp_path / "phone"), space)
    assert base.ms == {op.key: pytest.approx(base_ms(op)) for op in ops}
    assert base.described["table"] == "phone"


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"ops": []},
        {"ops": [3]},
        {"ops": [{"op": OPS[0].to_json()}]},
        {"ops": [{"op": {}, "ms": 1.0}]},
        {"ops": [{"op": OPS[0].to_json(), "ms": 0}]},
        {"ops": [{"op": OPS[0].to_json(), "ms": "fast"}]},
        {"ops": [{"op": OPS[0].to_json(), "ms": math.nan}]},
    ],
)
def test_a_damaged_base_is_an_error(data: object) -> None:
    with pytest.raises(ValueError, match=r"like|op|attributes"):
        Base.from_json(data)


# --- inferred rows --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.floats(1e-6, 1e6)] * 3), min_size=1, max_size=5))
def test_inferred_rows_round_trip(tmp_path_factory: pytest.TempPathFactory, times: list[tuple[float, ...]]) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    inferred = [
        Row.inferred(op, batch=1, precision="fp32", ms=(ms[1], ms[0], ms[2]))
        for op, ms in zip(OPS, map(sorted, times), strict=False)
    ]
    rows = (measured_row(OPS[-1]), *inferred)
    LatencyTable("t", rows, {"like": {"table": "old"}}).save(path)
    found = LatencyTable.load(path)
    assert found.rows == rows
    assert found.metadata["like"] == {"table": "old"}
    assert any("inferred from table old, not measured" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"median_ms": ""}, "a row with the status inferred has a time and no samples"),
        ({"samples": "3"}, "a row with the status inferred has a time and no samples"),
        ({"status": "guessed"}, "column status: 'guessed' is not one of ok, failed, inferred"),
    ],
)
def test_a_damaged_inferred_row_is_named(tmp_path: Path, cells: dict[str, str], words: str) -> None:
    path = tmp_path / "t.csv"
    table([measured_row(OPS[0]), Row.inferred(OPS[1], batch=1, precision="fp32", ms=(1.0, 0.9, 1.1))]).save(path)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    lines[1].update(cells)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    with pytest.raises(InputFileError, match=f"row 3: .*{words}"):
        LatencyTable.load(path)
