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
    """The blocks of one stage, first to last. `kernel_sizes` and `expand_ratios` are equally long.

    `width_mult` is there in spaces that choose how wide a stage is.
    """

    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[float, ...]
    width_mult: float | None = None

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.kernel_sizes)


@dataclass(frozen=True, slots=True)
class Stem:
    """What comes before the stages, in spaces that choose it: `depth` convolutions, of which all but the
    last have the first width.
    """

    depth: int
    width_mults: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the space named `space`, for square inputs of `resolution` pixels."""

    space: str
    resolution: int
    stages: tuple[Stage, ...]
    stem: Stem | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types; `from_json` reads it back to an equal architecture."""
        data: dict[str, Any] = {"space": self.space, "resolution": self.resolution}
        if self.stem is not None:
            data["stem"] = {"depth": self.stem.depth, "width_mults": list(self.stem.width_mults)}
        data["stages"] = []
        for stage in self.stages:
            width = {} if stage.width_mult is None else {"width_mult": stage.width_mult}
            lists = {"kernel_sizes": list(stage.kernel_sizes), "expand_ratios": list(stage.expand_ratios)}
            data["stages"].append({"depth": stage.depth, **width, **lists})
        return data

    @staticmethod
    def from_json(data: Any) -> Architecture:
        """Read what `to_json` gives and check it against its space. Raises `UsageError`."""
        from ofa_profiler.spaces import get_space  # the registry imports this module

        if not isinstance(data, Mapping):
            raise UsageError(f"an architecture is a JSON object, not {type(data).__name__}")
        name = data.get("space")
        if not isinstance(name, str):
            raise UsageError("architecture: 'space' must be the name of a search space")
        stages = _list(data.get("stages"), "stages")
        architecture = Architecture(
            space=name,
            resolution=_integer(data.get("resolution"), "resolution"),
            stages=tuple(_stage(stage, f"stages[{i}]") for i, stage in enumerate(stages)),
            stem=_stem(data["stem"]) if "stem" in data else None,
        )
        get_space(name).validate(architecture)
        return architecture


def _stage(data: Any, where: str) -> Stage:
    data = _object(data, where)
    depth = _integer(data.get("depth"), f"{where}.depth")
    lists = {}
    for field in ("kernel_sizes", "expand_ratios"):
        lists[field] = _list(data.get(field), f"{where}.{field}")
        if len(lists[field]) != depth:
            raise UsageError(
                f"architecture: {where} has depth {depth} but {len(lists[field])} {field}; "
                "the lists hold the active blocks only"
            )
    return Stage(
        kernel_sizes=tuple(_integer(v, f"{where}.kernel_sizes[{i}]") for i, v in enumerate(lists["kernel_sizes"])),
        expand_ratios=tuple(_number(v, f"{where}.expand_ratios[{i}]") for i, v in enumerate(lists["expand_ratios"])),
        width_mult=_number(data["width_mult"], f"{where}.width_mult") if "width_mult" in data else None,
    )


def _stem(data: Any) -> Stem:
    data = _object(data, "stem")
    depth = _integer(data.get("depth"), "stem.depth")
    widths = _list(data.get("width_mults"), "stem.width_mults")
    if len(widths) != 2:
        raise UsageError(f"architecture: stem.width_mults must hold 2 numbers, not {len(widths)}")
    first, last = (_number(width, f"stem.width_mults[{i}]") for i, width in enumerate(widths))
    return Stem(depth, (first, last))


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"architecture: {where} must be an object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"architecture: {where} must be a list")
    return value


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"architecture: {where} must be an integer, not {value!r}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"architecture: {where} must be a number, not {value!r}")
    return value
