"""The tables that the OFA authors publish: the same milliseconds as their code, there and back again."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler import LatencyTable, get_space, space_names
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.tables.ofa_files import parse_op
from ofa_profiler.tables.table import Row

SPACE = get_space("ofa-mbv3-w1.2")
KEY = "expanded_conv-input:112x112x24-output:56x56x32-expand:144-kernel:3-stride:2-idskip:0-se:0-hs:0"


@pytest.fixture(scope="module")
def note10(shared_dir) -> Path:
    return shared_dir / "data" / "ofa" / "note10"


def architectures(table: LatencyTable, count: int, seed: int = 0):
    space = SPACE.with_resolutions(table.resolutions(SPACE))
    return space.decode(space.sample_genomes(np.random.default_rng(seed), count))


# --- keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", space_names())
def test_keys_of_the_spaces_are_read_back(name):
    space = get_space(name)
    ops = space.unique_ops(space.valid_resolutions)
    family = "proxyless" if "proxyless" in name else "mobilenetv3"
    assert all(parse_op(op.key, family=family) == op for op in ops)


sizes = st.integers(1, 4096)


@given(st.builds(block_op, st.just("mbconv"), st.tuples(sizes, sizes, sizes), st.tuples(sizes, sizes, sizes),
                 kernel_size=sizes, mid_channels=sizes, stride=sizes, skip=st.booleans(), se=st.booleans(),
                 activation=st.sampled_from(["relu", "h_swish"])))  # fmt: skip
def test_any_block_is_read_back(op):
    assert parse_op(op.key) == op


@given(st.text() | st.text(alphabet="Conv_12expanded-input:output:0123456789xstrideidskipsehs", max_size=90))
def test_anything_else_is_refused(text):
    try:
        assert parse_op(text).key == text
    except ValueError as error:
        assert "not the key of an op" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "key",
    [
        "",
        KEY + " ",
        KEY.replace("idskip:0", "idskip:2"),
        KEY.replace("kernel:3", "kernel:03"),
        KEY.replace("112x112x24", "112x112"),
        KEY.replace("expanded_conv", "Conv"),
        KEY.replace("expanded_conv", "Conv_9"),
        KEY.split("-expand")[0],
        "Logits-input:1x1x1536-output:1x1x1000",
        "AvgPool2D-input:5x5x1152-output:1152",
        "Conv-input:٢٢٤x224x3-output:112x112x24",
    ],
)
def test_bad_keys(key):
    with pytest.raises(ValueError, match="not the key of an op"):
        parse_op(key)


# --- the published milliseconds -------------------------------------------------------------------------


def test_loads(note10):
    table = LatencyTable.load(note10)
    assert table.name == "note10"
    assert table.spaces == ("ofa-mbv3-w1.2",)
    assert table.resolutions(SPACE) == tuple(range(160, 225, 4))
    assert table.statistic == "mean_ms"
    assert table.warnings == []
    assert {(row.batch, row.precision, row.median_ms, row.status) for row in table.rows} == {(None, "", None, "ok")}
    assert LatencyTable.load(f"{note10}/../note10/.").name == "note10"


def test_is_the_sum_of_the_means_of_its_own_resolution(note10):
    table = LatencyTable.load(note10)
    files = {r: yaml.safe_load((note10 / f"{r}_lookup_table.yaml").read_text()) for r in (160, 172, 224)}
    chosen = [a for a in architectures(table, 400) if a.resolution in files]
    assert {a.resolution for a in chosen} == set(files)
    expected = [sum(files[a.resolution][op.key]["mean"] for op in SPACE.ops(a)) for a in chosen]
    np.testing.assert_allclose(table.predict_ms(chosen), expected, rtol=1e-12)
    # The classifier is in every file, with other means.
    classifier = SPACE.ops(chosen[0])[-1]
    assert table.latency_ms(classifier, 160) == files[160][classifier.key]["mean"]
    assert table.latency_ms(classifier, 160) != table.latency_ms(classifier, 224)
    with pytest.raises(UsageError, match="choose one by"):
        table.latency_ms(classifier)


def test_equals_the_published_code(note10, monkeypatch):
    """`LatencyEstimator` of PyPI's `ofa`; its module is loaded alone, without the downloads and torch around it."""
    pytest.importorskip("ofa", reason="needs the reference code, PyPI's `ofa`")
    folder = importlib.util.find_spec("ofa").submodule_search_locations[0]
    source = Path(folder) / "tutorial" / "latency_table.py"
    spec = importlib.util.spec_from_file_location("published_latency_table", source)
    utils = types.ModuleType("ofa.utils")
    utils.download_url = None
    monkeypatch.setitem(sys.modules, "ofa.utils", utils)
    load = yaml.load
    monkeypatch.setattr(yaml, "load", lambda stream: load(stream, Loader=yaml.SafeLoader))  # it gives no loader
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)

    table = LatencyTable.load(note10)
    resolutions = (160, 164, 192, 220)
    chosen = [a for a in architectures(table, 600, seed=1) if a.resolution in resolutions]
    estimators = {r: reference.LatencyEstimator(url=str(note10 / f"{r}_lookup_table.yaml")) for r in resolutions}
    expected = []
    for a in chosen:
        padded = {"r": [a.resolution], "d": [], "ks": [], "e": []}
        for stage in a.stages:
            padded["d"].append(stage.depth)
            padded["ks"] += [*stage.kernel_sizes, *[3] * (4 - stage.depth)]
            padded["e"] += [*stage.expand_ratios, *[3] * (4 - stage.depth)]
        expected.append(estimators[a.resolution].predict_network_latency_given_spec(padded))
    assert len(expected) > 100
    np.testing.assert_allclose(table.predict_ms(chosen), expected, rtol=1e-12)
    space = SPACE.with_resolutions(resolutions)
    np.testing.assert_allclose(table.cost(space).evaluate(space.encode(chosen)), expected, rtol=1e-12)


