"""The graph of one op while it is written, and the words that name the op in tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import INPUT, Graph, Node
from ofa_profiler.networks.layers import Layer
from ofa_profiler.networks.op import GRAPH, Op
from ofa_profiler.networks.op_graph import graph_to_json
from ofa_profiler.networks.tensors import Shape, TensorSpec

#: What follows the name of a layer in its word.
_SETTINGS = re.compile(r":[^+()|]*")
#: Joins the words of a chain.
CHAIN, BRANCHES = "+", "|"


class Draft:
    """The layers of an op with one input of this shape."""

    def __init__(self, shape: Shape) -> None:
        self._input = TensorSpec(INPUT, "float32", shape)
        self._nodes: list[Node] = []
        self._counts: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {INPUT: shape}
        self.words: list[str] = []

    def add(self, name: str, make: Callable[[str], Layer], *sources: str) -> str:
        """Add a layer, whose name begins with `name`, and return the name of its output. Raises `UsageError`."""
        self._counts[name] = self._counts.get(name, 0) + 1
        unique = name if self._counts[name] == 1 else f"{name}{self._counts[name]}"
        layer = make(unique)
        shape = layer.output_shape(*(self.shapes[source] for source in sources))
        if min(shape) < 1:
            raise UsageError(f"{name} would make a map of {' x '.join(map(str, shape))}")
        self._nodes.append(Node(unique, layer, sources))
        self.shapes[unique] = shape
        return unique

    def say(self, word: str, *settings: object) -> None:
        """Add a layer to the words: its name, and all settings that make it another one. Empty ones are left out."""
        self.words.append(":".join([word, *(str(each) for each in settings if each not in ("", None, False))]))

    def apart(self, write: Callable[[], str]) -> tuple[str, list[str]]:
        """What `write` returns, and the words that it adds, which are taken out."""
        outer, self.words = self.words, []
        found = write()
        inner, self.words = self.words, outer
        return found, inner

    def op(self, output: str) -> Op:
        """The op with this output."""
        graph = Graph((self._input,), tuple(self._nodes), (output,))
        text = CHAIN.join(self.words)
        shapes = [self._input.shape, self.shapes[output]]
        key = "-".join(
            [text, *(f"{end}:{_size(shape)}" for end, shape in zip(("input", "output"), shapes, strict=True))]
        )
        attributes = {GRAPH: json.dumps(graph_to_json(graph), sort_keys=True, separators=(",", ":"))}
        outputs = (TensorSpec("output", "float32", shapes[1]),)
        return Op(_SETTINGS.sub("", text), (self._input,), outputs, attributes, key)


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))
