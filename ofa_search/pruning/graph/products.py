"""Products of matrices of which none is a layer's weights, as in attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ofa_search.pruning.graph.analysis import Analysis, Handler
from ofa_search.pruning.graph.calls import Call
from ofa_search.pruning.graph.classes import Labels, varying
from ofa_search.pruning.graph.layers import linear
from ofa_search.pruning.graph.values import Flags, Value

Given = Mapping[str, Any]


def matmul(analysis: Analysis, call: Call, given: Given) -> Any:
    """`matmul`, `bmm` and `mm`; with a parameter of two axes on the right, a linear layer."""
    first, second = (given[name] for name in (("self", "mat2") if "mat2" in given else ("self", "other")))
    if second.parameter is not None and second.axes == 2:
        own = second.parameter
        weight = Value(second.shape[::-1], second.labels, second.zero, type(own)(own.name, own.axes[::-1]))
        return linear(analysis, call, {"input": first, "weight": weight})
    batch = "abcdefgh"[: max(first.axes, second.axes) - 2]
    left = ("i" if first.axes == 1 else batch[len(batch) + 2 - first.axes :] + "ik")[-first.axes :]
    right = "k" if second.axes == 1 else batch[len(batch) + 2 - second.axes :] + "kj"
    left = "k" if first.axes == 1 else left
    out = batch + ("i" if first.axes > 1 else "") + ("j" if second.axes > 1 else "")
    return _product(analysis, call, [first, second], [left, right], out)


def einsum(analysis: Analysis, call: Call, given: Given) -> Any:
    """A product by letters, of two tensors."""
    equation, values = given["equation"].replace(" ", ""), given["tensors"]
    if "..." in equation or "->" not in equation or len(values) != 2:
        return analysis.unknown(call, values)
    inputs, out = equation.split("->")
    if any(len(set(letters)) != len(letters) for letters in inputs.split(",")):
        return analysis.unknown(call, values)
    return _product(analysis, call, values, inputs.split(","), out)


def addmm(analysis: Analysis, call: Call, given: Given) -> Any:
    """A linear layer by another name."""
    weight = given["mat2"]
    if weight.parameter is None or given["self"].parameter is None:
        return analysis.unknown(call, [given["self"], given["mat1"], weight])
    own = weight.parameter
    turned = Value(weight.shape[::-1], weight.labels, weight.zero, type(own)(own.name, own.axes[::-1]))
    return linear(analysis, call, {"input": given["mat1"], "weight": turned, "bias": given["self"]})


def _product(analysis: Analysis, call: Call, values: Sequence[Value], letters: Sequence[str], out: str) -> Any:
    """A product of two tensors, of which each axis has a letter."""
    operands = [analysis.labelled(value) for value in values]
    real = [
        {letter: operand.shape[i] for i, letter in enumerate(each)}
        for operand, each in zip(operands, letters, strict=True)
    ]
    # An axis of size 1 is as good as none.
    batch = [letter for letter in out if all(size.get(letter, 1) > 1 for size in real)]
    vary = [{each[axis] for axis in varying(operand.labels)} for operand, each in zip(operands, letters, strict=True)]
    if any(letter in each for each in vary for letter in batch):
        return _by_batch(analysis, call, operands, letters, out, batch)
    reason = f"{call.operator} in {call.where} combines it with what is fixed"
    contracted = [letter for letter in letters[0] if letter in letters[1] and letter not in out]
    for letter in contracted:
        if any(letter in each for each in vary):
            parts = [_along(operand, each.index(letter)) for operand, each in zip(operands, letters, strict=True)]
            analysis.merge(parts[0][0], parts[1][0], reason)
            for labels, _ in parts:
                analysis.freeze_labels(
                    labels[~(parts[0][1] | parts[1][1])], f"{call.operator} in {call.where} adds to it"
                )
    free = [set(each) - set(contracted) for each in vary]
    if any(free[i] and (vary[i] & set(contracted) or len(free[i]) > 1) for i in (0, 1)) or all(free):
        return analysis.unknown(call, operands, "combines several axes of it")
    for operand, each, mine in zip(operands, letters, free, strict=True):
        if mine:
            return _result(analysis, call, operand, each, out)
    return analysis.unlabelled(call)


def _by_batch(
    analysis: Analysis, call: Call, operands: Sequence[Value], letters: Sequence[str], out: str, batch: Sequence[str]
) -> Value:
    """A product of many matrices, of which each goes as a whole."""
    tied = _tied(analysis, call, operands, [[each.index(letter) for letter in batch] for each in letters])
    zero = np.zeros((1,) * len(batch), np.bool_)
    for operand, each in zip(operands, letters, strict=True):
        inner = tuple(i for i, letter in enumerate(each) if letter not in batch)
        flags: Flags = np.asarray(operand.zero.all(inner))
        left = [letter for letter in each if letter in batch]
        zero = zero | flags.transpose([left.index(letter) for letter in batch])
    zero = np.broadcast_to(zero, np.broadcast_shapes(zero.shape, tied.shape))
    in_order = [letter for letter in out if letter in batch]
    order = [list(batch).index(letter) for letter in in_order]
    labels, zero = tied.transpose(order), zero.transpose(order)
    places = [out.index(letter) for letter in in_order]
    others = tuple(i for i in range(len(out)) if i not in places)
    return analysis.value(call.shape, np.expand_dims(labels, others), np.expand_dims(zero, others))


def _tied(analysis: Analysis, call: Call, operands: Sequence[Value], batch: Sequence[Sequence[int]]) -> Labels:
    """All that has the same place along the axes of the batch is one unit, like a head of attention.

    Returns the labels along these axes.
    """
    reason = f"{call.operator} in {call.where} combines it with what is fixed"
    shared: list[Labels] = []
    for operand, axes in zip(operands, batch, strict=False):
        whole = analysis.merge_along(operand, [axis for axis in range(operand.axes) if axis not in axes], reason)
        labels = np.moveaxis(whole.labels, axes, range(len(axes)))
        shared.append(labels.reshape(*labels.shape[: len(axes)], -1)[..., 0])
        analysis.merge(shared[0], shared[-1], reason)
    analysis.heads.extend(shared)
    return analysis.classes.resolve(np.broadcast_arrays(*shared)[0])


def _result(analysis: Analysis, call: Call, operand: Value, letters: str, out: str) -> Value:
    """The labels of the only operand that has some along the axes that are left. A product is zero if one side is."""
    gone = tuple(i for i, letter in enumerate(letters) if letter not in out)
    left = [letter for letter in letters if letter in out]
    order = [left.index(letter) for letter in out if letter in left]
    more = tuple(i for i, letter in enumerate(out) if letter not in left)
    labels, zero = np.asarray(operand.labels.max(gone)), np.asarray(operand.zero.all(gone))
    return analysis.value(
        call.shape, np.expand_dims(labels.transpose(order), more), np.expand_dims(zero.transpose(order), more)
    )


def attention(analysis: Analysis, call: Call, given: Given) -> Any:
    """`scaled_dot_product_attention`: (…, heads, length, size)."""
    query, key, value = operands = [analysis.labelled(given[name]) for name in ("query", "key", "value")]
    mask = None if given.get("attn_mask") is None else analysis.labelled(given["attn_mask"])
    size = query.axes - 1
    leading = [axis for axis in range(size - 1) if query.shape[axis] > 1]
    shared = [operand for operand in (key, value) if all(operand.shape[axis] == 1 for axis in leading)]
    if query.axes != key.axes or (query.shape[:-2] != key.shape[:-2] and len(shared) < 2):
        return analysis.unknown(call, [*operands, *([mask] if mask else [])], "has heads that share keys")
    if any(axis in varying(operand.labels) for operand in operands for axis in leading):
        if shared:
            analysis.unknown(call, shared, "has heads that share it")
        labels = _tied(analysis, call, [query] if shared else operands, [leading] * 3)
        labels = np.expand_dims(labels, [axis for axis in range(query.axes) if axis not in leading])
        if mask is not None:
            _mask(analysis, call, labels, mask)
        zero = np.broadcast_to(value.zero.all((-2, -1), keepdims=True), labels.shape)
        return analysis.value(call.shape, labels, zero)
    if given.get("scale") is None or any(size - 1 in varying(operand.labels) for operand in operands):
        for operand in (query, key):
            analysis.freeze(operand, f"attention in {call.where} is scaled by their number")
    else:
        reason = f"attention in {call.where} combines it with what is fixed"
        analysis.merge(_along(query, size)[0], _along(key, size)[0], reason)
    return analysis.value(call.shape, value.labels, value.zero)


def _mask(analysis: Analysis, call: Call, labels: Labels, mask: Value) -> None:
    """What is added to the scores has the same heads, or one for all."""
    more = (1,) * (labels.ndim - mask.axes)
    if any((more + mask.shape)[axis] > 1 for axis in varying(labels)):
        own = mask.labels.reshape(more + mask.labels.shape)
        analysis.merge(labels, own, f"attention in {call.where} has a mask that is fixed")


def _along(value: Value, axis: int) -> tuple[Labels, Flags]:
    first = tuple(slice(None) if other == axis else 0 for other in range(value.axes))
    size = (value.shape[axis],)
    flags = np.moveaxis(value.zero, axis, 0).reshape(value.zero.shape[axis], -1).all(1)
    return np.broadcast_to(value.labels[first], size), np.broadcast_to(flags, size)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(["matmul", "bmm", "mm"], matmul),
    "einsum": einsum,
    "addmm": addmm,
    "scaled_dot_product_attention": attention,
}
