"""The graph of an ONNX model: who uses which tensor, also from inside the bodies of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

#: The domains of the operators of ONNX itself.
STANDARD_DOMAINS = ("", "ai.onnx")
#: Operators that compute something else in every run.
_RANDOM = ("Random", "Multinomial", "Bernoulli")


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether its operator is one of ONNX itself."""
    return node.domain in STANDARD_DOMAINS


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Name -> value of the attributes of a node."""
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def integer(node: onnx.NodeProto, name: str) -> int:
    """The attribute of this name, also of a damaged node; 0 if there is none."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node: of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def with_bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All nodes, those inside others included."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from with_bodies(body.node)


def used_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those that its bodies take from outside included."""
    yield from (name for name in node.input if name)
    yield from used_inside(node)


def used_inside(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that the bodies of a node take from outside."""
    for body in bodies(node):
        yield from _captured(body)


def _captured(body: onnx.GraphProto) -> Iterator[str]:
    """The tensors of the graph around it that a body reads."""
    own = {tensor.name for tensor in (*body.input, *body.initializer)}
    own |= {name for node in body.node for name in node.output}
    for node in body.node:
        yield from (name for name in used_by(node) if name not in own)
    yield from (output.name for output in body.output if output.name not in own)


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
