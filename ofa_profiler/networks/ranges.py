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

#: Where ranges come from: measured on the network with images; from a table of other networks with the same weights;
#: guessed, which is enough for timing alone.
CALIBRATED, TABLE, MADE_UP = "calibrated", "table", "made up"
SOURCES = (CALIBRATED, TABLE, MADE_UP)


@dataclass(frozen=True)
class Ranges:
    """Name of a tensor -> its span. `source` is one of `SOURCES`, for metadata."""

    spans: Mapping[str, Span] = field(default_factory=dict)
    source: str = CALIBRATED

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types. `from_json` turns it into equal ranges."""
        return {"source": self.source, "spans": {name: list(span) for name, span in sorted(self.spans.items())}}

    @staticmethod
    def from_json(data: Any) -> Ranges:
        """Read the result of `to_json`. Raises `UsageError`."""
        source, spans = (data.get(name) for name in ("source", "spans")) if isinstance(data, Mapping) else (None, None)
        if source not in SOURCES or not isinstance(spans, Mapping):
            known = ", ".join(SOURCES)
            raise UsageError(f"ranges must be an object with 'source' ({known}) and 'spans' (name: [low, high])")
        for name, span in spans.items():
            if not isinstance(span, list) or len(span) != 2 or not all(type(value) in (int, float) for value in span):
                raise UsageError(f"ranges: {name!r:.80} must be [low, high], two numbers")
            _check_span(str(name), Span(*span))
        return Ranges({name: Span(float(low), float(high)) for name, (low, high) in spans.items()}, source)


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
    return Ranges(spans, MADE_UP)


def check_ranges(graph: Graph, ranges: Ranges) -> None:
    """Raise `UsageError` unless `ranges` has every tensor of this graph, with finite numbers in order."""
    for name in made_up_ranges(graph).spans:
        if name not in ranges.spans:
            raise UsageError(f"ranges: {name} is missing; the ranges belong to another network")
    for name, span in ranges.spans.items():
        _check_span(name, span)
