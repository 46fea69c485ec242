"""The graph of an ONNX file as a list of nodes that can be replaced.

All other nodes, initializers and fields stay equal, byte by byte. Names of tensors stay too, so a form writes its
result under the name of the plain one. Bodies of If and Loop are not edited, but what they read is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ofa_profiler.models.base import Array
from ofa_profiler.models.names import fresh
from ofa_profiler.models.onnx_graph import STANDARD_DOMAINS, bodies, is_standard, used_by, with_bodies
from ofa_profiler.models.rewriting.base import Document

#: Operators that are computed if all their inputs are constants.
_FOLDED = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Add", "Sub", "Mul", "Div", "Sqrt")


class OnnxDocument(Document):
    """A file that is edited. Raises `ValueError` for bytes that are no ONNX model."""

    def __init__(self, data: bytes) -> None:
        self.proto = onnx.ModelProto()
        try:
            self.proto.ParseFromString(data)
        except Exception as error:  # the class depends on the implementation of protobuf
            raise ValueError(f"is no ONNX model ({error})") from None
        self.nodes = list(self.proto.graph.node)
        self._folded: dict[str, Array | None] = {}
        self._index()

    def _index(self) -> None:
        """Note who makes and who reads each tensor."""
        self.maker: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.output:
                self.maker[name] = node
            for name in set(used_by(node)):
                self.readers.setdefault(name, []).append(node)

    @cached_property
    def opset(self) -> int:
        """The version of the standard operators."""
        return max((each.version for each in self.proto.opset_import if each.domain in STANDARD_DOMAINS), default=1)

    @cached_property
    def _stored(self) -> dict[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @cached_property
    def _outputs(self) -> frozenset[str]:
        return frozenset(output.name for output in self.proto.graph.output)

    @cached_property
    def _inputs(self) -> frozenset[str]:
        return frozenset(each.name for each in self.proto.graph.input)

    @cached_property
    def _types(self) -> dict[str, onnx.TypeProto.Tensor]:
        """Tensor -> its type in the original graph, as far as it follows from the file."""
        try:
            graph = onnx.shape_inference.infer_shapes(self.proto).graph
        except Exception:  # a graph that onnxruntime accepts may be too unusual for the inference
            graph = self.proto.graph
        found = (*graph.input, *graph.value_info, *graph.output)
        return {each.name: each.type.tensor_type for each in found if each.type.HasField("tensor_type")}

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """The shape as far as it is known: None for open dimensions, or instead of the tuple."""
        value = self.constant(name)
        if value is not None:
            return value.shape
        known = self._types.get(name)
        if known is None or not known.HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in known.shape.dim)

    def is_float(self, name: str) -> bool:
        """Whether its elements are float32."""
        value = self.constant(name)
        if value is not None:
            return value.dtype == np.float32
        known = self._types.get(name)
        return known is not None and known.elem_type == onnx.TensorProto.FLOAT

    def constant(self, name: str) -> Array | None:
        """The values of a tensor that is the same for all inputs; None for any other."""
        if name not in self._folded:
            self._folded[name] = self._computed(name)
        return self._folded[name]

    def _computed(self, name: str) -> Array | None:
        if name in self._stored:
            # Inputs with default values can be changed by the caller.
            return None if self._is_open(name) else numpy_helper.to_array(self._stored[name])
        node = self.maker.get(name)
        if node is None or not is_standard(node):
            return None
        if node.op_type == "Constant":
            tensors = [each.t for each in node.attribute if each.name == "value"]
            return numpy_helper.to_array(tensors[0]) if tensors else None
        if node.op_type not in _FOLDED or "" in node.input:
            return None
        inputs = {each: self.constant(each) for each in node.input}
        return None if any(each is None for each in inputs.values()) else self._evaluated(node, inputs)

    def _is_open(self, name: str) -> bool:
        return name in self._inputs and self.proto.ir_version >= 4

    def _evaluated(self, node: onnx.NodeProto, inputs: dict[str, Array | None]) -> Array | None:
        from onnx.reference import ReferenceEvaluator

        try:
            with np.errstate(all="ignore"):
                result = ReferenceEvaluator(node, opsets={"": self.opset}).run(None, dict[str, Any](inputs))
        except Exception:  # a constant that cannot be computed here is none
            return None
        return np.asarray(result[0])  # type: ignore[index]

    def is_inner(self, name: str) -> bool:
        """Whether exactly one node reads it, and nobody outside of the graph."""
        return len(self.readers.get(name, ())) == 1 and name not in self._outputs

    def reader(self, name: str) -> onnx.NodeProto | None:
        """The only reader of an inner tensor, if it is a standard operator."""
        if not self.is_inner(name):
            return None
        node = self.readers[name][0]
        return node if is_standard(node) else None

    def of_kind(self, *kinds: str) -> Iterator[onnx.NodeProto]:
        """The nodes of these standard operators."""
        return (node for node in self.nodes if node.op_type in kinds and is_standard(node))

    def made_by(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node that makes the tensor, if it is of these kinds."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in kinds and is_standard(node) else None

    def fresh(self, stem: str) -> str:
        """A name that no tensor has."""
        inside = (each for node in self.nodes for body in bodies(node) for each in with_bodies(body.node))
        own = {name for node in inside for name in node.output}
        return fresh(stem, {*self.maker, *self.readers, *self._stored, *self._inputs, *own})

    def constant_node(self, stem: str, values: Array) -> onnx.NodeProto:
        """A node with these values. Its output has a fresh name."""
        name = self.fresh(stem)
        return onnx.helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(values, name))

    def replace(self, old: Sequence[onnx.NodeProto], new: Iterable[onnx.NodeProto]) -> None:
        """Put `new` in the place of the last of `old`, and remove what only they have read."""
        last = max(self.nodes.index(node) for node in old)
        new, gone = list(new), {id(node) for node in old}
        before, after = self.nodes[:last], self.nodes[last + 1 :]
        self.nodes = [node for node in (*before, *new, *after) if id(node) not in gone]
        for node in new:
            for name in node.output:
                self._folded.pop(name, None)
        self._index()
        self._drop(name for node in old for name in node.input)
        made = {name for node in old for name in node.output} - self.maker.keys()
        self._forget(made)

    def _drop(self, names: Iterable[str]) -> None:
        """Remove tensors that nobody reads any more, with the nodes that make nothing else."""
        unread = [name for name in dict.fromkeys(names) if name and not self.readers.get(name)]
        for name in unread:
            if name in self._outputs or name in self._inputs:
                continue
            node = self.maker.get(name)
            if node is None:
                self._forget({name})
            elif not any(self.readers.get(each) or each in self._outputs for each in node.output):
                self.nodes.remove(node)
                self._index()
                self._forget(set(node.output))
                self._drop(node.input)

    def _forget(self, names: set[str]) -> None:
        """Remove what the file says of tensors that do not exist any more."""
        graph = self.proto.graph
        for listed in (graph.initializer, graph.value_info):
            for position in reversed(range(len(listed))):
                if listed[position].name in names:
                    del listed[position]
        for name in names:
            self._stored.pop(name, None)

    def data(self) -> bytes:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(copies)
        self.nodes = list(self.proto.graph.node)
        self._index()
        return bytes(self.proto.SerializeToString())


def scalar(document: OnnxDocument, name: str) -> float | None:
    """The value of a constant with one float; None for any other tensor."""
    value = document.constant(name)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind == "f" else None
