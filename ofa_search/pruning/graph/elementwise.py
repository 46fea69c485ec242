"""Operators that work on each element by itself, or on those at the same place of several tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ofa_search.pruning.graph.analysis import EACH, Analysis, Handler
from ofa_search.pruning.graph.calls import Call, values_in
from ofa_search.pruning.graph.classes import Labels, varying
from ofa_search.pruning.graph.values import Flags, Value, moved, plain

Given = Mapping[str, Any]
#: Whether a result is zero, from whether each operand is.
Rule = Callable[[Sequence[Flags]], Flags]

# fmt: off
#: They give zero for zero.
KEEP_ZERO = (
    "abs", "alias", "alpha_dropout", "asin", "asinh", "atan", "atanh", "celu", "ceil", "clone", "contiguous", "detach",
    "dropout", "elu", "erf", "expm1", "feature_alpha_dropout", "feature_dropout", "floor", "gelu", "hardshrink",
    "hardswish", "leaky_relu", "lift_fresh_copy", "log1p", "mish", "nan_to_num", "neg", "negative", "positive", "relu",
    "relu6", "round", "rrelu", "selu", "sgn", "sign", "silu", "sin", "sinh", "softshrink", "softsign", "sqrt", "square",
    "tan", "tanh", "to", "trunc", "type_as", "_to_copy",
)
#: They do not.
LOSE_ZERO = (
    "acos", "acosh", "bitwise_not", "cos", "cosh", "digamma", "erfc", "erfinv", "exp", "exp2", "hardsigmoid",
    "isfinite", "isinf", "isnan", "lgamma", "log", "log10", "log2", "log_sigmoid", "logical_not", "logit", "reciprocal",
    "rsqrt", "sigmoid", "softplus", "special_expit", "threshold",
)
#: Comparisons and the like.
COMPARE = (
    "atan2", "bitwise_and", "bitwise_or", "eq", "floor_divide", "fmod", "ge", "gt", "le", "logical_and", "logical_or",
    "logical_xor", "lt", "ne", "remainder",
)
#: What a layer reads after them is still the parameter itself.
_UNCHANGED = {"alias", "clone", "contiguous", "detach", "dropout", "lift_fresh_copy", "to", "type_as", "_to_copy"}
#: Of their first tensor, only the shape counts.
_NEW = ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like")
# fmt: on


def one(analysis: Analysis, call: Call, given: Given, *, keeps_zero: bool = True) -> Value:
    """An operator on one tensor."""
    x = next(values_in(given))
    if x.parameter is not None and keeps_zero and x.shape == call.shape and call.operator in _UNCHANGED:
        return x
    x = analysis.labelled(x)
    return analysis.value(call.shape, x.labels, x.zero & keeps_zero)


def _loses_zero(analysis: Analysis, call: Call, given: Given) -> Value:
    return one(analysis, call, given, keeps_zero=False)


def clamp(analysis: Analysis, call: Call, given: Given) -> Value:
    """Limits: numbers, or one tensor each."""
    if any(isinstance(given.get(name), Value) for name in ("min", "max")):
        return several(analysis, call, list(values_in(given)), _never)
    low, high = given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))
    if call.operator == "hardtanh":
        low, high = given["min_val"], given["max_val"]
    keeps = (low is None or low <= 0) and (high is None or high >= 0)
    return one(analysis, call, given, keeps_zero=keeps)


def add(analysis: Analysis, call: Call, given: Given) -> Value:
    """Sums and differences are zero if both sides are."""
    numbers = [given[name] for name in ("self", "other") if not isinstance(given[name], Value)]
    none = not any(numbers)
    return several(analysis, call, list(values_in(given)), lambda flags: _all(flags) & none)


def multiply(analysis: Analysis, call: Call, given: Given) -> Value:
    """Products are zero if either side is."""
    return several(analysis, call, list(values_in(given)), _any)


def divide(analysis: Analysis, call: Call, given: Given) -> Value:
    """Quotients are zero if the dividend is. A divisor must not be made zero."""
    values = [given[name] for name in ("self", "other")]
    if not isinstance(values[0], Value):
        return several(analysis, call, list(values_in(given)), _never)
    if not isinstance(values[1], Value):
        return one(analysis, call, given)
    divisor = values[1].parameter
    if divisor is not None:
        analysis.follower(divisor.name, 0 if len(analysis.trace.state[divisor.name]) == 1 else EACH)
    return several(analysis, call, values, lambda flags: flags[0])


def power(analysis: Analysis, call: Call, given: Given) -> Value:
    """Powers of zero are zero if the exponent is positive."""
    exponent = given.get("exponent")
    positive = isinstance(exponent, int | float) and exponent > 0
    return several(analysis, call, list(values_in(given)), lambda flags: flags[0] & positive)


def where(analysis: Analysis, call: Call, given: Given) -> Value:
    """A choice between two tensors is zero if both are."""
    return several(analysis, call, list(values_in(given)), lambda flags: _all(flags[1:]) & (len(flags) == 3))


def masked_fill(analysis: Analysis, call: Call, given: Given) -> Value:
    """A number in some places."""
    filled = given["value"]
    keeps = not isinstance(filled, Value) and filled == 0
    return several(analysis, call, [given["self"], given["mask"]], lambda flags: flags[0] & keeps)


def addcmul(analysis: Analysis, call: Call, given: Given) -> Value:
    """A sum with a product."""
    values = [given["self"], given["tensor1"], given["tensor2"]]
    return several(analysis, call, values, lambda flags: flags[0] & (flags[1] | flags[2]))


def new(_analysis: Analysis, call: Call, _given: Given) -> Value:
    """A tensor whose elements do not depend on any other."""
    return plain(call.shape)


def nothing(_analysis: Analysis, _call: Call, _given: Given) -> None:
    """A check."""


def compare(analysis: Analysis, call: Call, given: Given) -> Value:
    """Comparisons and the like, of which nothing is known."""
    return several(analysis, call, list(values_in(given)), _never)


def maximum(analysis: Analysis, call: Call, given: Given) -> Value:
    """Zero if all are."""
    return several(analysis, call, list(values_in(given)), _all)


def several(analysis: Analysis, call: Call, values: Sequence[Value], rule: Rule) -> Value:
    """An operator on elements at the same place: they go together."""
    axes = len(call.shape)
    operands = [_aligned(_alike(analysis, value), axes) for value in values]
    operands = [_narrow(analysis, call, operand, operands) for operand in operands]
    operands = [_shared(operand, operands) for operand in operands]
    for operand in operands:
        for partner in operands:
            if partner is not operand:
                _meet(analysis, call, operand, partner)
    labels = _joined([operand.labels for operand in operands], analysis)
    return analysis.value(call.shape, labels, rule([operand.zero for operand in operands]))


def _alike(analysis: Analysis, value: Value) -> Value:
    """A value with labels. Axes along which it has the same elements again and again could be of any size."""
    x, known = analysis.labelled(value), value.constant
    labels, zero, shape = x.labels, x.zero, list(x.shape)
    for axis, size in enumerate(shape):
        copies = axis in value.copies
        if known is not None and known.shape == x.shape and not copies:
            copies = bool((known == known.narrow(axis, 0, 1)).all())
        if size > 1 and copies:
            shape[axis] = 1
            labels, zero = np.take(labels, [0], axis), np.take(zero, [0], axis)
    return Value(tuple(shape), labels, zero, static=value.static)


def _aligned(value: Value, axes: int) -> Value:
    """The value with axes of size 1 before its own."""
    more = (1,) * (axes - value.axes)
    wider = moved(value, more + value.shape, lambda array: array.reshape(more + array.shape))
    return replace(wider, static=value.static)


def _shared(value: Value, operands: Sequence[Value]) -> Value:
    """Parameters that the outer axis of others shares wait until it is known along which axis those are cut.

    They are for each channel of several tokens, or for what is inside of several heads.
    """
    for other in operands if value.static else ():
        theirs = varying(other.labels)
        inside = [axis for axis in theirs if value.shape[axis] > 1]
        if not other.static and inside and value.shape[theirs[0]] == 1:
            return Value(tuple(1 if axis in inside else size for axis, size in enumerate(value.shape)), *_none(value))
    return value


def _none(value: Value) -> tuple[Labels, Flags]:
    empty = plain(value.shape)
    return empty.labels, empty.zero


def _narrow(analysis: Analysis, call: Call, value: Value, operands: Sequence[Value]) -> Value:
    """An operand that has one element for several of what can be removed has no part in removing them."""
    mine = varying(value.labels)
    for other in operands if (value.labels >= 0).any() else ():
        theirs = varying(other.labels)
        if any(value.shape[axis] == 1 for axis in theirs) and not set(mine) & set(theirs):
            analysis.freeze(value, f"is used for several channels by {call.operator} in {call.where}")
            return plain(value.shape)
    return value


def _meet(analysis: Analysis, call: Call, value: Value, partner: Value) -> None:
    """Merge the labels of a value with those of another operand, unless that has one element for all of them."""
    if not (value.labels >= 0).any():
        return
    if (partner.labels >= 0).any() or any(partner.shape[axis] > 1 for axis in varying(value.labels)):
        analysis.merge(value.labels, partner.labels, _meets_fixed(call))


def _meets_fixed(call: Call) -> str:
    return f"{call.operator} in {call.where} combines it with an input or a constant"


def _joined(arrays: Sequence[Labels], analysis: Analysis) -> Labels:
    """For each element the label of the first operand that has one."""
    shaped = np.broadcast_arrays(*(analysis.classes.resolve(array) for array in arrays))
    found = shaped[0].copy()
    for array in shaped[1:]:
        found = np.where(found >= 0, found, np.where(array >= 0, array, np.minimum(found, array)))
    return found


def _any(flags: Sequence[Flags]) -> Flags:
    found = flags[0]
    for each in flags[1:]:
        found = found | each
    return found


def _all(flags: Sequence[Flags]) -> Flags:
    found = flags[0]
    for each in flags[1:]:
        found = found & each
    return found


def _never(flags: Sequence[Flags]) -> Flags:
    return np.zeros((1,) * flags[0].ndim, np.bool_)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(KEEP_ZERO, one),
    **dict.fromkeys(LOSE_ZERO, _loses_zero),
    **dict.fromkeys(COMPARE, compare),
    **dict.fromkeys(["add", "sub", "rsub"], add),
    **dict.fromkeys(["mul"], multiply),
    **dict.fromkeys(["div", "true_divide"], divide),
    **dict.fromkeys(["maximum", "minimum", "fmax", "fmin"], maximum),
    **dict.fromkeys(["clamp", "clamp_min", "clamp_max", "clip", "hardtanh"], clamp),
    **dict.fromkeys(_NEW, new),
    **dict.fromkeys(("_assert_tensor_metadata", "_assert_scalar", "_assert_async"), nothing),
    "pow": power,
    "where": where,
    "masked_fill": masked_fill,
    "addcmul": addcmul,
}
