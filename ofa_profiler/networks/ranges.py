"""The ranges of the tensors of a network: what int8 needs beside the weights.

Names are those of a graph: its inputs, its nodes, and `NODE.TENSOR` for tensors inside a layer (`Layer.usual_spans`),
such as `blocks.3.depth_conv.linear`, a convolution before its activation. They do not depend on the file format. Ranges
may also list tensors that only some form has (`export/forms`), such as `blocks.3.depth_conv.part0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.tensors import USUAL_SPAN, Span

MADE_UP = "made up"


@dataclass(frozen=True)
class Ranges:
    """Name of a tensor -> its span. `made_up`: not those of a network with trained weights on real images."""

    spans: Mapping[str, Span] = field(default_factory=dict)
    made_up: bool = False

    @property
    def source(self) -> str:
        """Where they come from, for metadata."""
        return MADE_UP if self.made_up else "calibrated"

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types. `from_json` turns it into equal ranges."""
        return {"made_up": self.made_up, "spans": {name: list(span) for name, span in sorted(self.spans.items())}}

    @staticmethod
    def from_json(data: Any) -> Ranges:
        """Read the result of `to_json`. Raises `UsageError`."""
        made_up, spans = (
            (data.get(name) for name in ("made_up", "spans")) if isinstance(data, Mapping) else (None, None)
        )
        if not isinstance(made_up, bool) or not isinstance(spans, Mapping):
            raise UsageError("ranges must be an object with 'made_up' (true or false) and 'spans' (name: [low, high])")
        for name, span in spans.items():
            if not isinstance(span, list) or len(span) != 2 or not all(type(value) in (int, float) for value in span):
                raise UsageError(f"ranges: {name!r:.80} must be [low, high], two numbers")
            _check_span(str(name), Span(*span))
        return Ranges({name: Span(float(low), float(high)) for name, (low, high) in spans.items()}, made_up)


def _check_span(name: str, span: Span) -> None:
    try:
        is_finite = all(map(isfinite, span))
    except OverflowError:  # a whole number of more than 300 digits
        is_finite = False
    if not (is_finite and span.low <= span.high):
        raise UsageError(f"ranges: {name:.80} is {list(span)}, not two finite numbers in ascending order")


def made_up_ranges(graph: Graph) -> Ranges:
    """Ranges for timing, where nothing is calibrated. The time of an op does not depend on them.

    They have the names that all ranges of this graph must have, and are the same in every process.
    """
    spans = {tensor.name: USUAL_SPAN for tensor in graph.inputs}
    for node in graph.nodes:
        found = node.layer.usual_spans(*(spans[source] for source in node.inputs))
        spans.update({f"{node.name}.{name}" if name else node.name: span for name, span in found.items()})
    return Ranges(spans, made_up=True)


def check_ranges(graph: Graph, ranges: Ranges) -> None:
    """Raise `UsageError` unless `ranges` has every tensor of this graph, with finite numbers in order."""
    for name in made_up_ranges(graph).spans:
        if name not in ranges.spans:
            raise UsageError(f"ranges: {name} is missing; the ranges belong to another network")
    for name, span in ranges.spans.items():
        _check_span(name, span)
