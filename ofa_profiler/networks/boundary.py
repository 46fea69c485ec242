"""Ops where the precision of a network changes: `quantize` (float32 to integers) and `dequantize` (back).

An int8 op alone includes both, because its model takes and gives float32. In a network they exist only at its ends and
between slots of different precision, so a table has them as rows of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.graph import INPUT, Graph
from ofa_profiler.networks.layers.base import SameShape
from ofa_profiler.networks.op import Op, register_block
from ofa_profiler.networks.tensors import Shape, TensorSpec

QUANTIZE, DEQUANTIZE = "quantize", "dequantize"
#: All values of int8. Their dtype in a model is that of the encoding.
_INTEGERS = "int8"


@dataclass(frozen=True)
class Quantize(SameShape):
    """float32 -> integers."""


@dataclass(frozen=True)
class Dequantize(SameShape):
    """Integers -> float32."""


_LAYERS = {QUANTIZE: Quantize, DEQUANTIZE: Dequantize}


def boundary_op(kind: str, shape: Shape) -> Op:
    """The op of the kind `quantize` or `dequantize` for a tensor of this shape."""
    dtypes = ("float32", _INTEGERS) if kind == QUANTIZE else (_INTEGERS, "float32")
    inputs, outputs = (TensorSpec(name, dtype, shape) for name, dtype in zip((INPUT, "output"), dtypes, strict=True))
    return Op(kind, (inputs,), (outputs,), {}, f"{kind}-input:{'x'.join(map(str, shape))}")


def is_boundary(graph: Graph) -> bool:
    """Whether a graph is that of a boundary op."""
    return len(graph.nodes) == 1 and isinstance(graph.nodes[0].layer, (Quantize, Dequantize))


@register_block(QUANTIZE)
@register_block(DEQUANTIZE)
def _boundary(op: Op) -> Graph:
    layer = _LAYERS[op.kind](op.kind)
    return Graph(op.inputs, Graph.chain((layer,), op.input_shape).nodes, (op.kind,))
