"""An architecture: one point of a search space, as pure data.

It contains active blocks only. Its space, `get_space(arch.space)`, defines what its numbers mean (widths, strides,
which stages have squeeze-excite).

`NETWORK_FIELDS`, `STEM_FIELDS`, `STAGE_FIELDS` and `BLOCK_FIELDS` map each kind of choice to the field that stores it.
JSON and genomes (`spaces/codec.py`) follow from these tables: a new kind of choice needs a field and an entry.

The OFA authors write architectures in two other notations (`NOTATIONS`), which need the space to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ofa_profiler.base.registry import Registry
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture_file import find_file, read_documents


class Field(NamedTuple):
    """A field that stores choices of one kind: numbers, or integers only."""

    name: str
    integer: bool = False

    def read(self, value: Any, where: str) -> float:
        """Return `value`, from JSON. Raises `UsageError` for another type; `where` names the field in the message."""
        if type(value) is int or (type(value) is float and not self.integer):
            return value
        raise UsageError(f"architecture: {where} must be {'an integer' if self.integer else 'a number'}, not {value!r}")


#: Kind of choice -> the field of `Architecture`, `Stem` or `Stage` that stores it: one number.
NETWORK_FIELDS = {"resolution": Field("resolution", integer=True)}
_BITS = Field("bits", integer=True)
#: What the name of a space of mixed precision ends in: the rest is the name of the space of its networks.
MIXED = "-mixed"
STEM_FIELDS = {
    "depth": Field("depth", integer=True),
    "width_mult": Field("width_mult"),
    "last_width_mult": Field("last_width_mult"),
}
STAGE_FIELDS = {"width_mult": Field("width_mult")}
#: Kind of choice -> the field of `Stage` that stores it: one number per block. Their length is the depth of the stage.
BLOCK_FIELDS = {"kernel_size": Field("kernel_sizes", integer=True), "expand_ratio": Field("expand_ratios")}


@dataclass(frozen=True, slots=True)
class Stage:
    """The blocks of one stage, from first to last. All lists have the same length.

    If the space does not have a choice, its list is empty or its number is None.
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
        """Read the result of `to_json`. Raises `UsageError`; `where` names the stage in the message."""
        data = _object(data, where)
        depth = STEM_FIELDS["depth"].read(data.get("depth"), f"{where}.depth")
        fields: dict[str, Any] = _numbers(data, STAGE_FIELDS, f"{where}.")
        for field in BLOCK_FIELDS.values():
            if field.name in data:
                values = _list(data[field.name], f"{where}.{field.name}")
                if len(values) != depth:
                    raise UsageError(
                        f"architecture: {where} has depth {depth} but {len(values)} {field.name}; "
                        "list only active blocks"
                    )
                fields[field.name] = tuple([field.read(v, f"{where}.{field.name}") for v in values])
        stage = Stage(**fields)
        if stage.depth != depth:
            raise UsageError(f"architecture: {where} has depth {depth} but no list of choices, such as kernel_sizes")
        return stage


