"""How the integers of an int8 model are stored. Which one is exact and fast depends on the processor.

onnxruntime's kernels multiply unsigned activations by signed weights on x86. Without VNNI, they add two products in 16
bits, which overflow unless weights have 7 bits. On ARM, signed activations are the faster ones. (onnxruntime,
"Quantize ONNX models", section "When and why do I need to try U8U8?".)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Encoding:
    """`activations`: numpy's name of their integers. Weights are int8, at most `max_weight`."""

    name: str
    activations: str
    max_weight: int


U8S8 = Encoding("u8s8", "uint8", 127)
U8S7 = Encoding("u8s7", "uint8", 64)
S8S8 = Encoding("s8s8", "int8", 127)
ENCODINGS = {encoding.name: encoding for encoding in (U8S8, U8S7, S8S8)}

_ARM = ("aarch64", "arm")


def encodings_of(machine: str | None) -> tuple[Encoding, ...]:
    """The encodings that `encoding_for` can choose for an architecture; None: for any."""
    if machine is None:
        return tuple(ENCODINGS.values())
    if machine.lower().startswith(_ARM):
        return (S8S8,)
    return (U8S8, U8S7)


def encoding_for(machine: str | None, facts: Mapping[str, Any]) -> Encoding:
    """The encoding for a processor, by the name of its architecture and what the agent reports of it (`vnni`).

    U8S7 is exact everywhere, so it is the one for a processor that nothing is known of.
    """
    if machine is not None and machine.lower().startswith(_ARM):
        return S8S8
    return U8S8 if facts.get("vnni") is True else U8S7
