"""An architecture: one point of a search space, as pure data.

It holds only blocks that exist. Its space knows what its numbers mean (widths, strides, where the squeeze-excite
sits): `get_space(arch.space)`.

`NETWORK_FIELDS`, `STEM_FIELDS`, `STAGE_FIELDS` and `BLOCK_FIELDS` name the fields that hold choices, by the kind of
choice. JSON and genomes (`spaces/codec.py`) are computed from them: a new kind of choice is a field and its entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ofa_profiler.base.registry import Registry
from ofa_profiler.errors import UsageError


class Field(NamedTuple):
    """A field that holds choices of one kind: numbers, or whole numbers only."""

    name: str
    integer: bool = False

    def read(self, value: Any, where: str) -> float:
        """`value`, from JSON; `where` it stands is for messages. Raises `UsageError` unless it is such a number."""
        if type(value) is int or (type(value) is float and not self.integer):
            return value
        raise UsageError(f"architecture: {where} must be {'an integer' if self.integer else 'a number'}, not {value!r}")


#: Kind of choice -> the field of `Architecture`, `Stem` or `Stage` that holds it, one number each.
NETWORK_FIELDS = {"resolution": Field("resolution", integer=True)}
STEM_FIELDS = {
    "depth": Field("depth", integer=True),
    "width_mult": Field("width_mult"),
    "last_width_mult": Field("last_width_mult"),
}
STAGE_FIELDS = {"width_mult": Field("width_mult")}
#: Kind of choice -> the field of `Stage` that holds it, one number per block. The depth of a stage is their length.
BLOCK_FIELDS = {"kernel_size": Field("kernel_sizes", integer=True), "expand_ratio": Field("expand_ratios")}


@dataclass(frozen=True, slots=True)
class Stage:
    """The blocks of one stage, first to last. The lists are equally long.

    In spaces that have no such choice, a list is empty and a number is None.
    """

    kernel_sizes: tuple[int, ...] = ()
    expand_ratios: tuple[float, ...] = ()
    width_mult: float | None = None

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return max(len(getattr(self, field.name)) for field in BLOCK_FIELDS.values())

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        lists = {name: list(values) for name, values in _given(self, BLOCK_FIELDS).items()}
        return {"depth": self.depth, **_given(self, STAGE_FIELDS), **lists}

    @staticmethod
    def from_json(data: Any, where: str) -> Stage:
        """Read what `to_json` gives; `where` names it in messages. Raises `UsageError`."""
        data = _object(data, where)
        depth = STEM_FIELDS["depth"].read(data.get("depth"), f"{where}.depth")
        fields: dict[str, Any] = _numbers(data, STAGE_FIELDS, f"{where}.")
        for field in BLOCK_FIELDS.values():
            if field.name in data:
                values = _list(data[field.name], f"{where}.{field.name}")
                if len(values) != depth:
                    raise UsageError(
                        f"architecture: {where} has depth {depth} but {len(values)} {field.name}; "
                        "the lists hold the active blocks only"
                    )
                fields[field.name] = tuple([field.read(v, f"{where}.{field.name}") for v in values])
        stage = Stage(**fields)
        if stage.depth != depth:
            raise UsageError(f"architecture: {where} has depth {depth} but lists no choices, such as kernel_sizes")
        return stage


@dataclass(frozen=True, slots=True)
class Stem:
    """What comes before the stages, in spaces that choose it: `depth` convolutions.

    All but the last have the width `width_mult`; the last one has `last_width_mult`.
    """

    depth: int
    width_mult: float
    last_width_mult: float

    @property
    def width_mults(self) -> tuple[float, float]:
        """The two widths."""
        return self.width_mult, self.last_width_mult

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        return {"depth": self.depth, "width_mults": list(self.width_mults)}

    @staticmethod
    def from_json(data: Any) -> Stem:
        """Read what `to_json` gives. Raises `UsageError`."""
        data = _object(data, "stem")
        widths = _list(data.get("width_mults"), "stem.width_mults")
        if len(widths) != 2:
            raise UsageError(f"architecture: stem.width_mults must hold 2 numbers, not {len(widths)}")
        flat = {"depth": data.get("depth"), "width_mult": widths[0], "last_width_mult": widths[1]}
        return Stem(**_numbers(flat, STEM_FIELDS, "stem."))


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the space named `space`.

    `resolution` is the height and width of its input image in pixels; None in spaces that have no such choice.
    """

    space: str
    resolution: int | None
    stages: tuple[Stage, ...]
    stem: Stem | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types; `from_json` reads it back to an equal architecture."""
        data: dict[str, Any] = {"space": self.space, **_given(self, NETWORK_FIELDS)}
        if self.stem is not None:
            data["stem"] = self.stem.to_json()
        data["stages"] = [stage.to_json() for stage in self.stages]
        return data

    @staticmethod
    def from_json(data: Any) -> Architecture:
        """Read what `to_json` gives and check it against its space. Raises `UsageError`."""
        if not isinstance(data, Mapping):
            raise UsageError(f"an architecture is a JSON object, not {type(data).__name__}")
        name = data.get("space")
        if not isinstance(name, str):
            raise UsageError("architecture: 'space' must be the name of a search space")
        stages = _list(data.get("stages"), "stages")
        architecture = Architecture(
            space=name,
            stages=tuple([Stage.from_json(stage, f"stages[{i}]") for i, stage in enumerate(stages)]),
            stem=Stem.from_json(data["stem"]) if "stem" in data else None,
            **{"resolution": None, **_numbers(data, NETWORK_FIELDS, "")},
        )
        SPACE_CHECKS.get(name)(architecture)
        return architecture


#: By the name of a space: what raises `UsageError` for an architecture that is not of this space. The spaces import
#: this module, so it does not import them: `spaces.register_space` adds their checks here.
SPACE_CHECKS: Registry[Callable[[Architecture], None]] = Registry("search space")


def _given(part: Architecture | Stage, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Name and value of the fields of `part` that hold a choice."""
    values = {field.name: getattr(part, field.name) for field in fields.values()}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _numbers(data: Mapping[str, Any], fields: Mapping[str, Field], where: str) -> dict[str, Any]:
    """Name and value of those `fields` that a JSON object has."""
    return {f.name: f.read(data[f.name], where + f.name) for f in fields.values() if f.name in data}


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"architecture: {where} must be an object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"architecture: {where} must be a list")
    return value
