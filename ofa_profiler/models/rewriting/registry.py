"""All patterns, in the order in which they are combined: later ones find what earlier ones leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ofa_profiler.models.rewriting.base import Document, Pattern
from ofa_profiler.models.rewriting.onnx_affine import AffineAfterConv, AffineBeforeConv
from ofa_profiler.models.rewriting.onnx_channel_scale import ChannelScale
from ofa_profiler.models.rewriting.onnx_document import OnnxDocument
from ofa_profiler.models.rewriting.onnx_gates import WideGate
from ofa_profiler.models.rewriting.onnx_hard_sigmoid import HardSigmoid
from ofa_profiler.models.rewriting.tflite_depthwise import LargeDepthwise
from ofa_profiler.models.rewriting.tflite_document import TfliteDocument
from ofa_profiler.models.rewriting.tflite_pooling import PoolPadding

AnyPattern = Pattern[Any, Any]

_PATTERNS: tuple[AnyPattern, ...] = (
    HardSigmoid(),
    AffineAfterConv(),
    AffineBeforeConv(),
    ChannelScale(),
    WideGate(),
    LargeDepthwise(),
    PoolPadding(),
)
#: What edits a file of a runtime.
_DOCUMENTS: Mapping[str, Callable[[bytes], Document]] = {"onnxruntime": OnnxDocument, "litert": TfliteDocument}


def patterns_for(runtime: str) -> tuple[AnyPattern, ...]:
    """The patterns of networks for this runtime."""
    return tuple(pattern for pattern in _PATTERNS if pattern.runtime == runtime)


def rewritten(runtime: str, data: bytes, patterns: Sequence[AnyPattern]) -> tuple[bytes, int]:
    """The network with all these patterns at all their places, and the number of places.

    Raises `ValueError` with the reason if the file cannot be edited.
    """
    document = _DOCUMENTS[runtime](data)
    places = sum(len(pattern.apply(document)) for pattern in patterns)
    return (document.data(), places) if places else (data, 0)
