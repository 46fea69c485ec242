"""Which tensors of a written graph have which name in `Ranges`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import Span


class Mark(NamedTuple):
    """The name of a tensor in `Ranges`, and what to make of the span there."""

    name: str
    through: Callable[[Span], Span]


class Marks:
    """Tensor of a written graph -> its mark. Writers of layers mark the tensors that `Layer.usual_spans` lists.

    A tensor whose integers must saturate at given limits is bounded instead.
    """

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._bounds: dict[str, Span] = {}

    def add(self, tensor: str, name: str, through: Callable[[Span], Span] = lambda span: span) -> None:
        """The values of `tensor` have the range `name`, changed by `through`. The first mark of a tensor stays."""
        self._marks.setdefault(tensor, Mark(name, through))

    def bound(self, tensor: str, span: Span) -> None:
        """The integers of `tensor` saturate at the ends of `span`, whatever its values are."""
        self._bounds[tensor] = span

    def rename(self, old: str, new: str) -> None:
        """Keep the mark of a tensor that is renamed."""
        if old in self._marks:
            self._marks[new] = self._marks.pop(old)

    def span(self, tensor: str, ranges: Ranges) -> Span | None:
        """The span of a tensor by `ranges`; None if it has no mark, or if `ranges` does not have its name."""
        if tensor in self._bounds:
            return self._bounds[tensor]
        mark = self._marks.get(tensor)
        span = ranges.spans.get(mark.name) if mark is not None else None
        return None if mark is None or span is None else mark.through(span)

    def layer(self, tensor: str) -> str:
        """The layer that a tensor belongs to, for messages."""
        mark = self._marks.get(tensor)
        return mark.name if mark is not None else tensor.partition("/")[0]

    def tensors(self) -> dict[str, str]:
        """Name in `Ranges` -> tensor."""
        return {mark.name: tensor for tensor, mark in self._marks.items()}
