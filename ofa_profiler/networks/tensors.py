"""The description of a tensor: name, element type and shape; the span of its values."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

Shape = tuple[int, ...]

#: Element types of tensors, by their names in numpy.
DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


class Span(NamedTuple):
    """The smallest and the largest value of a tensor."""

    low: float
    high: float

    def clipped(self, limits: Span) -> Span:
        """The part within `limits`."""
        return Span(*(min(max(value, limits.low), limits.high) for value in self))

    def with_zero(self) -> Span:
        """The smallest span that has both this one and 0."""
        return Span(min(self.low, 0.0), max(self.high, 0.0))


#: Normalised images, and what BatchNorm makes of a sum of many products: four standard deviations.
USUAL_SPAN = Span(-4.0, 4.0)


class TensorSpec(NamedTuple):
    """An input or output. `dtype` is the name of its element type in numpy.

    The shapes of an op have no batch, and channels come last (`layers/base.py`). The shapes of a model are those in
    its file. `range` is for integer inputs: the smallest valid value, and the largest valid value plus 1. `span` is for
    floats: the smallest and the largest value with which the model is timed; None: -1 and 1.
    """

    name: str
    dtype: str
    shape: Shape
    range: tuple[int, int] | None = None
    span: Span | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        data: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}
        limits = {"range": self.range, "span": self.span}
        return {**data, **{key: list(value) for key, value in limits.items() if value is not None}}

    @staticmethod
    def from_json(data: Any) -> TensorSpec:
        """Read the result of `to_json`. Raises `ValueError`."""
        if not isinstance(data, Mapping):
            raise ValueError("a tensor must be an object with name, dtype and shape")
        name, dtype, shape, limits = (data.get(key) for key in ("name", "dtype", "shape", "range"))
        if not isinstance(name, str):
            raise ValueError("the name of a tensor must be a string")
        if dtype not in DTYPES:
            raise ValueError(f"the dtype of tensor {name!r:.80} is {dtype!r:.40}, not one of {', '.join(DTYPES)}")
        if not isinstance(shape, list) or not all(_is_integer(size) and size > 0 for size in shape):
            raise ValueError(f"the shape of tensor {name!r:.80} must be a list of positive whole numbers")
        if limits is not None and not (
            isinstance(limits, list) and len(limits) == 2 and all(map(_is_integer, limits)) and limits[0] < limits[1]
        ):
            raise ValueError(f"the range of tensor {name!r:.80} must be two whole numbers in ascending order")
        span = _span(data.get("span"), name, dtype)
        return TensorSpec(name, dtype, tuple(shape), None if limits is None else (limits[0], limits[1]), span)


def _span(data: Any, name: str, dtype: str) -> Span | None:
    if data is None:
        return None
    if not dtype.startswith("float"):
        raise ValueError(f"tensor {name!r:.80} has a span, but it is {dtype}; only floats have one")
    if not (isinstance(data, list) and len(data) == 2 and all(map(_is_finite, data)) and data[0] <= data[1]):
        raise ValueError(f"the span of tensor {name!r:.80} must be two finite numbers in ascending order")
    return Span(float(data[0]), float(data[1]))


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return _is_integer(value) and abs(value) < 2**1023


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
