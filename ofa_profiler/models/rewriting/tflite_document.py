"""The primary graph of a TFLite file as a list of operators that can be replaced.

All other operators, tensors, buffers and metadata stay equal. A tensor that no operator uses any more is removed. The
numbers of the others then change, their names do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ofa_profiler.models.base import Array
from ofa_profiler.models.names import fresh
from ofa_profiler.models.rewriting.base import IMAGE_AXES, Document
from ofa_profiler.models.tflite_file import UNPACKING, kind_of, listed, schema
from ofa_profiler.models.tflite_writing import buffer_of, code_index, packed, stored_values

#: Metadata that refers to operators or tensors by their numbers.
_NUMBERED = (b"model_control_dependencies",)
#: Types of constants that patterns read.
_CONSTANTS = ("float16", "float32", "int32", "int64")


class TfliteDocument(Document):
    """A file that is edited. Raises `ValueError` for a file that cannot be edited safely."""

    def __init__(self, data: bytes) -> None:
        self.api: Any = schema()
        self.model = self.api.ModelT.InitFromPackedBuf(data, 0)
        self.graph = self.model.subgraphs[0]
        if any(each.name in _NUMBERED for each in listed(self.model.metadata)):
            raise ValueError("has metadata that numbers its operators")
        if any(operator.largeCustomOptionsOffset > 1 for graph in self.model.subgraphs for operator in graph.operators):
            raise ValueError("has options outside of the flatbuffer")
        self._before = self._used()
        self._index()

    def _index(self) -> None:
        """Note who makes and who reads each tensor."""
        self.maker: dict[int, Any] = {}
        self.readers: dict[int, list[Any]] = {}
        for operator in self.graph.operators:
            for i in listed(operator.outputs):
                self.maker[int(i)] = operator
            for i in {int(i) for i in listed(operator.inputs)} - {-1}:
                self.readers.setdefault(i, []).append(operator)

    def kind(self, operator: Any) -> str:
        """The name of an operator in the schema."""
        return kind_of(self.api, self.model.operatorCodes[operator.opcodeIndex])

    def of_kind(self, *kinds: str) -> list[Any]:
        """The operators of these kinds that have options, in order."""
        return [each for each in self.graph.operators if self.kind(each) in kinds and each.builtinOptions is not None]

    def tensor(self, i: int) -> Any:
        """The schema's object of a tensor."""
        return self.graph.tensors[i]

    def name(self, i: int) -> str:
        """The name of a tensor."""
        return (self.tensor(i).name or b"").decode("utf-8", "replace")

    def shape(self, i: int) -> tuple[int, ...]:
        """The shape. Open dimensions are -1."""
        tensor = self.tensor(i)
        sizes = listed(tensor.shapeSignature) or listed(tensor.shape)
        return tuple(int(size) for size in sizes)

    def has_known_size(self, i: int) -> bool:
        """Whether it is an image (N, H, W, C) without open dimensions."""
        shape = self.shape(i)
        return len(shape) == IMAGE_AXES and min(shape) > 0

    def is_float(self, i: int) -> bool:
        """Whether the elements are float32."""
        return bool(self.tensor(i).type == self.api.TensorType.FLOAT32)

    def constant(self, i: int) -> Array | None:
        """The values of a constant of floats or 32- or 64-bit integers, also one that is unpacked; else None."""
        if i < 0:
            return None
        maker = self.maker.get(i)
        if maker is not None:
            is_unpacked = self.kind(maker) in UNPACKING and self.is_float(i)
            values = self.constant(int(maker.inputs[0])) if is_unpacked else None
            return values.astype(np.float32) if values is not None and values.dtype == np.float16 else None
        values = stored_values(self.api, self.model, self.tensor(i))
        return values if values is not None and values.dtype.name in _CONSTANTS else None

    def is_inner(self, i: int) -> bool:
        """Whether exactly one operator reads it, and nobody outside of the graph."""
        return len(self.readers.get(i, ())) == 1 and i not in map(int, listed(self.graph.outputs))

    def add_constant(self, name: str, values: Array) -> int:
        """The number of a new constant of float32 or int32."""
        tensor = self.api.TensorT()
        self.model.buffers.append(buffer_of(self.api, values))
        types = self.api.TensorType
        tensor.type = {np.dtype("float32"): types.FLOAT32, np.dtype("int32"): types.INT32}[values.dtype]
        tensor.shape, tensor.buffer = list(values.shape), len(self.model.buffers) - 1
        return self._appended(tensor, name)

    def add_tensor(self, name: str, like: int, shape: Sequence[int] | None = None) -> int:
        """The number of a new tensor with type, quantization and, unless given, shape of another one."""
        tensor = self.api.TensorT()
        vars(tensor).update(vars(self.tensor(like)))
        if shape is not None:
            tensor.shape, tensor.shapeSignature = list(shape), None
        tensor.buffer = 0
        return self._appended(tensor, name)

    def _appended(self, tensor: Any, name: str) -> int:
        taken = {self.name(i) for i in range(len(self.graph.tensors))}
        tensor.name, tensor.hasRank = fresh(name, taken).encode(), True
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def options(self, name: str, **fields: Any) -> Any:
        """The options of an operator, by the names of the schema, as `ADD` has `AddOptions`."""
        made = getattr(self.api, f"{name}T")()
        vars(made).update(fields)
        return made

    def operator(self, kind: str, version: int, inputs: Sequence[int], output: int, options: Any) -> Any:
        """A new operator with one output, which is not yet in the graph."""
        made = self.api.OperatorT()
        made.opcodeIndex = code_index(self.api, self.model, kind, version)
        made.inputs, made.outputs = list(inputs), [output]
        made.builtinOptions = options
        made.builtinOptionsType = getattr(self.api.BuiltinOptions, type(options).__name__[:-1])
        made.debugMetadataIndex = -1
        return made

    def like(self, operator: Any, inputs: Sequence[int], options: Any) -> Any:
        """A copy of an operator with other inputs and options."""
        made = self.api.OperatorT()
        vars(made).update(vars(operator))
        made.inputs, made.builtinOptions = list(inputs), options
        return made

    def replace(self, old: Sequence[Any], new: Sequence[Any]) -> None:
        """Put `new` in the place of the last of `old`, and remove unpacking that only they have read."""
        operators = self.graph.operators
        gone = {id(operator) for operator in old}
        last = max(position for position, operator in enumerate(operators) if id(operator) in gone)
        kept = [*operators[:last], *new, *operators[last + 1 :]]
        self.graph.operators = [operator for operator in kept if id(operator) not in gone]
        self._index()
        inputs = {int(i) for operator in old for i in listed(operator.inputs)} - {-1}
        unread = [
            self.maker[i]
            for i in inputs
            if not self.readers.get(i) and i in self.maker and self.constant(i) is not None
        ]
        self.graph.operators = [each for each in self.graph.operators if all(each is not other for other in unread)]
        self._index()

    def _used(self) -> set[int]:
        """The tensors that the graph uses."""
        found = [*listed(self.graph.inputs), *listed(self.graph.outputs)]
        for operator in self.graph.operators:
            found += [*listed(operator.inputs), *listed(operator.outputs), *listed(operator.intermediates)]
        return {int(i) for i in found}

    def data(self) -> bytes:
        self._compact()
        return packed(self.api, self.model)

    def _compact(self) -> None:
        """Remove the tensors that were used before the edits and are not any more, and the bytes of their buffers."""
        graph, tensors = self.graph, self.graph.tensors
        unused = self._before - self._used()
        if not unused:
            return
        freed = {tensors[i].buffer for i in unused}
        number: dict[int, int] = {-1: -1}
        for i in range(len(tensors)):
            if i not in unused:
                number[i] = len(number) - 1
        graph.tensors = [tensor for i, tensor in enumerate(tensors) if i not in unused]

        def renumbered(found: Any) -> Any:
            return found if found is None else [number[int(i)] for i in found]

        graph.inputs, graph.outputs = renumbered(graph.inputs), renumbered(graph.outputs)
        for operator in graph.operators:
            operator.inputs, operator.outputs = renumbered(operator.inputs), renumbered(operator.outputs)
            operator.intermediates = renumbered(operator.intermediates)
        for signature in listed(self.model.signatureDefs):
            if signature.subgraphIndex == 0:
                for pair in (*listed(signature.inputs), *listed(signature.outputs)):
                    pair.tensorIndex = number[pair.tensorIndex]
        shared = {tensor.buffer for each in self.model.subgraphs for tensor in each.tensors}
        shared |= {each.buffer for each in listed(self.model.metadata)} | set(
            map(int, listed(self.model.metadataBuffer))
        )
        for buffer in freed - shared:
            self.model.buffers[buffer].data = None
        self._before = self._used()
        self._index()
