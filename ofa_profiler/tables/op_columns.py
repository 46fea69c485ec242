"""The columns of a table that describe an op: converts ops to cells and back.

The fixed columns describe convolutional blocks. The column `attributes` stores the rest as JSON: other attributes, and
inputs and outputs unless they are one float32 tensor each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ofa_profiler.networks.blocks import block_op, default_family
from ofa_profiler.networks.graph import INPUT
from ofa_profiler.networks.layers.activations import ACTIVATIONS
from ofa_profiler.networks.ofa_keys import KEY_PREFIX, has_published_prefix, parse_key
from ofa_profiler.networks.op import Op, check_attributes
from ofa_profiler.networks.tensors import Shape, TensorSpec

#: The attributes with their own column.
ATTRIBUTE_COLUMNS = ("kernel_size", "mid_channels", "stride", "skip", "se", "activation")
_OUTPUT = "output"
#: From here on, a column has more digits than a cell may have.
_LARGEST = 10**18
_INPUTS, _OUTPUTS = "inputs", "outputs"


def op_values(op: Op) -> dict[str, Any]:
    """Column -> value for an op; None if the op has no such attribute, or one that only `attributes` can hold."""
    return {
        "op": op.key,
        "kind": op.kind,
        "input_shape": op.input_shape,
        "output_shape": op.output_shape,
        **{name: op.attributes.get(name) if _fits(op, name) else None for name in ATTRIBUTE_COLUMNS},
    }


def _fits(op: Op, name: str) -> bool:
    """Whether the column of an attribute gives back its value."""
    value = op.attributes.get(name)
    if name in ("skip", "se"):
        return isinstance(value, bool)
    if name == "activation":
        has_column = isinstance(value, str) and value == value.strip() and value.isprintable()
        return has_column and (bool(value) or _is_published(op.kind, op.key))
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def other_attributes(op: Op) -> str:
    """The cell of the column `attributes`: everything that has no other column, as JSON; empty if there is nothing.

    A family is not written where it is the default of the other columns: so tables of version 0.1 and of this one are
    the same.
    """
    more: dict[str, Any] = {
        name: value for name, value in op.attributes.items() if name not in ATTRIBUTE_COLUMNS or not _fits(op, name)
    }
    if more.get("family") == default_family(op.kind, str(op.attributes.get("activation", ""))):
        more.pop("family", None)
    for name, tensors, usual in ((_INPUTS, op.inputs, INPUT), (_OUTPUTS, op.outputs, _OUTPUT)):
        if not tensors[0].shape or tensors != _usual(usual, tensors[0].shape):
            more[name] = [tensor.to_json() for tensor in tensors]
    return json.dumps(more, sort_keys=True) if more else ""


def _usual(name: str, shape: Shape) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name, "float32", shape),)


def parse_attributes(text: str) -> dict[str, Any]:
    """Parse a cell of the column `attributes`. Raises `ValueError`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("is not a JSON object")
    tensors = {name: _tensors(name, data.pop(name)) for name in (_INPUTS, _OUTPUTS) if name in data}
    return {**check_attributes(data), **tensors}


def _tensors(name: str, data: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(data, list) or not data:
        raise ValueError(f"its {name} are not a list of tensors")
    return tuple(map(TensorSpec.from_json, data))


def _is_published(kind: str, key: str) -> bool:
    """Whether an op is a block of the published tables: its kind is one of theirs, and its key begins like theirs."""
    return kind in KEY_PREFIX and (not key or has_published_prefix(key))


def op_of(values: Mapping[str, Any]) -> Op:
    """The op that the values of a row describe. Raises `ValueError` with the wrong column."""
    kind, key = values["kind"], values["op"]
    more = dict(values.get("attributes") or {})
    if _is_published(kind, key):
        return _published_op(values, more)
    if (published := parse_key(key)) is not None:
        named = published["kind"]
        raise ValueError(f"column kind: {kind!r:.120} contradicts the key, which has the kind {named}")
    fields = {name: values[name] for name in ATTRIBUTE_COLUMNS if values[name] not in (None, "")}
    tensors = []
    for name, column, usual in ((_INPUTS, "input_shape", INPUT), (_OUTPUTS, "output_shape", _OUTPUT)):
        given = more.pop(name, None)
        if given is None and values[column] is None:
            raise ValueError(f"column {column}: is empty, and the column attributes has no {name}")
        tensors.append(given if given is not None else _usual(usual, values[column]))
    try:
        return Op(kind, tensors[0], tensors[1], {**fields, **more}, key)
    except ValueError as error:
        raise ValueError(f"column op: {error}") from None


def _published_op(values: Mapping[str, Any], more: dict[str, Any]) -> Op:
    kind = values["kind"]
    for name in ("input_shape", "output_shape", *ATTRIBUTE_COLUMNS[:-1]):
        if values[name] is None:
            raise ValueError(f"column {name}: is empty, but an op of the kind {kind} needs a value")
    if values["activation"] not in ACTIVATIONS:
        known = ", ".join(filter(None, ACTIVATIONS))
        raise ValueError(f"column activation: {values['activation']!r:.120} is not one of {known}, nor empty")
    fields = {name: values[name] for name in ATTRIBUTE_COLUMNS}
    family = more.pop("family", None) or default_family(kind, values["activation"])
    if family is not None:
        fields["family"] = family
    op = block_op(kind, values["input_shape"], values["output_shape"], **fields)
    inputs, outputs = more.pop(_INPUTS, op.inputs), more.pop(_OUTPUTS, op.outputs)
    return Op(kind, inputs, outputs, {**op.attributes, **more}, op.key)
