"""What models are exported for and run by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ofa_profiler.errors import UsageError

#: The precision of networks whose slots have their own (`spaces/mixed.py`).
MIXED = "mixed"
#: Bytes of a number, by the name of its format.
BYTES_PER_NUMBER = {"fp32": 4, "int8": 1}


@dataclass(frozen=True)
class Target:
    """The name of a runtime, the number format of the models, and images per inference.

    `precision` is that of all ops, or `mixed` for networks whose slots have their own. `encoding` is the name of an
    encoding of int8 (`encodings.py`), for runtimes that have several; "" for others.
    """

    runtime: str = "onnxruntime"
    precision: str = "fp32"
    batch: int = 1
    encoding: str = ""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch {self.batch} is not a positive number")

    @property
    def has_integers(self) -> bool:
        """Whether models have int8 parts."""
        return self.precision in ("int8", MIXED)

    def at(self, precision: str) -> Target:
        """The same for models of another precision, without the encoding if they have no int8 parts."""
        changed = replace(self, precision=precision)
        return changed if changed.has_integers else replace(changed, encoding="")


#: What is measured where nothing else was asked for.
DEFAULT_TARGET = Target()
