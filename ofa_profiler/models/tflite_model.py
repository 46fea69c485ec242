"""TFLite files of users, for LiteRT with XNNPACK. The operators of a file are its kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ofa_profiler.models.base import Array, Block, Feed, ModelInput, TimedModel, UserModel, spec_of
from ofa_profiler.models.tflite_cut import is_cuttable, shape_tensors
from ofa_profiler.models.tflite_cutter import Cutter, Seen
from ofa_profiler.models.tflite_file import Operator, read_tflite
from ofa_profiler.models.tflite_inputs import index_range
from ofa_profiler.models.tflite_runtime import captured, check_loads, is_delegated, outputs_of, prepared, reasons
from ofa_profiler.networks.tensors import DTYPES, Shape

#: Operators with weights; the network counts as int8 if one of them computes in integers.
_WEIGHTED = {
    "BATCH_MATMUL",
    "CONV_2D",
    "CONV_3D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
}
#: All values of quantized tensors.
_QUANTIZED = {"int8": (-128, 128), "uint8": (0, 256), "int16": (-(2**15), 2**15)}


class TfliteModel(UserModel):
    """A TFLite file. Raises `InputFileError` if it is damaged, or if LiteRT does not load it.

    `is_ours`: it was written just now, so that it need not be loaded in a process of its own first.
    """

    runtime = "litert"

    def __init__(self, path: Path, *, is_ours: bool = False) -> None:
        self.path = path
        self._file = read_tflite(path)
        if not is_ours:
            check_loads(path)
        self.inputs = tuple(self._input(i) for i in self._file.inputs)
        self.sha256 = hashlib.sha256(self._file.data).hexdigest()
        self.n_bytes = len(self._file.data)
        self.precision = "int8" if any(map(self._is_integer, self._file.operators)) else "fp32"

    def _input(self, i: int) -> ModelInput:
        tensor = self._file.tensors[i]
        limits = _QUANTIZED.get(tensor.dtype) if tensor.is_quantized else index_range(self._file, i)
        return ModelInput(tensor.name, tensor.dtype, tuple(size if size >= 0 else "?" for size in tensor.shape), limits)

    def _is_integer(self, operator: Operator) -> bool:
        tensors = self._file.tensors
        return operator.kind in _WEIGHTED and any(tensors[i].dtype in _QUANTIZED for i in operator.given[:1])

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        with reasons(str(self.path)):
            interpreter = prepared(self._file.data, feeds)
            interpreter.invoke()
            return outputs_of(interpreter)

    def whole(self, feeds: Mapping[str, Array]) -> TimedModel:
        return TimedModel(self._file.data, tuple(Feed.exact(given.name, feeds[given.name]) for given in self.inputs))

    def cutter(self, feeds: Mapping[str, Array], *, this_machine: bool) -> Cutter:  # noqa: ARG002
        """What cuts the graph."""
        with reasons(str(self.path)):
            delegated = is_delegated(prepared(self._file.data, feeds))
            seen = self._look(feeds)
        return Cutter(self._file, seen, delegated=delegated)

    def blocks(self, feeds: Mapping[str, Array], *, this_machine: bool) -> tuple[Block, ...]:
        cutter = self.cutter(feeds, this_machine=this_machine)
        blocks = cutter.blocks() if is_cuttable(self._file) else ()
        return blocks if len(blocks) > 1 else (cutter.single(self.whole(feeds)),)

    def _look(self, feeds: Mapping[str, Array]) -> Seen:
        """Run the network once with all tensors kept."""
        interpreter = captured(self._file.data, feeds)
        constant = shape_tensors(self._file)
        shapes: dict[int, Shape] = {}
        found: dict[int, Feed] = {}
        fixed: dict[int, Array] = {}
        made = [*self._file.inputs, *self._file.maker]
        for i, tensor in enumerate(self._file.tensors):
            if tensor.is_constant or tensor.is_variable:
                shapes[i] = tensor.shape
        for i in made:
            if self._file.tensors[i].dtype not in DTYPES:
                continue  # for these the runtime has no array, and may end the process
            try:
                values = interpreter.get_tensor(i)
            except ValueError:
                continue  # no memory: nobody reads it, or it is no array
            shapes[i] = values.shape
            found[i] = self._feed(i, values)
            if i in constant:
                fixed[i] = values
        return Seen(shapes, found, fixed)

    def _feed(self, i: int, values: Array) -> Feed:
        tensor = self._file.tensors[i]
        if tensor.is_quantized and tensor.dtype in _QUANTIZED and values.size:
            limits = (int(values.min()), int(values.max()) + 1)
            return Feed(spec_of(tensor.name, values)._replace(range=limits))
        return Feed.like(tensor.name, values)