def test_travels_both_ways(note10, tmp_path):
    """Published -> CSV -> published: the same predictions on the way, and the same files at the end."""
    table = LatencyTable.load(note10)
    chosen = architectures(table, 200)
    table.save(tmp_path / "phone.csv")
    ours = LatencyTable.load(tmp_path / "phone.csv")
    assert ours.rows == table.rows
    np.testing.assert_array_equal(ours.predict_ms(chosen), table.predict_ms(chosen))
    ours.save_published(tmp_path / "again")
    for path in note10.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_json_files(note10, tmp_path):
    for r in (160, 224):
        table = yaml.safe_load((note10 / f"{r}_lookup_table.yaml").read_text())
        (tmp_path / f"{r}_lookup_table.json").write_text(json.dumps(table))
    (tmp_path / "README.md").write_text("not a table")
    table = LatencyTable.load(tmp_path)
    assert table.resolutions(SPACE) == (160, 224)
    chosen = architectures(table, 50)
    np.testing.assert_array_equal(table.predict_ms(chosen), LatencyTable.load(note10).predict_ms(chosen))
    with pytest.raises(UsageError, match=r"at 160, 224"):
        table.cost(SPACE)


# --- our tables as published ones -----------------------------------------------------------------------


def own_table(space_name: str, seed: int = 0) -> LatencyTable:
    rng = np.random.default_rng(seed)
    ops = get_space(space_name).unique_ops()
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=rng.uniform(0.1, 1, 5)) for op in ops]
    return LatencyTable("own", tuple(rows))


def test_own_table_is_written_as_published(tmp_path):
    table = own_table("cifar-mbv3")
    table.save_published(tmp_path / "own")
    assert {p.name for p in (tmp_path / "own").iterdir()} == {f"{r}_lookup_table.yaml" for r in (24, 28, 32)}
    published = LatencyTable.load(tmp_path / "own")
    assert published.spaces == table.spaces == ("cifar-mbv3",)
    means = {row.op: row.mean_ms for row in table.rows}
    assert {row.op: row.mean_ms for row in published.rows} == means
    with pytest.raises(UsageError, match="already contains"):
        table.save_published(tmp_path / "own")


def test_what_the_published_format_cannot_hold(tmp_path):
    table = own_table("cifar-mbv3")
    op = table.rows[10].to_op()
    failed = Row.failed(op, batch=1, precision="fp32", error="no memory")
    for rows, problem in (
        ((*table.rows[:10], failed, *table.rows[11:]), f"{failed.op} lacks a mean"),
        (table.rows[1:], "belongs to no resolution"),
    ):
        with pytest.raises(UsageError, match=problem):
            LatencyTable("own", rows).save_published(tmp_path / "own")
        assert not (tmp_path / "own").exists()


