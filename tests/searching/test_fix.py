"""Searches with fixed choices, through the tables, predictors and bounds that users have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.errors import InfeasibleError
from ofa_search import AccuracyPredictor, Macs, search
from ofa_search.artifacts.shipped import shipped_predictor
from ofa_search.cli.search import main
from ofa_search.searching.engines.exact import Exact

SPACE = get_space("cifar-mbv3")
TABLES = [ROOT / "latency_tables" / f"epyc-cifar-mbv3-onnxruntime-{name}-t1.csv" for name in ("fp32", "int8")]


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return LatencyTable.load(TABLES[0])


@pytest.fixture(scope="module")
def predictor() -> AccuracyPredictor:
    path = shipped_predictor(SPACE.name)
    assert path is not None
    return AccuracyPredictor.load(path)


def almost_all_fixed(seed: int) -> tuple[Architecture, dict[str, float]]:
    """All choices of a network but a few kernel sizes."""
    architecture = SPACE.sample(np.random.default_rng(seed))
    genome = SPACE.encode([architecture])[0]
    fixed = {gene.name: gene.choices[index] for gene, index in zip(SPACE.genes, genome, strict=True)}
    return architecture, {name: value for name, value in fixed.items() if not re.match(r"stage[12].*kernel", name)}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_result_is_the_best_of_those_that_are_left(
    table: LatencyTable, predictor: AccuracyPredictor, seed: int
) -> None:
    """Without a budget that matters, all but some kernel sizes are fixed: these can be listed."""
    architecture, fixed = almost_all_fixed(seed)
    rng = np.random.default_rng(0)
    others = SPACE.sample_genomes(rng, 3000)
    free = [i for i, gene in enumerate(SPACE.genes) if gene.name not in fixed]
    genomes = np.repeat(SPACE.encode([architecture]), len(others), axis=0)
    genomes[:, free] = rng.integers(0, SPACE.n_choices[free], (len(others), len(free)))
    networks = SPACE.decode(np.unique(SPACE.canonical(genomes), axis=0))
    budget = float(np.median(table.predict_ms(networks)))
    best = max(a for a, ms in zip(predictor.predict(networks), table.predict_ms(networks), strict=True) if ms <= budget)
    found = search(SPACE, [(table, budget)], predictor, fix=fixed, engine=Exact(seconds=3.0))
    assert predictor.predict([found.architecture])[0] >= best - 1e-6
    assert found.architecture.resolution == architecture.resolution
    assert found.bound is not None
    assert found.bound >= best - 1e-6


def test_one_network_is_left(table: LatencyTable, predictor: AccuracyPredictor) -> None:
    architecture = SPACE.sample(np.random.default_rng(5))
    genome = SPACE.encode([architecture])[0]
    fixed = {gene.name: gene.choices[index] for gene, index in zip(SPACE.genes, genome, strict=True)}
    for objective in (predictor, Macs()):
        found = search(SPACE, [(table, 100.0)], objective, fix=fixed)
        assert found.architecture == architecture
        assert found.is_optimal
    with pytest.raises(InfeasibleError, match="attainable"):
        search(SPACE, [(table, 0.001)], predictor, fix=fixed)


@pytest.mark.slow
def test_in_mixed_precision_with_other_limits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair = [word for path in TABLES for word in ("--lut", str(path))]
    limits = ["--budget", "0.4ms", "--max-size", "1.5MB", "--max-macs", "20M", "--confidence", "0.9"]
    fix = ["--fix", "resolution=24,28", "--fix", "depth=2,3", "--fix", "stage1.block0.kernel_size=5"]
    assert main([*pair, "--precision", "mixed", *limits, *fix, "--engine", "random", "--no-export", "--json"]) == 0
    (result,) = json.loads(capfd.readouterr().out)["results"]
    architecture = result["architecture"]
    assert architecture["resolution"] in (24, 28)
    assert all(stage["depth"] in (2, 3) for stage in architecture["stages"])
    assert architecture["stages"][1]["kernel_sizes"][0] == 5
    assert result["gap"] is not None
    assert result["macs"] <= 20e6
    assert next(iter(result["latency_interval_ms"].values()))[1] <= 0.4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix", "size=3"], "--fix: space cifar-mbv3 has no choice 'size'; it has resolution, depth"),
        (["--fix", "resolution=1"], "--fix: resolution cannot be 1; it can be"),
        (["--fix", "resolution"], "--fix 'resolution' is not CHOICE=VALUE"),
        (["--fix", "depth=2", "--fix", "depth=3"], "--fix depth is given twice"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["--lut", str(TABLES[0]), "--budget", "1ms", "--no-export", *arguments])
    lines: list[Any] = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]
