"""What is asked of a device about a user's model."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.onnx_nets import convolutions, saved

from ofa_profiler.measuring.model import settings_for
from ofa_profiler.measuring.model_request import WHOLE, model_request, peak_bytes, runs_on_this_cpu
from ofa_profiler.models.base import Block, TimedModel
from ofa_profiler.models.formats import open_model
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.settings import Settings


def block(inputs: dict[str, int], outputs: dict[str, int]) -> Block:
    """A block whose tensors have so many bytes."""
    given, made = (tuple(TensorSpec(n, "int8", (size,)) for n, size in each.items()) for each in (inputs, outputs))
    return Block("b", (), given, made, 0, "s", TimedModel(b"", ()))


def test_the_most_bytes_in_use_at_a_time() -> None:
    blocks = [block({"x": 10}, {"a": 100}), block({"a": 100}, {"b": 5}), block({"b": 5, "x": 10}, {"y": 1})]
    assert peak_bytes(blocks) == 115  # x, a and b


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20))
def test_a_chain_has_two_tensors_in_use(sizes):
    chain = [block({str(i): sizes[i]}, {str(i + 1): sizes[i + 1]}) for i in range(len(sizes) - 1)]
    assert peak_bytes(chain) == max(map(sum, itertools.pairwise(sizes)))


def test_the_settings_of_a_request(tmp_path):
    model = open_model(saved(convolutions(6, channels=48, size=48), tmp_path))
    feeds = {"x": np.ones((1, 48, 48, 48), np.float32)}
    settings = replace(settings_for(model, Settings()), time_limit_s=7.0)
    asked = model_request(model, feeds, settings, this_machine=True, cache_dir=tmp_path / "cache")
    assert asked.run.settings.spread_bytes == peak_bytes(model.blocks(feeds, this_machine=True)) > feeds["x"].nbytes
    assert asked.run.settings.weight_bytes == 6 * 4 * (48 * 48 * 9 + 48)
    assert next(iter(asked.run.models)) == WHOLE
    assert "spread_bytes" not in Settings().to_json()
    assert Settings.from_json(asked.run.settings.to_json()) == asked.run.settings


@pytest.mark.parametrize(
    ("spec", "provider", "is_here"),
    [
        ("local", None, True),
        ("local", "CPUExecutionProvider", True),
        ("local", "CUDAExecutionProvider", False),
        ("ssh:board", None, False),
    ],
)
def test_layouts_of_the_cpu_are_for_the_cpu_of_this_machine(spec: str, provider: str | None, is_here: bool) -> None:
    assert runs_on_this_cpu(spec, Settings(provider=provider)) == is_here
