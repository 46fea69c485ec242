"""Schedules: the phases of the training of a supernet, as YAML files in `schedules/`.

    epochs: 40                      passes over the data, all phases together, unless --epochs is given
    phases:
      - name: full
        share: 0.5                  of the epochs
        resolutions: [24]           one is drawn for every batch; default: those of the space
        open: {kernel_size: 1}      how many of the largest choices of a kind are open; default: all
        largest: true               every step trains the largest subnet that is open,
        smallest: false             the smallest one,
        random: 0                   and this number of randomly drawn ones
        teacher: none               of all but the largest: none (labels), largest (its outputs in this very
                                    step), full (the full network as it was before the first such phase)
        labels: 0.0                 weight of the labels beside a teacher
        learning_rate: [1.0, 0.0]   first and last, times the user's, linear in between
        subnet_rate: [1.0, 1.0]     the same for all but the largest, times the above
        sort: false                 sort channels by importance before the phase

The kinds are those of the genes of the space: kernel_size, expand_ratio, depth, width_mult, last_width_mult.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture import (
    BLOCK_FIELDS,
    NETWORK_FIELDS,
    STAGE_FIELDS,
    STEM_FIELDS,
    Architecture,
)
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.genes import RESOLUTION

_FOLDER = Path(__file__).parent / "schedules"
TEACHERS = ("none", "largest", "full")
#: The kinds of choices that `open` knows; a space has some of them.
KINDS = tuple(
    kind for kind in dict.fromkeys((*BLOCK_FIELDS, *STEM_FIELDS, *STAGE_FIELDS, *NETWORK_FIELDS)) if kind != RESOLUTION
)
_MOST = 4096


@dataclass(frozen=True)
class Phase:
    """A part of a training; the module's docstring describes the fields."""

    name: str
    share: float
    resolutions: tuple[int, ...] | None = None
    open: Mapping[str, int] = field(default_factory=dict)
    largest: bool = False
    smallest: bool = False
    random: int = 0
    teacher: str = "none"
    labels: float = 0.0
    learning_rate: tuple[float, float] = (1.0, 1.0)
    subnet_rate: tuple[float, float] = (1.0, 1.0)
    sort: bool = False

    def open_choices(self, space: SearchSpace) -> list[tuple[float, ...]]:
        """For every gene, the choices that this phase draws from, ascending."""
        choices = []
        for gene in space.genes:
            every = tuple(sorted(gene.choices))
            choices.append(every[-self.open.get(gene.kind, len(every)) :])
        return choices

    def subnets(self, space: SearchSpace, rng: np.random.Generator) -> list[Architecture]:
        """The architectures of one step; the largest is the first if it is trained."""
        choices = self.open_choices(space)
        values = [[c[-1] for c in choices]] if self.largest else []
        values += [[c[0] for c in choices]] if self.smallest else []
        values += [[c[rng.integers(len(c))] for c in choices] for _ in range(self.random)]
        return [space.from_values(row) for row in values]


@dataclass(frozen=True)
class Schedule:
    """A name, the default length in epochs, and phases whose shares add up to 1."""

    name: str
    epochs: float
    phases: tuple[Phase, ...]

    def at(self, progress: float) -> tuple[int, float]:
        """The number of the phase and the position in it, in [0, 1), at `progress` in [0, 1) of the training."""
        start = 0.0
        for number, phase in enumerate(self.phases):
            if progress < start + phase.share or number == len(self.phases) - 1:
                return number, min(max((progress - start) / phase.share, 0.0), 1.0)
            start += phase.share
        raise AssertionError("a schedule has phases")


def schedule_names() -> list[str]:
    """The schedules that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_schedule(name: str) -> Schedule:
    """A schedule by its name, or from a YAML file. Raises `UsageError`, `InputFileError`."""
    path = _FOLDER / f"{name}.yaml" if name in schedule_names() else Path(name)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no schedule {name!r}: neither a file nor one of {', '.join(schedule_names())}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputFileError(path, f"cannot be read as YAML: {error}") from error
    if not isinstance(data, dict) or set(data) != {"epochs", "phases"} or not isinstance(data["phases"], list):
        raise InputFileError(path, "a schedule has `epochs` and a list of `phases`, and nothing else")
    phases = tuple(_phase(path, number, entry) for number, entry in enumerate(data["phases"], start=1))
    if not phases or abs(sum(phase.share for phase in phases) - 1) > 1e-6:
        raise InputFileError(path, "the shares of the phases do not add up to 1")
    if phases[0].teacher == "full":
        raise InputFileError(path, "the first phase cannot have the teacher `full`: no network is trained before it")
    return Schedule(path.stem, _number(path, "epochs", data["epochs"]), phases)


def _phase(path: Path, number: int, entry: Any) -> Phase:
    where = f"phase {number}"
    if not isinstance(entry, dict) or not {"name", "share"} <= set(entry):
        raise InputFileError(path, f"{where}: needs at least a name and a share")
    known = {f.name for f in fields(Phase)}
    if unknown := sorted(set(map(str, entry)) - known):
        raise InputFileError(path, f"{where}: {unknown[0]!r} is not one of {', '.join(sorted(known))}")
    phase = Phase(**{name: _READERS[name](path, f"{where}: {name}", v) for name, v in entry.items()})
    if phase.teacher not in TEACHERS:
        raise InputFileError(path, f"{where}: teacher is one of {', '.join(TEACHERS)}, not {phase.teacher!r}")
    if phase.teacher == "largest" and not phase.largest:
        raise InputFileError(path, f"{where}: the teacher `largest` needs `largest: true`")
    if not (phase.largest or phase.smallest or phase.random):
        raise InputFileError(path, f"{where}: trains nothing: largest, smallest and random are all off")
    return phase


def _text(path: Path, what: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise InputFileError(path, f"{what} is a word, not {value!r:.40}")
    return value


def _flag(path: Path, what: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputFileError(path, f"{what} is true or false, not {value!r:.40}")
    return value


def _pair(path: Path, what: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise InputFileError(path, f"{what} is a pair [first, last], not {value!r:.40}")
    return _number(path, what, value[0], least=0.0), _number(path, what, value[1], least=0.0)


def _counts(path: Path, what: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise InputFileError(path, f"{what} is a list of whole numbers, not {value!r:.40}")
    return tuple(_count(path, what, number) for number in value)


def _by_kind(path: Path, what: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise InputFileError(path, f"{what} is a mapping like {{kernel_size: 2}}, not {value!r:.40}")
    if unknown := [kind for kind in value if kind not in KINDS]:
        raise InputFileError(path, f"{what}: {unknown[0]!r} is not one of {', '.join(KINDS)}")
    return {kind: _count(path, what, number) for kind, number in value.items()}


def _number(path: Path, what: str, value: Any, least: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise InputFileError(path, f"{what} is not a number below a million: {value!r:.40}")
    if value < least if least is not None else value <= 0:
        raise InputFileError(path, f"{what} is too small: {value!r}")
    return float(value)


def _count(path: Path, what: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise InputFileError(path, f"{what}: {value!r:.40} is not a whole number from {least} to {_MOST}")
    return value


_READERS: dict[str, Callable[[Path, str, Any], Any]] = {
    "name": _text,
    "teacher": _text,
    "share": _number,
    "resolutions": _counts,
    "open": _by_kind,
    "largest": _flag,
    "smallest": _flag,
    "random": partial(_count, least=0),
    "labels": partial(_number, least=0.0),
    "learning_rate": _pair,
    "subnet_rate": _pair,
    "sort": _flag,
}
