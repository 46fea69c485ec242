"""Many goals in one command: `--per-device`, `--fleet`, and the files of a front."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.tables.table import Row
from ofa_search.cli.search import main

SPACE = get_space("cifar-mbv3")
QUICK = ("--predictor", "macs", "--engine", "random", "--evaluations", "200")


def save_table(path: Path, factor: float, **metadata: Any) -> Path:
    """A table whose ops take their MACs, times a factor and a little noise of each kind of block."""
    rng = random.Random(path.stem)
    own = {op.key: rng.uniform(0.9, 1.1) for op in SPACE.unique_ops([28])}
    rows = tuple(
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[factor * own[op.key] * (op.macs / 1e6 + 0.05)] * 3)
        for op in SPACE.unique_ops([28])
    )
    path.parent.mkdir(exist_ok=True)
    LatencyTable(path.stem, rows, {"spaces": [SPACE.name], **metadata}, path).save(path)
    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err.splitlines()

    return run


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    return [save_table(tmp_path / "tables" / f"device{n}.csv", factor) for n, factor in enumerate((1.0, 1.7, 0.6))]


def test_a_network_for_each_device(run: Any, tables: list[Path]) -> None:
    pairs = [word for table, budget in zip(tables, ("16ms", "20ms", "7ms"), strict=True)
             for word in ("--lut", table, "--budget", budget)]  # fmt: skip
    code, out, _ = run(*pairs, "--per-device", *QUICK, "--no-export", "--json")
    assert code == 0
    document = json.loads(out)
    assert list(document["devices"]) == ["device0", "device1", "device2"]
    assert [result["budget_ms"] for result in document["results"]] == [{"device0": 16}, {"device1": 20}, {"device2": 7}]
    for table, result in zip(tables, document["results"], strict=True):
        architecture = Architecture.from_json(result["architecture"])
        (ms,) = LatencyTable.load(table).predict_ms([architecture])
        assert ms == pytest.approx(result["latency_ms"][table.stem])
        assert ms <= result["budget_ms"][table.stem]
    together = run(*pairs, *QUICK, "--no-export", "--json")
    assert len(json.loads(together[1])["results"]) == 1, "without --per-device, one network keeps all"
    assert list(Path.cwd().glob("out*")) == []


def test_rows_of_a_family_share_a_network(run: Any, tables: list[Path], tmp_path: Path) -> None:
    lines = [
        "lut,budget,family",
        "device0.csv,16ms,phones",
        "device1.csv,20ms,phones",
        "device0.csv,9ms,",
        "device0.csv,12ms,",
    ]
    fleet = tmp_path / "tables" / "fleet.csv"
    fleet.write_text("\n".join(lines) + "\n")
    code, out, _ = run("--fleet", fleet, *QUICK, "--no-export", "--json")
    assert code == 0
    document = json.loads(out)
    assert list(document["devices"]) == ["phones", "device0-9ms", "device0-12ms"]
    assert document["results"][0]["budget_ms"] == {"device0": 16, "device1": 20}
    assert all(ms <= document["results"][0]["budget_ms"][name]
               for name, ms in document["results"][0]["latency_ms"].items())  # fmt: skip


def test_a_failure_is_one_line_and_the_others_go_on(run: Any, tables: list[Path], tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.csv"
    damaged = tmp_path / "damaged.csv"
    damaged.write_text("op,kind\nx,y\n")
    rows = [
        "damaged.csv,5ms",
        f"{tables[0]},16ms",
        f"{tables[1]},1us",
        "none.csv,5ms",
        f"{tables[2]},soon",
        f"{tables[2]},7ms",
    ]
    fleet.write_text("\n".join(["lut,budget", *rows]) + "\n")
    code, out, err = run("--fleet", fleet, *QUICK, "--no-export", "--out", "found")
    assert code == 2
    said = [line for line in err if line.startswith(("damaged: ", "device1: ", "none: ", "device2-soon: "))]
    assert len(said) == 4
    assert "attainable" in said[1]
    assert "2 of 6 devices have a network" in "\n".join(err)
    assert out.count("failed") == 4
    with Path("found", "fleet.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["exit_code"] for row in table] == ["2", "0", "3", "2", "2", "0"]
    assert [row["budget_ms"] for row in table] == ["5", "16", "0.001", "5", "soon", "7"]
    assert [bool(row["error"]) for row in table] == [True, False, True, True, True, False]
    assert {path.parent.name for path in Path("found").glob("*/search.json")} == {"device0", "device2-7ms"}


def test_only_budgets_that_are_too_small(run: Any, tables: list[Path]) -> None:
    pairs = ("--lut", tables[0], "--budget", "1us", "--lut", tables[1], "--budget", "20ms")
    code, _, err = run("--per-device", *pairs, *QUICK, "--no-export")
    assert code == 3
    assert sum(line.startswith("device0: ") for line in err) == 1


def test_each_device_says_why_if_all_fail(run: Any, tables: list[Path]) -> None:
    Path("fleet.csv").write_text(f"lut,budget\nnone.csv,5ms\n{tables[0]},1us\n")
    code, _, err = run("--fleet", "fleet.csv", *QUICK, "--no-export", "--out", "found")
    assert code == 2
    assert [line.partition(": ")[0] for line in err[:2]] == ["none", "device0"]
    with Path("found", "fleet.csv").open() as file:
        assert [row["exit_code"] for row in csv.DictReader(file)] == ["2", "3"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["table,budget", "a.csv,5ms"], "has no column 'lut'"),
        (["lut,budget"], "contains no row"),
        (["lut,budget", "a.csv,"], "row 2: lacks a budget"),
        (["lut,budget", ",5ms"], "row 2: lacks a lut"),
        (["lut,budget,budget", "a.csv,5ms,6ms"], "has 2 columns 'budget'"),
        (["lut,budget,family,family", "a.csv,5ms,x,y"], "has 2 columns 'family'"),
    ],
)
def test_mistakes_in_a_fleet(run: Any, tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "fleet.csv").write_text("\n".join(lines) + "\n")
    code, _, err = run("--fleet", "fleet.csv", *QUICK)
    assert (code, len(err)) == (2, 1)
    assert message in err[0]


def test_options_that_exclude_each_other(run: Any, tables: list[Path]) -> None:
    (Path.cwd() / "fleet.csv").write_text(f"lut,budget\n{tables[0]},5ms\n")
    pair = ("--lut", tables[0], "--budget", "7ms")
    for arguments, words in (
        (("--fleet", "fleet.csv", *pair), "leave out --lut"),
        ((*pair, "--per-device", "--pareto", "5ms:9ms:3"), "--pareto is for one goal"),
        ((*pair, "--per-device", "--verify", "local"), "--verify is for one goal"),
        ((*pair, "--lut", tables[1], "--per-device"), "2 --lut but 1 --budget"),
        ((*pair, "--per-device", "--max-macs", "many"), "--max-macs"),
    ):
        code, _, err = run(*arguments, *QUICK)
        assert (code, len(err)) == (2, 1), err
        assert words in err[0]


def test_an_interrupted_fleet_goes_on(run: Any, tables: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [word for table in tables for word in ("--lut", table, "--budget", "16ms")]
    command = (*pairs, "--per-device", *QUICK, "--no-export", "--out", "found", "--json")
    first = json.loads(run(*command)[1])
    times = {path: path.stat().st_mtime_ns for path in Path("found").glob("*/*.json")}
    Path("found", "device1", "search.json").unlink()
    code, out, _ = run(*command)
    again = json.loads(out)
    assert code == 0
    for result, before in zip(again["results"], first["results"], strict=True):
        assert result["architecture"] == before["architecture"]
    changed = {path.parent.name for path, ns in times.items() if path.stat().st_mtime_ns != ns}
    assert changed == {"device1"}
    save_table(tables[2], 0.5)  # measured again
    run(*command)
    changed = {path.parent.name for path, ns in times.items() if path.stat().st_mtime_ns != ns}
    assert changed == {"device1", "device2"}
    other = json.loads(run(*command, "--fix", "depth=2")[1])
    assert all(stage["depth"] == 2 for each in other["results"] for stage in each["architecture"]["stages"])


def test_models_are_in_the_folder_of_the_device(run: Any, tables: list[Path]) -> None:
    code, out, _ = run("--per-device", "--lut", tables[0], "--budget", "16ms", *QUICK, "--out", "found", "--json")
    assert code == 0
    (result,) = json.loads(out)["results"]
    assert {Path(path).parent for path in result["files"].values()} == {Path("found/device0")}
    assert all(Path(path).is_file() for path in result["files"].values())


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_a_large_fleet(run: Any, tmp_path: Path, count: int) -> None:
    """Tables of one space, budgets anywhere; each network keeps its own."""
    rng = np.random.default_rng(count)
    made = [save_table(tmp_path / "tables" / f"d{n}.csv", float(rng.uniform(0.3, 3))) for n in range(4)]
    budgets = rng.uniform(0.2, 0.9, count)
    costs = [LatencyTable.load(path).cost(SPACE.with_resolutions([28])) for path in made]
    ends = [(cost.minimum()[0], cost.maximum()[0]) for cost in costs]
    rows = []
    for number, share in enumerate(budgets):
        low, high = ends[number % 4]
        rows.append(f"tables/d{number % 4}.csv,{low + share * (high - low):.4f}ms")
    (tmp_path / "fleet.csv").write_text("\n".join(["lut,budget", *rows]) + "\n")
    code, out, _ = run("--fleet", "fleet.csv", *QUICK, "--no-export", "--json")
    assert code == 0
    results = json.loads(out)["results"]
    assert len(results) == count
    for number, result in enumerate(results):
        name = f"d{number % 4}"
        assert result["latency_ms"][name] <= result["budget_ms"][name]
        assert f"{result['budget_ms'][name]:.4f}ms" == rows[number].split(",")[1]


def test_the_files_of_a_front(run: Any, tables: list[Path]) -> None:
    code, out, _ = run("--lut", tables[0], "--pareto", "8ms:20ms:5", *QUICK, "--no-export", "--out", "found", "--json")
    assert code == 0
    results = json.loads(out)["results"]
    with Path("found", "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["latency_ms"]) for row in rows] == [result["latency_ms"]["device0"] for result in results]
    assert [json.loads(row["architecture"]) for row in rows] == [result["architecture"] for result in results]
    macs = [result["macs"] for result in results]
    assert macs == sorted(set(macs))
    assert Path("found", "front.png").read_bytes().startswith(b"\x89PNG")
