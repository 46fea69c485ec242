"""The graph of an ONNX model: who uses which tensor, also from inside the bodies of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


#: Operators that compute something else in every run.
_RANDOM = ("Random", "Multinomial", "Bernoulli")


def used_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those that its bodies take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
            yield from _captured(body)


def _captured(body: onnx.GraphProto) -> Iterator[str]:
    """The tensors of the graph around it that a body reads."""
    own = {tensor.name for tensor in (*body.input, *body.initializer)}
    own |= {name for node in body.node for name in node.output}
    for node in body.node:
        yield from (name for name in used_by(node) if name not in own)
    yield from (output.name for output in body.output if output.name not in own)


def domains(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """The sets of operators that nodes and their bodies are of; "" is ONNX's own, which `ai.onnx` is too."""
    found = set()
    for node in nodes:
        found.add("" if node.domain == "ai.onnx" else node.domain)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                found |= domains(body.node)
    return found


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """An ONNX model with nodes in order of execution, and what follows from it."""

    model: onnx.ModelProto

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        """All nodes."""
        return list(self.model.graph.node)

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """The constants by their names."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def outputs(self) -> list[str]:
        """The outputs of the network."""
        return [output.name for output in self.model.graph.output]

    @cached_property
    def reads(self) -> list[list[str]]:
        """The tensors that each node reads, constants among them, each once."""
        return [list(dict.fromkeys(used_by(node))) for node in self.nodes]

    @cached_property
    def last_use(self) -> dict[str, int]:
        """Tensor -> the position of the last node that reads it; after the last node for outputs of the network."""
        found = {name: i for i, names in enumerate(self.reads) for name in names}
        return {**found, **dict.fromkeys(self.outputs, len(self.nodes))}

    @cached_property
    def constant_nodes(self) -> frozenset[int]:
        """The nodes that read constants only, so that what they compute is the same in every run."""
        constants = set(self.initializers)
        found = set()
        for i, (node, names) in enumerate(zip(self.nodes, self.reads, strict=True)):
            if all(name in constants for name in names) and not node.op_type.startswith(_RANDOM):
                constants |= set(node.output)
                found.add(i)
        return frozenset(found)

    @cached_property
    def convolution_weights(self) -> dict[str, list[int]]:
        """Output of a convolution with constant weights -> their shape."""
        nodes = [node for node in self.nodes if node.op_type in ("Conv", "FusedConv")]
        return {
            node.output[0]: list(self.initializers[node.input[1]].dims)
            for node in nodes
            if node.input[1] in self.initializers
        }

    @cached_property
    def maker(self) -> dict[str, int]:
        """Tensor -> the position of the node that computes it."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
