"""What models are exported for and run by."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.errors import UsageError

#: Bytes of a number, by the name of its format.
BYTES_PER_NUMBER = {"fp32": 4, "int8": 1}


@dataclass(frozen=True)
class Target:
    """The name of a runtime, the number format of the models, and images per inference."""

    runtime: str = "onnxruntime"
    precision: str = "fp32"
    batch: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch {self.batch} is not a positive number")


#: What is measured where nothing else was asked for.
DEFAULT_TARGET = Target()
