"""The ranges that ops have inside trained networks, for spaces of which they are known.

`ranges/SPACE.json` has the ranges of all tensors of the trained networks of a space, as in the file of the included
supernet. With these, int8 models of single ops are quantized as they are in networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from ofa_profiler.networks.graph import INPUT
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.ranges import MADE_UP, TABLE, Ranges
from ofa_profiler.networks.tensors import Shape, Span
from ofa_profiler.spaces.base import SearchSpace
from ofa_profiler.spaces.registry import get_space

_FOLDER = Path(__file__).parent / "ranges"


def ranges_in_networks(op: Op) -> Ranges | None:
    """The ranges of an op in trained networks, with names as in `op.graph`; None if they are unknown.

    An op that is in several places of a network has the union of the ranges there.
    """
    return _known().get(op)


def source_of_ranges(ops: Iterable[Op]) -> str:
    """Where the ranges of int8 models of these ops come from: `TABLE` if all are known, else `MADE_UP`."""
    return TABLE if all(ranges_in_networks(op) is not None for op in ops) else MADE_UP


@cache
def _known() -> Mapping[Op, Ranges]:
    found: dict[Op, dict[str, Span]] = {}
    for path in sorted(_FOLDER.glob("*.json")):
        space = get_space(path.stem)
        spans = Ranges.from_json(json.loads(path.read_text(encoding="utf-8"))).spans
        _collect(space.with_resolutions(space.valid_resolutions), spans, found)
    return {op: Ranges(spans, TABLE) for op, spans in found.items()}


def _collect(space: SearchSpace, spans: Mapping[str, Span], found: dict[Op, dict[str, Span]]) -> None:
    """Add the ranges of all ops of a space."""
    #: Shape -> the union of the ranges of all tensors of this shape between two ops so far.
    between: dict[Shape, Span] = {
        tensor.shape: spans[INPUT] for op in space.slot_ops(space.slots[0]) for tensor in op.inputs
    }
    for slot in space.slots:
        prefix = f"{slot.name}."
        inside = {name.removeprefix(prefix): span for name, span in spans.items() if name.startswith(prefix)}
        ops = space.slot_ops(slot)
        for op in ops:
            known = found.setdefault(op, {})
            for name, span in {**inside, INPUT: between[op.input_shape]}.items():
                known[name] = _union(span, known.get(name, span))
        for op in ops:
            output = inside[op.graph.outputs[0]]
            between[op.output_shape] = _union(output, between.get(op.output_shape, output))


def _union(first: Span, second: Span) -> Span:
    return Span(min(first.low, second.low), max(first.high, second.high))
