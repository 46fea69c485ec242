"""The table of ranges that a supernet carries: complete for every subnet, close to their own ranges, safe to read."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support.int8 import fast_forms, snr_db
from support.tflite_files import run
from torch import distributed

from ofa_profiler import get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.export import get_exporter
from ofa_profiler.export.calibration import calibrate
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.ranges import MADE_UP, TABLE, Ranges, check_ranges, made_up_ranges
from ofa_profiler.networks.tensors import Span
from ofa_profiler.protocol.target import Target
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.data.images import Images
from ofa_search.evaluation.ranges import measure_range_table, measure_ranges, plan_range_subnets
from ofa_search.evaluation.world import World
from ofa_search.supernet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from ofa_search.supernet.description import METADATA_KEY, read_description

SPACE = get_space("cifar-mbv3")
ALONE = World(0, 1, torch.device("cpu"))


@cache
def read_shipped() -> Checkpoint:
    path = shipped_supernet(SPACE.name)
    assert path is not None
    return read_checkpoint(path)


@pytest.fixture
def shipped() -> Checkpoint:
    return read_shipped()


@pytest.fixture(scope="module")
def images() -> Images:
    """Blurred noise, whose neighbouring pixels are alike as in photos."""
    noise = torch.rand(16, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    pixels = torch.nn.functional.interpolate(noise, (32, 32), mode="bicubic").clamp(0, 1)
    return Images("noise", (255 * pixels).to(torch.uint8), torch.zeros(16, dtype=torch.int64), ("one",))


def graph_of(architecture: Architecture):
    return as_graph(SPACE.layout(architecture))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_shipped_table_has_every_tensor_of_every_subnet(seed: int) -> None:
    ranges = read_shipped().ranges
    assert ranges is not None
    check_ranges(graph_of(SPACE.sample(np.random.default_rng(seed))), ranges)


def test_the_shipped_table_has_the_tensors_inside_forms(shipped: Checkpoint) -> None:
    """The largest subnet has all layers with all their forms."""
    assert shipped.ranges is not None
    assert shipped.ranges.source == TABLE
    assert read_description(shipped_supernet(SPACE.name)).json["ranges"]["subnets"] == 24  # type: ignore[arg-type]
    graph = graph_of(SPACE.largest)
    x = np.zeros((1, 3, 32, 32), np.float32)
    own = calibrate(graph, shipped.weights(SPACE.largest), lambda: [x])
    assert own.spans.keys() == shipped.ranges.spans.keys()


def test_int8_with_the_table_is_closer_to_float32_than_with_made_up_ranges(shipped: Checkpoint, images: Images) -> None:
    """The runtime alone runs the models. These images are not like those of the table."""
    architecture = SPACE.sample(np.random.default_rng(3))
    graph, weights = graph_of(architecture), shipped.weights(architecture)
    fp32, int8 = Target("litert"), Target("litert", "int8")
    size = architecture.resolution
    pixels = torch.nn.functional.interpolate(images.pixels.float(), (size, size), mode="area").numpy() / 255
    steps = SPACE.preprocessing
    x = ((pixels.transpose(0, 2, 3, 1) - np.float32(steps.mean)) / np.float32(steps.std)).astype(np.float32)

    def logits(target: Target, ranges: Ranges | None) -> np.ndarray:
        exporter, forms = get_exporter(target), fast_forms(target, graph)
        data = exporter.build(graph, weights, target, outputs=["logits"], metadata={}, forms=forms, ranges=ranges)
        return run(data, x)

    exact = logits(fp32, None)
    with_table, with_made_up = (
        snr_db(exact, logits(int8, ranges)) for ranges in (shipped.ranges, made_up_ranges(graph))
    )
    assert with_table > with_made_up + 4


def test_a_table_of_one_subnet_is_what_was_measured(shipped: Checkpoint, images: Images) -> None:
    smallest = SPACE.smallest
    own = measure_ranges(SPACE, smallest, shipped.weights(smallest), images)
    table = measure_range_table(SPACE, shipped.weights, images, ALONE, [smallest, smallest])
    assert table.source == TABLE
    assert table.spans.keys() == own.spans.keys()
    for name, span in own.spans.items():
        np.testing.assert_allclose(table.spans[name], span, rtol=1e-6)


def test_processes_share_the_subnets(shipped: Checkpoint, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes, each measures every other subnet, and the sums of both are gathered."""
    rng = np.random.default_rng(4)
    plan = [SPACE.at(24).sample(rng) for _ in range(3)]
    alone = measure_range_table(SPACE, shipped.weights, images, ALONE, plan)
    gathered: list[Any] = []

    def gather(parts: list[Any], mine: Any) -> None:
        gathered.append(mine)
        parts[:] = gathered[-2:]

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    worlds = [World(rank, 2, torch.device("cpu")) for rank in (1, 0)]
    _, both = (measure_range_table(SPACE, shipped.weights, images, world, plan) for world in worlds)
    assert both.spans.keys() == alone.spans.keys()
    for name, span in alone.spans.items():
        np.testing.assert_allclose(both.spans[name], span, rtol=1e-6, atol=1e-9)


def test_the_plan_is_always_the_same_and_has_the_largest_subnet() -> None:
    plan = plan_range_subnets(SPACE)
    assert plan == plan_range_subnets(SPACE)
    assert len(plan) == 24
    assert SPACE.largest in plan


# --- files -------------------------------------------------------------------------------------------------


def test_files_keep_ranges(shipped: Checkpoint, tmp_path: Path) -> None:
    ranges = Ranges({"input": Span(-2.0, 2.5), "stem.conv": Span(0.0, 0.0)}, TABLE)
    path = write_checkpoint(dataclasses.replace(shipped, ranges=ranges), tmp_path / "s", dtype=np.float16)
    assert read_checkpoint(path).ranges == ranges
    path = write_checkpoint(dataclasses.replace(shipped, ranges=None), tmp_path / "s", dtype=np.float16)
    assert read_checkpoint(path).ranges is None
    with pytest.raises(UsageError, match=r"ranges: stem\.conv\.linear is missing; the ranges belong to another"):
        check_ranges(graph_of(SPACE.smallest), ranges)


@pytest.mark.parametrize("span", [[1.0, 0.0], [0.0, np.inf], [np.nan, 1.0], [1.0], [[0.0, 1.0]]])
def test_damaged_ranges_are_refused(shipped: Checkpoint, tmp_path: Path, span: list[float]) -> None:
    path = write_checkpoint(shipped, tmp_path / "s", dtype=np.float16)
    arrays = load_file(path)
    arrays["ranges.input"] = np.array(span, np.float32)
    description = path.with_suffix(".json").read_text()
    save_file(arrays, path, metadata={METADATA_KEY: description})
    with pytest.raises(InputFileError, match="its range of 'input' is not a lower and an upper end"):
        read_checkpoint(path)


def test_made_up_ranges_say_so() -> None:
    assert made_up_ranges(graph_of(SPACE.smallest)).source == MADE_UP