@dataclass(frozen=True, slots=True)
class Stem:
    """The `depth` convolutions before the stages, in spaces with such choices.

    The last one has the width `last_width_mult`, all others have `width_mult`.
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
        """Read the result of `to_json`. Raises `UsageError`."""
        data = _object(data, "stem")
        widths = _list(data.get("width_mults"), "stem.width_mults")
        if len(widths) != 2:
            raise UsageError(f"architecture: stem.width_mults must hold 2 numbers, not {len(widths)}")
        flat = {"depth": data.get("depth"), "width_mult": widths[0], "last_width_mult": widths[1]}
        return Stem(**_numbers(flat, STEM_FIELDS, "stem."))


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the space named `space`.

    `resolution` is the height and width of the input image in pixels; None if the space has no such choice. `bits` are
    those of each active slot, in the order of execution, in spaces of mixed precision (`spaces/mixed.py`): 8 or 32.
    `choices` are names and values, by name, in spaces of users (`spaces/language/`), which have no stages.
    """

    space: str
    resolution: int | None
    stages: tuple[Stage, ...]
    stem: Stem | None = None
    bits: tuple[int, ...] = ()
    choices: tuple[tuple[str, Any], ...] = ()

    @property
    def summary(self) -> str:
        """In a few words: the depths of the stages, or the choices, a line per place."""
        if self.choices:
            places: dict[str, list[str]] = {}
            for name, value in self.choices:
                place, _, kind = name.rpartition(".")
                places.setdefault(place, []).append(f"{kind} {value}")
            return "\n".join(": ".join(filter(None, (place, ", ".join(own)))) for place, own in places.items())
        return " ".join(str(stage.depth) for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types. `from_json` turns it into an equal architecture."""
        data: dict[str, Any] = {"space": self.space, **_given(self, NETWORK_FIELDS)}
        if self.stem is not None:
            data["stem"] = self.stem.to_json()
        data["stages"] = [stage.to_json() for stage in self.stages]
        if self.choices:
            data["choices"] = dict(self.choices)
        return {**data, "bits": list(self.bits)} if self.bits else data

    def to_ofa(self) -> dict[str, Any]:
        """The settings of the OFA authors' code, `{"ks", "e", "d", "r"}`, for ResNet50 `{"e", "d", "w", "r"}`.

        `space` is added, so that `from_json` gives an equal architecture. Their `set_active_subnet` ignores it. Raises
        `UsageError` for a space with other choices.
        """
        return NOTATIONS.get("ks, e, d, r").write(self)

    def to_net_config(self) -> dict[str, Any]:
        """The `net.config` of the OFA authors' code: all layers with their channels, and `image_size`.

        `from_json` gives an architecture with the same layers. Raises `UsageError` for a space that is not of the
        authors' families.
        """
        return NOTATIONS.get("net.config").write(self)

    @staticmethod
    def from_json(data: Any, space: str | None = None) -> Architecture:
        """Read the result of `to_json`, `to_ofa` or `to_net_config`, and check it against its space.

        `space` is used for settings of the OFA authors that name no space and fit several. Raises `UsageError`.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"an architecture is a JSON object, not {type(data).__name__}")
        if "stages" not in data:
            for notation in map(NOTATIONS.get, NOTATIONS.names()):
                if notation.matches(data):
                    return notation.read(data, space)
        name = data.get("space")
        if not isinstance(name, str):
            raise UsageError(
                "architecture: 'space' must be the name of a search space; "
                "ks, e, d, r and net.config of the OFA authors are read too"
            )
        stages = _list(data.get("stages"), "stages")
        architecture = Architecture(
            space=name,
            stages=tuple([Stage.from_json(stage, f"stages[{i}]") for i, stage in enumerate(stages)]),
            stem=Stem.from_json(data["stem"]) if "stem" in data else None,
            bits=tuple([int(_BITS.read(bits, "bits")) for bits in _list(data.get("bits", []), "bits")]),
            choices=_choices(data.get("choices", {})),
            **{"resolution": None, **_numbers(data, NETWORK_FIELDS, "")},
        )
        _check_of(name.removesuffix(MIXED))(architecture)
        return architecture

    @staticmethod
    def load(path: str | Path, space: str | None = None) -> Architecture:
        """Read a file with one architecture, in any notation that `from_json` reads; also the results of a search.

        A Python literal is read too. The resolution of a `net.config` is that of the `run.config` beside it, and `path`
        can be the folder of both. Raises `InputFileError`.
        """
        return Architecture._load(Path(path), space, only_one=True)[0]

    @staticmethod
    def load_all(path: str | Path, space: str | None = None) -> list[Architecture]:
        """Read all architectures in a file, such as the `search.json` of several budgets; see `load`."""
        return Architecture._load(Path(path), space, only_one=False)

    @staticmethod
    def _load(path: Path, space: str | None, *, only_one: bool) -> list[Architecture]:
        path = find_file(path)
        documents = read_documents(path)
        if only_one and len(documents) != 1:
            raise InputFileError(path, f"holds {len(documents)} networks; give a file with one of them")
        try:
            return [Architecture.from_json(data, space) for data in documents]
        except UsageError as error:
            raise InputFileError(path, str(error)) from error


#: Name of a space -> function that raises `UsageError` for an architecture of another space, or a wrong one. The spaces
#: import this module, so it cannot import them. `spaces.register_space` adds their checks.
SPACE_CHECKS: Registry[Callable[[Architecture], None]] = Registry("search space")


def not_loaded(space: str) -> str:
    """What to do about a space of a user, `package.module:NAME`, that is not loaded, in words."""
    return f"the space {space} is in a file of its user: give --space {space}, or call get_space({space!r}) first"


def _check_of(space: str) -> Callable[[Architecture], None]:
    if ":" in space and space not in SPACE_CHECKS.names():
        raise UsageError(not_loaded(space))
    return SPACE_CHECKS.get(space)


class Notation(NamedTuple):
    """A notation of an architecture other than that of `to_json`.

    `read` takes a document and the name of a space, if one is known. It and `write` raise `UsageError`.
    """

    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str | None], Architecture]
    write: Callable[[Architecture], dict[str, Any]]


#: The notations of the OFA authors. `spaces/ofa_notations.py` adds them.
NOTATIONS: Registry[Notation] = Registry("notation of an architecture")

# --- checks ----------------------------------------------------------------------------------------------


def _given(part: Architecture | Stage, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Names and values of the fields of `part` that are set."""
    values = {field.name: getattr(part, field.name) for field in fields.values()}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _numbers(data: Mapping[str, Any], fields: Mapping[str, Field], where: str) -> dict[str, Any]:
    """Names and values of those `fields` that the JSON object has."""
    return {f.name: f.read(data[f.name], where + f.name) for f in fields.values() if f.name in data}


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"architecture: {where} must be an object")
    return value


def _choices(value: Any) -> tuple[tuple[str, Any], ...]:
    for name, chosen in _object(value, "choices").items():
        if not isinstance(chosen, str | int | float):
            raise UsageError(f"architecture: choices.{name} must be a number or a text")
    return tuple(sorted(value.items()))


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"architecture: {where} must be a list")
    return value
