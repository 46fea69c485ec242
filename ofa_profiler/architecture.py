"""An architecture: one point of a search space, as pure data.

It holds only blocks that exist. What its numbers mean (widths, strides, where the squeeze-excite
sits) is the business of its space: `get_space(arch.space)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa_profiler.errors import UsageError


@dataclass(frozen=True, slots=True)
class Stage:
    """The blocks of one stage, first to last. `kernel_sizes` and `expand_ratios` are equally long."""

    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.kernel_sizes)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the space named `space`, for square inputs of `resolution` pixels."""

    space: str
    resolution: int
    stages: tuple[Stage, ...]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types; `from_json` reads it back to an equal architecture."""
        return {
            "space": self.space,
            "resolution": self.resolution,
            "stages": [
                {
                    "depth": stage.depth,
                    "kernel_sizes": list(stage.kernel_sizes),
                    "expand_ratios": list(stage.expand_ratios),
                }
                for stage in self.stages
            ],
        }

    @staticmethod
    def from_json(data: Any) -> Architecture:
        """Read what `to_json` gives and check it against its space. Raises `UsageError`."""
        from ofa_profiler.spaces import get_space  # the registry imports this module

        if not isinstance(data, Mapping):
            raise UsageError(f"an architecture is a JSON object, not {type(data).__name__}")
        name = data.get("space")
        if not isinstance(name, str):
            raise UsageError("architecture: 'space' must be the name of a search space")
        stages = data.get("stages")
        if not isinstance(stages, list):
            raise UsageError("architecture: 'stages' must be a list")
        architecture = Architecture(
            space=name,
            resolution=_integer(data.get("resolution"), "resolution"),
            stages=tuple(_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages)),
        )
        get_space(name).validate(architecture)
        return architecture


def _stage(data: Any, where: str) -> Stage:
    if not isinstance(data, Mapping):
        raise UsageError(f"architecture: {where} must be an object")
    depth = _integer(data.get("depth"), f"{where}.depth")
    lists = []
    for field in ("kernel_sizes", "expand_ratios"):
        values = data.get(field)
        if not isinstance(values, list):
            raise UsageError(f"architecture: {where}.{field} must be a list")
        if len(values) != depth:
            raise UsageError(
                f"architecture: {where} has depth {depth} but {len(values)} {field}; "
                "the lists hold the active blocks only"
            )
        lists.append(tuple(_integer(v, f"{where}.{field}[{i}]") for i, v in enumerate(values)))
    return Stage(kernel_sizes=lists[0], expand_ratios=lists[1])


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"architecture: {where} must be an integer, not {value!r}")
    return value