# --- bad files ------------------------------------------------------------------------------------------

GOOD = f"{KEY}:\n  count: 10\n  mean: 0.5\n  std: 0.01\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "row 1: is not a published table"),
        ("just words", "row 1: is not a published table"),
        ("- a\n- b\n", "row 1: is not a published table"),
        ("{}", "contains no op"),
        (GOOD + "a: [", "row 5: 'a' must be followed"),
        ("a: {", "row [12]: is not YAML"),
        (GOOD + "foo:\n  count: 1\n", "row 5: 'foo' is not the key of an op"),
        (GOOD + "? [a]\n: b\n", "row 5: is not the key of an op"),
        (GOOD + GOOD, "row 5: .*listed twice, first in row 1"),
        (GOOD + "---\n" + GOOD, "must contain one table"),
        (GOOD.replace("0.5", "fast"), "row 1: .*mean: 'fast' is not a number"),
        (GOOD.replace("0.5", "-0.5"), "mean: '-0.5' is not a time above zero"),
        (GOOD.replace("0.5", "0"), "mean: '0' is not a time above zero"),
        (GOOD.replace("0.5", ".nan"), "mean: '.nan' is not a number"),
        (GOOD.replace("0.5", ".inf"), "mean: '.inf' is not a number"),
        (GOOD.replace("0.5", "1e999"), "mean: '1e999' is not a number"),
        (GOOD.replace("0.5", "[1]"), "row 3: .*must be followed by its count, mean and std"),
        (GOOD.replace("0.01", "-1"), "std: '-1' is below zero"),
        (GOOD.replace("10", "2.5"), "count: '2.5' is not a whole number"),
        (GOOD.replace("10", "0"), "count: '0' is not at least 1"),
        (GOOD.replace("mean", "median"), f"{KEY}: lacks 'mean'"),
        ("!!python/object/apply:os.getcwd []", "is not a published table"),
        ("[" * 100_000, "is not a published table"),
        ("{a: " * 100_000, "must be followed"),
        (GOOD + "\x01", "is not YAML"),
    ],
)
@pytest.mark.parametrize("c_loader", [True, False])
def test_bad_yaml(tmp_path, text, problem, c_loader, monkeypatch):
    if not c_loader:
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    path = tmp_path / "224_lookup_table.yaml"
    path.write_text(text)
    with pytest.raises(InputFileError, match=problem) as caught:
        LatencyTable.load(tmp_path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("[]", "is not a published table"),
        ("{}", "contains no op"),
        ('{"a": 1}', "'a' must be followed by its count, mean and std"),
        ('{"a": {}, "a": {}}', "'a' twice"),
        (f'{{"{KEY}": {{"count": 1, "mean": NaN, "std": 0}}}}', "NaN"),
        (f'{{"{KEY}": {{"count": 1, "mean": 1e999, "std": 0}}}}', "mean: 'inf' is not a number"),
        (f'{{"{KEY}": {{"count": 1, "mean": true, "std": 0}}}}', "mean: 'True' is not a number"),
        (f'{{"{KEY}": {{"count": 1, "mean": "0.5", "std": 0}}}}', "is not a number"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_json(tmp_path, text, problem):
    path = tmp_path / "224_lookup_table.json"
    path.write_text(text)
    with pytest.raises(InputFileError, match=problem) as caught:
        LatencyTable.load(tmp_path)
    assert str(caught.value).startswith(str(path))


def test_bad_folders(tmp_path):
    (tmp_path / "NNN_lookup_table.yaml").write_text(GOOD)
    with pytest.raises(InputFileError, match="contains no published tables"):
        LatencyTable.load(tmp_path)
    (tmp_path / "224_lookup_table.yaml").write_text(GOOD)
    with pytest.raises(InputFileError, match="give its folder"):
        LatencyTable.load(tmp_path / "224_lookup_table.yaml")
    (tmp_path / "224_lookup_table.json").write_text("{}")
    with pytest.raises(InputFileError, match="second table for resolution 224"):
        LatencyTable.load(tmp_path)
