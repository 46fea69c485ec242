"""TFLite files of users: what is known of them, and their blocks, with networks of our own exporter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler import get_space
from ofa_profiler.export import export_network
from ofa_profiler.models.base import Block
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.models.tflite_model import TfliteModel
from ofa_profiler.models.tflite_runtime import outputs_of, prepared
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.protocol.target import Target

SPACE = get_space("cifar-mbv3")


@pytest.fixture(scope="module", params=["fp32", "int8"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The largest network of a small space."""
    path = tmp_path_factory.mktemp("net") / f"{request.param}.tflite"
    weights = repeating_weights(SPACE.layout(SPACE.largest))
    return export_network(SPACE, SPACE.largest, weights, path, Target("litert", request.param), metadata={})


def composed(blocks: tuple[Block, ...], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All tensors between the blocks, each block run with the outputs of those before it."""
    found = dict(feeds)
    for block in blocks:
        given = zip(block.model.feeds, block.inputs, strict=True)
        interpreter = prepared(block.model.data, {feed.tensor.name: found[outer.name] for feed, outer in given})
        interpreter.invoke()
        made = outputs_of(interpreter).values()
        found.update({outer.name: values for outer, values in zip(block.outputs, made, strict=True)})
    return found


def test_blocks_one_after_the_other_are_the_network(path: Path) -> None:
    before = path.read_bytes()
    model = TfliteModel(path)
    assert model.precision == path.stem
    feeds = feeds_for(model.inputs, {})
    blocks = model.blocks(feeds, this_machine=True)
    found, expected = composed(blocks, feeds), model.run(feeds)
    assert len(blocks) > 10
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * np.abs(values).max())
    assert path.read_bytes() == before == model.whole(feeds).data


def test_every_kernel_is_in_one_block(path: Path) -> None:
    model = TfliteModel(path)
    blocks = model.blocks(feeds_for(model.inputs, {}), this_machine=True)
    names = [block.name for block in blocks]
    assert len(set(names)) == len(names)
    assert sum(block.macs for block in blocks) == pytest.approx(SPACE.macs(SPACE.largest), rel=0.01)
    inner = {(feed.tensor.dtype, feed.values is None, feed.tensor.range is None) for feed in blocks[2].model.feeds}
    assert inner == {("int8", True, False) if model.precision == "int8" else ("float32", True, True)}
    # Equal layers follow each other in a stage, so some blocks are equal.
    assert len({block.signature for block in blocks}) < len(blocks)


_PRINT = """
import sys
from hashlib import sha256
from pathlib import Path
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.models.tflite_model import TfliteModel
model = TfliteModel(Path(sys.argv[1]))
for block in model.blocks(feeds_for(model.inputs, {}), this_machine=True):
    print(block.name, block.signature, sha256(block.model.data).hexdigest())
"""


def test_the_same_blocks_in_another_process(path: Path) -> None:
    def printed(seed: str) -> str:
        command = [sys.executable, "-c", _PRINT, str(path)]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout

    first = printed("1")
    assert len(first.splitlines()) > 10
    assert printed("2") == first
