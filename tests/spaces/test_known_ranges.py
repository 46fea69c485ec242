"""The ranges of ops inside trained networks: complete, those of the included supernet, and in the models of ops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.tflite_files import tensors

from ofa_profiler import get_space
from ofa_profiler.export import export_ops
from ofa_profiler.networks.ranges import MADE_UP, TABLE, check_ranges
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces.known_ranges import ranges_in_networks, source_of_ranges
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.supernet.checkpoint import read_checkpoint

SPACE = get_space("cifar-mbv3")


def test_all_ops_of_the_space_have_ranges() -> None:
    for op in SPACE.unique_ops():
        ranges = ranges_in_networks(op)
        assert ranges is not None, op.key
        check_ranges(op.graph, ranges)
    assert source_of_ranges(SPACE.unique_ops()) == TABLE


def test_other_ops_have_none() -> None:
    assert source_of_ranges(get_space("ofa-resnet50").unique_ops([128])) == MADE_UP
    assert source_of_ranges(SPACE.with_classes(7).unique_ops()) == MADE_UP


def test_they_are_those_of_the_included_supernet() -> None:
    """In the only op of a slot, and the union over the slots for an op that is in several."""
    path = shipped_supernet(SPACE.name)
    assert path is not None
    ranges = read_checkpoint(path).ranges
    assert ranges is not None
    first, *_, last = SPACE.layout(SPACE.largest)
    for slot, op in (first, last):
        known = ranges_in_networks(op)
        assert known is not None
        for name, span in known.spans.items():
            if name != "input":
                np.testing.assert_allclose(span, ranges.spans[f"{slot}.{name}"], rtol=1e-3)
    for slot, op in SPACE.layout(SPACE.largest):
        known = ranges_in_networks(op)
        assert known is not None
        for name in op.graph.outputs:
            assert known.spans[name].high >= 0.999 * ranges.spans[f"{slot}.{name}"].high


def test_models_of_ops_are_quantized_with_them(tmp_path: Path) -> None:
    op = SPACE.layout(SPACE.largest)[0][1]
    known = ranges_in_networks(op)
    assert known is not None
    (model,) = export_ops([op], Target("litert", "int8"), cache_dir=tmp_path)
    stored = tensors(model.path.read_bytes())
    np.testing.assert_allclose(stored["input/QUANTIZE"].span, known.spans["input"], atol=0.03)
    np.testing.assert_allclose(stored["output/int8"].span, known.spans["conv"], atol=0.1)
