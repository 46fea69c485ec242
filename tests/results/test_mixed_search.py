"""`ofa-search --precision mixed`: a table of each precision, networks whose blocks have a precision each."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.tflite_files import operators

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.mixed import MixedTable
from ofa_profiler.tables.row import Row
from ofa_search import AccuracyPredictor
from ofa_search.cli.search import main
from ofa_search.cli.train import main as train

SPACE = get_space("cifar-mbv3")
MIXED = MixedSpace.of(SPACE)
FORMS = {
    "fp32": {"depthwise 7x7, stride 1": "split"},
    "int8": {"activation h_swish": "arithmetic", "depthwise 7x7, stride 1": "split"},
}


def op_ms(op: Op, precision: str, speed: float) -> float:
    """In int8, ops with squeeze-excite lose, the others gain."""
    fields: Any = op.attributes
    gain = (1.2 if fields.get("se") else 0.3) if precision == "int8" else 1.0
    return gain * (op.macs / 4e6 + 0.02) / speed


def save_table(
    folder: Path, precision: str, *, name: str = "pi", changes: bool = True, speed: float = 1.0, **metadata: Any
) -> str:
    def row(op: Op, milliseconds: float) -> Row:
        return Row.from_op(op, batch=1, precision=precision, samples_ms=[milliseconds] * 3)

    rows = [row(op, op_ms(op, precision, speed)) for op in SPACE.unique_ops()]
    if precision == "int8" and changes:
        rows += [row(op, (0.01 + math.prod(op.input_shape) / 1e6) / speed) for op in MIXED.boundary_ops]
    known = {
        "spaces": ["cifar-mbv3"],
        "runtime": "litert",
        "precision": precision,
        "threads": 1,
        "batch": 1,
        "provider": None,
        "device": {"model": name, "machine": "x86_64", "vnni": True},
        "forms": {"chosen": FORMS[precision], "trials": []},
    }
    path = folder / f"{name}-{precision}.csv"
    LatencyTable(path.stem, tuple(rows), {**known, **metadata}, path).save(path)
    return str(path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options of both tables, int8 first."""
    folder = tmp_path_factory.mktemp("tables")
    tables = [save_table(folder, precision) for precision in ("int8", "fp32")]
    return ["--lut", tables[0], "--lut", tables[1], "--precision", "mixed"]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A predictor for which int8 costs accuracy in early slots."""
    rng = np.random.default_rng(0)
    genomes = MIXED.sample_genomes(rng, 400)
    plain, bits = np.split(genomes, [len(SPACE.genes)], axis=1)
    targets = 0.6 + 0.2 * (plain / SPACE.n_choices).mean(axis=1) + bits @ np.linspace(0.006, 0.0, bits.shape[1])
    fitted = AccuracyPredictor.fit(MIXED, MIXED.decode(genomes), targets, hidden=(64,), name="of-bits")
    return str(fitted.save(tmp_path_factory.mktemp("predictor") / "of-bits.safetensors"))


def searched(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main([*arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capfd.readouterr().out)["results"]
    return found


def refused(capfd: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(arguments) == code
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    return lines[0]


def test_both_files_are_mixed_and_say_so(
    pair: list[str], predictor: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*pair, "--budget", "2.5ms", "--predictor", predictor, "--out", str(tmp_path)]
    (result,) = searched(capfd, *options)
    architecture = Architecture.from_json(result["architecture"])
    precisions = MIXED.precisions(architecture)
    assert result["precision"] == "mixed"
    assert result["precisions"] == precisions
    assert set(precisions.values()) == {"fp32", "int8"}
    name = "pi-fp32+pi-int8"
    table = MixedTable.of([LatencyTable.load(pair[1]), LatencyTable.load(pair[3])])
    assert result["latency_ms"] == {name: pytest.approx(table.predict_ms([architecture])[0])}
    assert result["latency_ms"][name] <= result["budget_ms"][name] == 2.5
    assert result["forms"] == {"litert": FORMS}
    files = {kind: Path(path) for kind, path in result["files"].items()}
    assert files["tflite"] == tmp_path / "cifar-mbv3-mixed-2.5ms.tflite"
    stored = {p.key: p.value for p in onnx.load(files["onnx"]).metadata_props}
    assert stored["precision"] == "mixed"
    assert json.loads(stored["precisions"]) == precisions
    assert json.loads(stored["architecture"]) == result["architecture"]
    runs = sum(a != "int8" and b == "int8" for a, b in pairwise(["fp32", *precisions.values()]))
    names = [node.name for node in operators(files["tflite"].read_bytes())]
    assert (names.count("QUANTIZE"), names.count("DEQUANTIZE")) == (runs, runs)
    assert Architecture.load(files["architecture"]) == architecture


def test_the_order_of_tables_does_not_matter_and_the_seed_decides(
    pair: list[str], predictor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--budget", "2ms", "--predictor", predictor, "--no-export", "--seed", "5"]
    (result,) = searched(capfd, *pair, *options)
    swapped = ["--lut", pair[3], "--lut", pair[1], *pair[4:]]
    timed = {"gap": 0, "bound": 0, "is_optimal": False}  # as good as they become in a fixed time
    (other,) = searched(capfd, *swapped, *options)
    assert {**other, **timed} == {**result, **timed}


def test_the_report_counts_blocks_and_changes(
    pair: list[str], predictor: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*pair, "--budget", "2ms", "--predictor", predictor, "--no-export", "--out", str(tmp_path)]
    assert main(options) == 0
    bits = json.loads((tmp_path / "search.json").read_text())["results"][0]["architecture"]["bits"]
    changes = sum(a != b for a, b in pairwise(bits))
    words = f"2 ms: {bits.count(8)} of {len(bits)} blocks in int8, {changes} changes of precision"
    assert words in capfd.readouterr().err


def test_mixed_is_never_worse_than_one_precision(
    pair: list[str], predictor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--budget", "2.5ms", "--predictor", predictor, "--no-export"]
    (mixed,) = searched(capfd, *pair, *options)
    table = MixedTable.of([LatencyTable.load(pair[1]), LatencyTable.load(pair[3])])
    loaded = AccuracyPredictor.load(predictor)
    for path, bits in ((pair[1], 8), (pair[3], 32)):
        (pure,) = searched(capfd, "--lut", path, *options)
        plain = Architecture.from_json(pure["architecture"])
        network = MIXED.with_bits(plain, [bits] * len(SPACE.layout(plain)))
        # A search in one precision predicts the accuracy in it, by the predictor of mixed precision.
        assert pure["predicted_accuracy"] == pytest.approx(loaded.predict([network])[0])
        assert table.predict_ms([network])[0] == pytest.approx(pure["latency_ms"][Path(path).stem])
        assert mixed["predicted_accuracy"] > pure["predicted_accuracy"]


def test_several_devices_have_a_pair_and_a_budget_each(
    pair: list[str], predictor: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = [save_table(tmp_path, precision, name="phone", speed=2.0) for precision in ("fp32", "int8")]
    # The tables of the second device between those of the first one.
    tables = ["--lut", pair[1], "--lut", other[0], "--lut", other[1], "--lut", pair[3]]
    options = ["--precision", "mixed", "--predictor", predictor, "--no-export"]
    (result,) = searched(capfd, *tables, *options, "--budget", "3ms", "--budget", "1.2ms")
    assert list(result["budget_ms"].items()) == [("pi-fp32+pi-int8", 3.0), ("phone-fp32+phone-int8", 1.2)]
    assert all(ms <= result["budget_ms"][name] for name, ms in result["latency_ms"].items())
    assert "pairs of --lut but 1 --budget" in refused(capfd, 2, *tables, *options, "--budget", "3ms")
    mixed_up = ["--lut", pair[1], "--lut", other[0], "--lut", save_table(tmp_path, "fp32", name="third")]
    error = refused(capfd, 2, *mixed_up, "--lut", pair[3], *options, "--budget", "3ms", "--budget", "3ms")
    assert "table phone-fp32 needs one partner of the same device and settings, but no other table is" in error


@pytest.mark.slow
def test_limits_and_fronts(pair: list[str], predictor: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = [*pair, "--predictor", predictor]
    (result,) = searched(
        capfd, *options, "--budget", "9ms", "--max-macs", "9M", "--max-size", "1.2MB", "--out", str(tmp_path)
    )
    assert result["macs"] <= 9e6
    assert result["size_bytes"]["tflite"] <= 1_200_000
    front = searched(capfd, *options, "--pareto", "1.5ms:2.5ms:2", "--no-export")
    accuracies = [found["predicted_accuracy"] for found in front]
    assert accuracies == sorted(accuracies)


def test_a_budget_below_the_fastest_network_names_the_attainable_range(
    pair: list[str], predictor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    error = refused(capfd, 3, *pair, "--budget", "0.2ms", "--predictor", predictor, "--no-export")
    table = MixedTable.of([LatencyTable.load(pair[1]), LatencyTable.load(pair[3])])
    lowest = table.cost(MIXED).minimum()[0]
    assert f"attainable: {math.ceil(lowest * 1000) / 1000:.10g}ms to " in error


@pytest.mark.parametrize(
    ("precisions", "words"),
    [
        (("fp32", "fp32"), "mixed precision needs a table of fp32 and one of int8, not"),
        (("int8", "int8"), "mixed precision needs a table of fp32 and one of int8, not"),
        (("int8",), "needs two tables per device, one of fp32 and one of int8, but there are 1 --lut"),
        (("int8", "fp32", "int8"), "but there are 3 --lut"),
    ],
)
def test_tables_that_are_no_pair_are_refused(
    precisions: tuple[str, ...], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tables = [save_table(tmp_path, each, name=f"board{i}", device={}) for i, each in enumerate(precisions)]
    options = [word for table in tables for word in ("--lut", table)]
    assert words in refused(capfd, 2, *options, "--precision", "mixed", "--budget", "3ms", "--predictor", "macs")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"threads": 2}, "differ in threads"),
        ({"runtime": "onnxruntime", "forms": None}, "differ in runtime"),
        ({"device": {"machine": "aarch64"}}, "of different devices"),
    ],
)
def test_tables_of_other_settings_are_refused(
    metadata: dict[str, Any], words: str, pair: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = save_table(tmp_path, "fp32", name="other", **metadata)
    options = ["--lut", pair[1], "--lut", other, "--precision", "mixed", "--budget", "3ms", "--predictor", "macs"]
    assert words in refused(capfd, 2, *options)


def test_a_table_without_changes_of_precision_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tables = [save_table(tmp_path, "fp32"), save_table(tmp_path, "int8", changes=False)]
    options = ["--lut", tables[0], "--lut", tables[1], "--precision", "mixed", "--budget", "3ms", "--predictor", "macs"]
    error = refused(capfd, 2, *options)
    assert "does not contain" in error
    assert "ofa-profile --precision fp32,int8" in error


def test_two_precisions_without_mixed_are_refused(pair: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    tables = pair[:4]
    error = refused(capfd, 2, *tables, "--budget", "3ms", "--budget", "3ms", "--no-export")
    assert "different precisions" in error
    assert "--precision mixed searches networks of both" in error
    error = refused(capfd, 2, *pair[:2], "--budget", "3ms", "--space", "cifar-mbv3-mixed", "--no-export")
    assert "its networks need --precision mixed" in error


def test_a_predictor_of_fp32_is_named_as_such(pair: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    plain = AccuracyPredictor.fit(
        SPACE,
        SPACE.decode(SPACE.sample_genomes(np.random.default_rng(0), 50)),
        np.linspace(0.6, 0.8, 50),
        hidden=(16,),
    )
    path = plain.save(Path(pair[1]).parent / "plain.safetensors")
    assert main([*pair, "--budget", "3ms", "--predictor", str(path), "--no-export"]) == 0
    assert "gives networks of all precisions the accuracy of fp32" in capfd.readouterr().err


def test_a_mixed_network_is_not_fine_tuned(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps(MIXED.smallest.to_json()))
    options = ["--architecture", str(path), "--supernet", "cifar-mbv3", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert train(["subnet", *options]) == 2
    assert "is of mixed precision, but training is in float32" in capfd.readouterr().err


@pytest.mark.long
def test_a_mixed_network_keeps_the_budget_when_measured(
    pair: list[str], predictor: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*pair, "--predictor", predictor, "--verify", "local", "--out", str(tmp_path)]
    (result,) = searched(capfd, *options, "--budget", "6ms")
    assert 0 < result["measured_latency_ms"]["pi-fp32+pi-int8"] <= 6
    assert result["precisions"] == MIXED.precisions(Architecture.from_json(result["architecture"]))
