"""LiteRT: a depthwise convolution with a large kernel as the sum of smaller ones.

XNNPACK has fast depthwise kernels for at most 25 taps; above, it takes a slow path. The taps are divided into grids of
at most 25, each of which is a dilated convolution. For 7x7 the grids of 21, 20 and 8 taps are the fastest known; other
kernels are halved along the longer axis until they are small enough: 9x9 gives 25, 20, 20 and 16 taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_profiler.models.base import Array
from ofa_profiler.models.rewriting.base import Pattern, Site
from ofa_profiler.models.rewriting.tflite_document import TfliteDocument
from ofa_profiler.models.rewriting.tflite_padding import Margins, add_pad, padded_by, same_along

_MOST_TAPS, _MOST_PARTS = 25, 16
#: The first row or column, and the last plus 1, and the step.
Taps = range
Part = tuple[Taps, Taps]
_SEVEN = ((range(1, 6, 2), range(7)), (range(0, 7, 2), range(1, 6)), (range(0, 7, 2), range(0, 7, 6)))


def parts_of(height: int, width: int) -> list[Part]:
    """Grids of at most 25 taps that together are the kernel."""
    if (height, width) == (7, 7):
        return list(_SEVEN)
    found, waiting = [], [(range(height), range(width))]
    while waiting:
        rows, columns = waiting.pop(0)
        if len(rows) * len(columns) <= _MOST_TAPS:
            found.append((rows, columns))
        elif len(rows) > len(columns):
            waiting += [(rows[::2], columns), (rows[1::2], columns)]
        else:
            waiting += [(rows, columns[::2]), (rows, columns[1::2])]
    return found


@dataclass(frozen=True, eq=False)
class _Site(Site):
    """`pad` is an operator in front that only this convolution reads. `margins` include its own."""

    operator: Any
    pad: Any
    tensor: int
    weight: Array
    bias: Array
    margins: Margins | None


class LargeDepthwise(Pattern[TfliteDocument, _Site]):
    """DEPTHWISE_CONV_2D in float32 with more than 25 taps."""

    name, runtime, kinds = "large depthwise convolutions", "litert", ("DEPTHWISE_CONV_2D",)

    def site(self, document: TfliteDocument, operator: Any) -> _Site | None:
        return _site(document, operator)

    def edit(self, document: TfliteDocument, site: _Site) -> None:
        new: list[Any] = []
        total, result = -1, int(site.operator.outputs[0])
        grids = parts_of(*site.weight.shape[1:3])
        for number, grid in enumerate(grids):
            product = document.add_tensor(f"{site.place}/part{number}", result)
            new += _part(document, site, grid, number, product)
            if number:
                is_last = number == len(grids) - 1
                added = result if is_last else document.add_tensor(f"{site.place}/sum{number}", result)
                activation = site.operator.builtinOptions.fusedActivationFunction if is_last else 0
                options = document.options("AddOptions", fusedActivationFunction=activation)
                new.append(document.operator("ADD", 1, [total, product], added, options))
                product = added
            total = product
        document.replace([site.operator] if site.pad is None else [site.pad, site.operator], new)


def _site(document: TfliteDocument, operator: Any) -> _Site | None:
    options, given = operator.builtinOptions, [int(i) for i in operator.inputs]
    weight = document.constant(given[1])
    has_bias = len(given) > 2 and given[2] >= 0
    if weight is None or weight.dtype != np.float32 or weight.ndim != 4 or not document.is_float(given[0]):
        return None
    bias = document.constant(given[2]) if has_bias else np.zeros(weight.shape[3], np.float32)
    taps = weight.shape[1] * weight.shape[2]
    if bias is None or taps <= _MOST_TAPS or len(parts_of(*weight.shape[1:3])) > _MOST_PARTS:
        return None
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        return None
    tensor, pad, extra = given[0], document.maker.get(given[0]), Margins(0, 0, 0, 0)
    if pad is not None and document.kind(pad) == "PAD" and document.is_inner(tensor):
        extra = padded_by(document, pad) or extra
    if pad is not None and any(extra):
        tensor = int(pad.inputs[0])
    else:
        pad = None
    margins = _margins(document, operator, given[0], weight, extra)
    place = document.name(int(operator.outputs[0]))
    site = _Site(place, operator, pad, tensor, weight, bias, margins)
    return site if all(_fits(document, site, grid) for grid in parts_of(*weight.shape[1:3])) else None


def _margins(document: TfliteDocument, operator: Any, tensor: int, weight: Array, extra: Margins) -> Margins | None:
    """What is added around the input in all; None if it depends on an open size."""
    options = operator.builtinOptions
    if options.padding == document.api.Padding.VALID:
        return extra
    shape = document.shape(tensor)
    if not document.has_known_size(tensor):
        return None
    rows = same_along(shape[1], weight.shape[1], options.strideH)
    columns = same_along(shape[2], weight.shape[2], options.strideW)
    return Margins(*(one + other for one, other in zip((*rows, *columns), extra, strict=True)))


def _remaining(site: _Site, grid: Part) -> Margins | None:
    """What is added around the input of one grid: less than for the whole kernel."""
    if site.margins is None:
        return None
    height, width = site.weight.shape[1:3]
    rows, columns = grid
    top, bottom, left, right = site.margins
    return Margins(
        top - rows[0], bottom - (height - 1 - rows[-1]), left - columns[0], right - (width - 1 - columns[-1])
    )


def _extent(taps: Taps) -> int:
    return taps[-1] - taps[0] + 1


def _is_same(document: TfliteDocument, site: _Site, grid: Part) -> bool:
    """Whether "same" padding gives the margins of this grid."""
    options, shape, (rows, columns) = site.operator.builtinOptions, document.shape(site.tensor), grid
    if site.margins is None:  # the size is open: "same" padding of kernels with one centre
        height, width = site.weight.shape[1:3]
        is_centred = rows[0] + rows[-1] == height - 1 and columns[0] + columns[-1] == width - 1
        return (
            is_centred and site.pad is None and options.strideH == options.strideW == 1 and height % 2 * width % 2 > 0
        )
    if not document.has_known_size(site.tensor):
        return False
    same = (
        *same_along(shape[1], _extent(rows), options.strideH),
        *same_along(shape[2], _extent(columns), options.strideW),
    )
    return same == _remaining(site, grid)


def _fits(document: TfliteDocument, site: _Site, grid: Part) -> bool:
    if _is_same(document, site, grid):
        return True
    margins = _remaining(site, grid)
    return margins is not None and min(margins) >= 0 and document.has_known_size(site.tensor)


def _part(document: TfliteDocument, site: _Site, grid: Part, number: int, product: int) -> list[Any]:
    """The operators of one grid, which make the tensor `product`."""
    (rows, columns), stem = grid, f"{site.place}/part{number}"
    tensor, new, padding = site.tensor, [], document.api.Padding.SAME
    if not _is_same(document, site, grid):
        margins = _remaining(site, grid)
        assert margins is not None  # `_fits`
        padding = document.api.Padding.VALID
        if any(margins):
            tensor, pad = add_pad(document, tensor, margins, stem)
            new.append(pad)
    weight = np.ascontiguousarray(site.weight[:, list(rows)][:, :, list(columns)])
    inputs = [
        tensor,
        document.add_constant(f"{stem}/weight", weight),
        document.add_constant(f"{stem}/bias", np.zeros_like(site.bias) if number else site.bias),
    ]
    options = document.api.DepthwiseConv2DOptionsT()
    vars(options).update(vars(site.operator.builtinOptions))
    options.padding, options.fusedActivationFunction = padding, 0
    options.dilationHFactor, options.dilationWFactor = _step(rows), _step(columns)
    return [*new, document.operator("DEPTHWISE_CONV_2D", 2, inputs, product, options)]


def _step(taps: Taps) -> int:
    return taps.step if len(taps) > 1 else 1
