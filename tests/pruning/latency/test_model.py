"""The latency model with a device that answers at once: what is measured, kept, and chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from support.cut_nets import ResidualNet, cut_parameters, residual_dependencies

from ofa_profiler.devices.fake import FakeDevice
from ofa_profiler.errors import InfeasibleError, InputFileError, OverBudgetError, UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.table import LatencyTable
from ofa_search.pruning.groups import Dependencies
from ofa_search.pruning.latency.budget import keep_budget
from ofa_search.pruning.latency.chooser import MacsChooser, chooser
from ofa_search.pruning.latency.exporters import EXPORTERS
from ofa_search.pruning.latency.model import LatencyModel, measured_model, model_of_table
from ofa_search.pruning.latency.onnx_files import OnnxFiles
from ofa_search.pruning.latency.slots import Blocks, find_places
from ofa_search.pruning.latency.space import Place, parse_key

SHAPES = ["1x3x16x16"]
SETTINGS = Settings()


@pytest.fixture(scope="module")
def net() -> ResidualNet:
    return ResidualNet((32, 64), depth=1).eval()


@pytest.fixture(scope="module")
def dependencies(net: ResidualNet) -> Dependencies:
    return residual_dependencies(net)


@pytest.fixture(scope="module")
def exporter(net: ResidualNet, dependencies: Dependencies) -> OnnxFiles:
    """Its rules are learned once for all tests."""
    found = OnnxFiles(net, dependencies, SHAPES, cut_parameters)
    found.model({})
    return found


@pytest.fixture(scope="module")
def places(exporter: OnnxFiles, dependencies: Dependencies) -> tuple[Place, ...]:
    return find_places(Blocks(exporter, this_machine=False), dependencies.groups)


@pytest.fixture(autouse=True)
def _one_exporter(exporter: OnnxFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPORTERS, "onnxruntime", lambda *_: exporter)  # type: ignore[call-overload]


def block_ms(units: tuple[int, ...]) -> float:
    """A staircase of 16 channels."""
    steps = [-(-n // 16) * 16 for n in units]
    return 0.02 + 1e-3 * sum(steps) + 1e-4 * sum(n * m for n, m in combinations(steps, 2))


@pytest.fixture(scope="module")
def device(places: tuple[Place, ...], dependencies: Dependencies) -> Callable[[float], FakeDevice]:
    """A device on which networks take `scale` times the sum of their blocks."""
    names = [group.name for group in dependencies.groups]

    def made(scale: float) -> FakeDevice:
        def latency_ms(key: str) -> float:
            template, units = parse_key(key)
            if template != "network":
                return block_ms(units)
            counts = dict(zip(names, units, strict=True))
            return scale * sum(block_ms(tuple(counts[group] for group in place.groups)) for place in places)

        return FakeDevice(latency_ms, noise=0.001)

    return made


@pytest.fixture
def measure(
    net: ResidualNet, dependencies: Dependencies, device: Callable[[float], FakeDevice], tmp_path: Path
) -> Callable[..., LatencyModel]:
    def run(scale: float = 1.0, **how: object) -> LatencyModel:
        out = {"cache_dir": tmp_path / "cache", **how}
        return measured_model(net, dependencies, SHAPES, cut_parameters, device(scale), SETTINGS, tmp_path, **out)  # type: ignore[arg-type]

    return run


@pytest.fixture
def saliencies(dependencies: Dependencies) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {group.name: rng.exponential(1.0, group.n_units) for group in dependencies.groups}


def test_predictions_follow_the_staircase(measure: Callable[..., LatencyModel]) -> None:
    model = measure(1.1)
    assert model.grid.correction.scale == pytest.approx(1.1, rel=0.02)
    rng = np.random.default_rng(2)
    counts = [model.space.counts(genome) for genome in model.space.sample_genomes(rng, 10)]
    measured, _ = model.measure_networks(counts)
    errors = [model.predicted_ms(each) / ms - 1 for each, ms in zip(counts, measured, strict=True)]
    assert np.abs(errors).mean() < 0.01
    measured_points, every = model.grid.n_points
    assert measured_points < every


def test_macs_are_exact(measure: Callable[..., LatencyModel]) -> None:
    model = measure()
    for genome in model.space.sample_genomes(np.random.default_rng(4), 5):
        macs = sum(block.macs for block in model.network(model.space.counts(genome)).blocks)
        assert model.grid.macs.evaluate(genome[np.newaxis])[0] == pytest.approx(macs, rel=1e-9)


def test_all_points_of_a_choice_are_measured(
    measure: Callable[..., LatencyModel], saliencies: dict[str, np.ndarray]
) -> None:
    model = measure()
    choice = model.choose(saliencies, 0.6 * model.whole_ms, exactly=True)
    assert model.grid.missing(model.space.counts(choice.genome)) == []
    assert choice.cost <= 0.6 * model.whole_ms
    assert choice.gap < 0.1
    again = measure()  # the further points are read from their journals
    assert again.grid.points == model.grid.points
    assert again.grid.correction == model.grid.correction


def test_a_table_is_used_again(
    measure: Callable[..., LatencyModel], dependencies: Dependencies, saliencies: dict[str, np.ndarray], tmp_path: Path
) -> None:
    model = measure()
    table = model_of_table(dependencies, SHAPES, tmp_path / "pruning.csv")
    assert table.grid.points.keys() == model.grid.points.keys()
    assert table.whole_ms == pytest.approx(model.whole_ms, rel=1e-9)
    choice = table.choose(saliencies, 0.6 * table.whole_ms)
    assert table.grid.missing(table.space.counts(choice.genome)) == []
    decision = keep_budget(table, saliencies, 0.6 * table.whole_ms)
    assert decision.measured_ms is None
    assert decision.predicted_ms <= decision.budget_ms
    assert LatencyTable.load(tmp_path / "pruning.csv").rows
    with pytest.raises(InputFileError, match="of another network"):
        model_of_table(dependencies, ["1x3x32x32"], tmp_path / "pruning.csv")


def test_an_interrupted_measurement_is_resumed(measure: Callable[..., LatencyModel]) -> None:
    visits = 0

    def interrupt(_: object) -> None:
        nonlocal visits
        visits += 1
        if visits > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(progress=interrupt)
    model = measure()
    assert model.design_replay is not None
    assert len(model.design_replay.devices) == 2
    assert model.grid.missing(model.space.counts(model.space.full)) == []


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.25])
def test_the_budget_is_kept_when_measured(
    measure: Callable[..., LatencyModel],
    device: Callable[[float], FakeDevice],
    saliencies: dict[str, np.ndarray],
    scale: float,
) -> None:
    model = measure()
    assert model.measuring is not None
    budget_ms = 0.6 * model.whole_ms
    model.measuring = replace(model.measuring, device=device(scale))  # faster or slower than it was
    decision = keep_budget(model, saliencies, budget_ms)
    assert decision.measured_ms is not None
    assert 0.85 * budget_ms < decision.measured_ms <= budget_ms
    assert decision.rounds <= 4


def test_a_device_that_became_too_slow(
    measure: Callable[..., LatencyModel], device: Callable[[float], FakeDevice], saliencies: dict[str, np.ndarray]
) -> None:
    model = measure()
    assert model.measuring is not None
    model.measuring = replace(model.measuring, device=device(50.0))
    with pytest.raises(OverBudgetError, match=r"no pruned network keeps .*ms when measured") as caught:
        keep_budget(model, saliencies, 0.6 * model.whole_ms)
    assert caught.value.exit_code == 5


def test_the_chooser_goes_to_the_budget(
    measure: Callable[..., LatencyModel], saliencies: dict[str, np.ndarray], dependencies: Dependencies
) -> None:
    model = measure()
    choose = chooser(model, 0.5 * model.whole_ms)
    sizes = []
    for share in (0.0, 0.5, 1.0):
        kept = choose(saliencies, share)
        assert kept.keys() == dependencies.by_name.keys()
        assert all((np.diff(units) > 0).all() for units in kept.values())
        sizes.append(sum(map(len, kept.values())))
    assert sizes[0] == sum(group.n_units for group in dependencies.groups)
    assert sizes[0] > sizes[1] > sizes[2]
    assert choose.decision is not None
    by_macs = MacsChooser(model, 0.5 * model.grid.macs.maximum()[0])(saliencies, 1.0)
    counts = {group: len(units) for group, units in by_macs.items()}
    macs = model.grid.macs
    assert macs.evaluate(model.space.genome(counts)[np.newaxis])[0] <= 0.5 * macs.maximum()[0]
    with pytest.raises(InfeasibleError, match="attainable: "):
        chooser(model, 0.01)


def test_what_is_refused(net: ResidualNet, dependencies: Dependencies, tmp_path: Path) -> None:
    settings = replace(SETTINGS, target=Target(precision="int8"))
    with pytest.raises(UsageError, match="fp32"):
        measured_model(net, dependencies, SHAPES, cut_parameters, FakeDevice(), settings, tmp_path)
