"""The table of BatchNorm statistics: exact where it should be, complete, and the same by any number of files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.torch_modules import to_weights
from ofa_profiler.spaces import SearchSpace, space_names
from ofa_search.data.images import Images
from ofa_search.evaluation.bn_statistics import measure_statistics, plan_subnets
from ofa_search.evaluation.subnets import calibrated
from ofa_search.evaluation.world import World
from ofa_search.supernet.bn_statistics import StatisticsSum, StatisticsTable, covered
from ofa_search.supernet.supernet import Supernet, load_trained, save_supernet

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return get_space("cifar-mbv3")


@pytest.fixture(scope="module")
def supernet(space: SearchSpace) -> Supernet:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Supernet(space).eval()


@pytest.fixture(scope="module")
def images() -> Images:
    pixels = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Images("noise", pixels, torch.zeros(16, dtype=torch.int64), ("one",))


def statistics(supernet: Supernet, architecture: Architecture, by: Images | StatisticsTable) -> dict[str, np.ndarray]:
    weights = to_weights(calibrated(supernet, architecture, by))
    return {name: array for name, array in weights.items() if "running" in name}


def test_of_one_subnet_the_table_gives_back_what_was_measured(supernet: Supernet, images: Images) -> None:
    largest = supernet.space.largest
    table = measure_statistics(supernet, images, ALONE, [largest])
    ours, theirs = statistics(supernet, largest, table), statistics(supernet, largest, images)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_channels_of_an_expansion_do_not_depend_on_how_many_there_are(supernet: Supernet, images: Images) -> None:
    """The claim that the keys rest on: measured on the widest first block, looked up for the narrowest."""
    wide = supernet.space.largest
    first = wide.stages[0]
    narrow_stage = dataclasses.replace(first, expand_ratios=(3, *first.expand_ratios[1:]))
    narrow = dataclasses.replace(wide, stages=(narrow_stage, *wide.stages[1:]))
    table = measure_statistics(supernet, images, ALONE, [wide])
    measured = statistics(supernet, narrow, images)
    for layer in ("inverted_bottleneck", "depth_conv"):
        for position, field in enumerate(("running_mean", "running_var")):
            name = f"stage0_block0.{layer}"
            key = next(key for key, _ in covered(supernet.space.layout(narrow)) if key.startswith(name + "|"))
            looked_up = table.entries[key][position]
            expected = measured[f"{name}.bn.{field}"]
            np.testing.assert_allclose(looked_up[: len(expected)], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_plan_covers_every_architecture(space: SearchSpace) -> None:
    plan = plan_subnets(space, enough=1, least=1)
    assert plan == plan_subnets(space, enough=1, least=1)
    gathered = StatisticsSum()
    for architecture in plan:
        layout = space.layout(architecture)
        gathered.add(layout, made_up(space, architecture))
    table = gathered.table()
    for architecture in space.decode(space.sample_genomes(np.random.default_rng(5), 200)):
        weights = table.applied(space.layout(architecture), made_up(space, architecture))
        assert all(np.isfinite(array).all() for array in weights.values())


def made_up(space: SearchSpace, architecture: Architecture) -> dict[str, np.ndarray]:
    from ofa_profiler.networks.made_up_weights import random_weights

    return dict(random_weights(space.layout(architecture), np.random.default_rng(0)))


@pytest.mark.parametrize("name", space_names())
def test_sums_of_parts_are_the_sum_of_the_whole(name: str) -> None:
    space = get_space(name)
    architectures = [space.smallest, space.largest, space.sample(np.random.default_rng(2))]
    whole, parts = StatisticsSum(), []
    for architecture in architectures:
        layout, weights = space.layout(architecture), random_weights_of(space, architecture)
        part = StatisticsSum()
        for each in (whole, part):
            each.add(layout, weights)
        parts.append(part)
    merged = parts[0].merged(parts[1:]).table().entries
    for key, entry in whole.table().entries.items():
        np.testing.assert_allclose(merged[key], entry, rtol=1e-6)
    assert merged.keys() == whole.table().entries.keys()


def random_weights_of(space: SearchSpace, architecture: Architecture) -> dict[str, np.ndarray]:
    from ofa_profiler.networks.made_up_weights import random_weights

    return dict(random_weights(space.layout(architecture), np.random.default_rng(architecture.resolution)))


def test_what_a_table_does_not_know_is_said(supernet: Supernet, images: Images) -> None:
    table = measure_statistics(supernet, images, ALONE, [supernet.space.smallest])
    with pytest.raises(UsageError, match=r"no BatchNorm statistics for .*resolution 32"):
        calibrated(supernet, supernet.space.largest, table)


def test_it_travels_in_the_file_of_the_supernet(supernet: Supernet, images: Images, tmp_path: Path) -> None:
    table = measure_statistics(supernet, images, ALONE, [supernet.space.largest])
    trained = load_trained(save_supernet(supernet, tmp_path / "net", calibration=table))
    assert isinstance(trained.calibration, StatisticsTable)
    assert trained.calibration.entries.keys() == table.entries.keys()
    for key, entry in table.entries.items():
        np.testing.assert_array_equal(trained.calibration.entries[key], entry)


@pytest.mark.parametrize("entry", [np.zeros((3, 4)), np.array([[0.0], [-1.0]]), np.full((2, 4), np.nan), np.zeros(2)])
def test_a_damaged_table_is_refused(supernet: Supernet, entry: np.ndarray, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = save_supernet(supernet, tmp_path / "net")
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path) | {"statistics.stem": torch.from_numpy(entry).float()}
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputFileError, match="not means and variances"):
        load_trained(path)
