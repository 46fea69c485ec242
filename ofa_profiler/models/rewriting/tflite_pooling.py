"""LiteRT: zeros around the input of a max pooling that is never negative, in place of mirrored or lowest values.

XNNPACK supports PAD with zeros only. MIRROR_PAD and PADV2 run in slow kernels, and divide the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ofa_profiler.models.rewriting.base import Pattern, Site
from ofa_profiler.models.rewriting.tflite_document import TfliteDocument
from ofa_profiler.models.rewriting.tflite_padding import Margins, add_pad, padded_by

_NEVER_NEGATIVE = {"RELU", "RELU6", "LOGISTIC", "RELU_0_TO_1"}
#: Operators that keep what is known of the sign.
_KEEPING = {"MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE"}


@dataclass(frozen=True, eq=False)
class _Site(Site):
    pad: Any
    pool: Any
    margins: Margins


class PoolPadding(Pattern[TfliteDocument, _Site]):
    """MIRROR_PAD or PADV2 in front of MAX_POOL_2D."""

    name, runtime, kinds = "padding of max pooling", "litert", ("MAX_POOL_2D",)

    def site(self, document: TfliteDocument, operator: Any) -> _Site | None:
        return _site(document, operator)

    def edit(self, document: TfliteDocument, site: _Site) -> None:
        padded, pad = add_pad(document, int(site.pad.inputs[0]), site.margins, site.place)
        pool = document.like(site.pool, [padded], site.pool.builtinOptions)
        document.replace([site.pad, site.pool], [pad, pool])


def _site(document: TfliteDocument, pool: Any) -> _Site | None:
    tensor = int(pool.inputs[0])
    pad, options = document.maker.get(tensor), pool.builtinOptions
    if pad is None or document.kind(pad) not in ("MIRROR_PAD", "PADV2") or not document.is_inner(tensor):
        return None
    margins, source = padded_by(document, pad), int(pad.inputs[0])
    if margins is None or options.padding != document.api.Padding.VALID or not document.has_known_size(source):
        return None
    reach = max(margins[:2]), max(margins[2:])
    windows = options.filterHeight, options.filterWidth
    if not all(_is_covered(document, pad, *pair) for pair in zip(reach, windows, strict=True)):
        return None
    if not _is_never_negative(document, source):
        return None
    return _Site(document.name(int(pool.outputs[0])), pad, pool, margins)


def _is_covered(document: TfliteDocument, pad: Any, margin: int, window: int) -> bool:
    """Whether no window of the pooling sees more than its values inside the image and numbers up to 0."""
    if document.kind(pad) == "PADV2":
        value = document.constant(int(pad.inputs[2]))
        return value is not None and value.size == 1 and float(value.reshape(-1)[0]) <= 0 and margin < window
    # A mirrored value changes nothing if each window with it also has the value itself.
    is_symmetric = getattr(pad.builtinOptions, "mode", 0) == document.api.MirrorPadMode.SYMMETRIC
    return bool(window >= (2 * margin if is_symmetric else 2 * margin + 1))


def _is_never_negative(document: TfliteDocument, tensor: int) -> bool:
    maker = document.maker.get(tensor)
    if maker is None:
        return False
    kind, activation = document.kind(maker), getattr(maker.builtinOptions, "fusedActivationFunction", 0)
    functions = document.api.ActivationFunctionType
    if kind in _NEVER_NEGATIVE or activation in (functions.RELU, functions.RELU6):
        return True
    return kind in _KEEPING and _is_never_negative(document, int(maker.inputs[0]))
