"""onnxruntime: hard sigmoid and hard-swish that are exported as arithmetic become one or two operators.

Add, Clip, Mul and Div cost a pass over the map each. onnxruntime makes HardSigmoid, and from opset 14 on HardSwish,
part of the convolution before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose

import onnx

from ofa_profiler.models.onnx_graph import attributes
from ofa_profiler.models.rewriting.base import Pattern, Site
from ofa_profiler.models.rewriting.onnx_document import OnnxDocument, scalar

_HARD_SWISH_SINCE, _LIMITS_ARE_INPUTS_SINCE = 14, 11


@dataclass(frozen=True, eq=False)
class _Site(Site):
    """relu6(x + shift) / limit, multiplied by x if `is_swish`."""

    nodes: tuple[onnx.NodeProto, ...]
    x: str
    shift: float
    limit: float
    is_swish: bool


class HardSigmoid(Pattern[OnnxDocument, _Site]):
    """clip(x + 3, 0, 6) / 6, also multiplied by x, in any order."""

    name, runtime, kinds = "hard-swish of single operators", "onnxruntime", ("Clip",)

    def site(self, document: OnnxDocument, operator: onnx.NodeProto) -> _Site | None:
        return _around(document, operator)

    def edit(self, document: OnnxDocument, site: _Site) -> None:
        name = site.place
        if site.is_swish and document.opset >= _HARD_SWISH_SINCE and (site.shift, site.limit) == (3.0, 6.0):
            document.replace(site.nodes, [onnx.helper.make_node("HardSwish", [site.x], [name], name=name)])
            return
        gate = document.fresh(f"{name}_gate") if site.is_swish else name
        alpha, beta = 1 / site.limit, site.shift / site.limit
        new = [onnx.helper.make_node("HardSigmoid", [site.x], [gate], name=gate, alpha=alpha, beta=beta)]
        if site.is_swish:
            new.append(onnx.helper.make_node("Mul", [site.x, gate], [name], name=name))
        document.replace(site.nodes, new)


def _around(document: OnnxDocument, clip: onnx.NodeProto) -> _Site | None:
    add = document.made_by(clip.input[0], "Add")
    limit = _upper_limit(document, clip)
    if add is None or limit is None or not document.is_inner(add.output[0]):
        return None
    x, shift = _with_scalar(document, add)
    if not x or not document.is_float(x):
        return None
    nodes, tensor, is_swish, is_divided = [add, clip], clip.output[0], False, False
    while not (is_swish and is_divided):
        node = document.reader(tensor)
        if node is None:
            break
        other = [name for name in node.input if name != tensor]
        if node.op_type == "Mul" and other == [x] and not is_swish:
            is_swish = True
        elif not is_divided and _divides(document, node, tensor, limit):
            is_divided = True
        else:
            break
        nodes.append(node)
        tensor = node.output[0]
    return _Site(tensor, tuple(nodes), x, shift, limit, is_swish) if is_divided else None


def _upper_limit(document: OnnxDocument, clip: onnx.NodeProto) -> float | None:
    """The larger limit, if the smaller one is 0."""
    low: float | None
    high: float | None
    if document.opset < _LIMITS_ARE_INPUTS_SINCE:
        found = attributes(clip)
        low, high = found.get("min"), found.get("max")
    else:
        low, high = (scalar(document, name) for name in (*clip.input[1:3], "", "")[:2])
    return high if low == 0.0 and high is not None and 0.0 < high < float("inf") else None


def _with_scalar(document: OnnxDocument, node: onnx.NodeProto) -> tuple[str, float]:
    """(x, a) of x + a; ("", 0) if it is another sum. `a` must not have more axes than x."""
    for x, other in (tuple(node.input), tuple(reversed(node.input))):
        value = scalar(document, other)
        if value is not None and document.constant(x) is None and _is_flat(document, other, x):
            return x, value
    return "", 0.0


def _divides(document: OnnxDocument, node: onnx.NodeProto, tensor: str, limit: float) -> bool:
    if node.op_type == "Div" and node.input[0] == tensor:
        value = scalar(document, node.input[1])
        return value == limit and _is_flat(document, node.input[1], tensor)
    if node.op_type == "Mul":
        for name in node.input:
            value = scalar(document, name)
            if value is not None and isclose(value * limit, 1.0, rel_tol=1e-6) and _is_flat(document, name, tensor):
                return True
    return False


def _is_flat(document: OnnxDocument, constant: str, tensor: str) -> bool:
    """Whether the constant does not add axes."""
    values, shape = document.constant(constant), document.shape(tensor)
    return values is not None and (values.ndim == 0 or (shape is not None and values.ndim <= len(shape)))
