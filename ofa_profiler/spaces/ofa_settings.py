"""The settings of a subnet as the OFA authors' code writes them: `{"ks": …, "e": …, "d": …, "r": …}`.

    ks   kernel size of each block, those of inactive blocks included
    e    expand ratio of each block
    d    depth of each stage; in spaces with a choice of width (`w`), the number of blocks above the minimum, and first
         2 or 0: the residual block of the stem is active, or not
    w    in such spaces, positions of the width inside the stem, after it, and of each stage
    r    resolution

`set_active_subnet` takes these names. Other people's files have variants, which are read too: one number for all
blocks, null or 0 for inactive blocks, lists of active blocks only, `image_size` for `r`, a list with one resolution.

A space has this form if all its choices are of these kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces.base import SearchSpace
from ofa_profiler.spaces.genes import DEPTH, RESOLUTION, Gene

#: Name of a list -> the kinds of choices in it.
_KINDS = {"ks": ("kernel_size",), "e": ("expand_ratio",), "d": (DEPTH,), "w": ("width_mult", "last_width_mult")}
_PER_BLOCK = ("ks", "e")
_RESOLUTION_NAMES = ("r", "image_size", "resolution")
#: The names of the authors' supernets.
_NET_IDS = {
    "ofa_mbv3_d234_e346_k357_w1.0": "ofa-mbv3-w1.0",
    "ofa_mbv3_d234_e346_k357_w1.2": "ofa-mbv3-w1.2",
    "ofa_proxyless_d234_e346_k357_w1.3": "ofa-proxyless-w1.3",
    "ofa_resnet50": "ofa-resnet50",
    "ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0": "ofa-resnet50",
}


def is_settings(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object has this form."""
    return len(data.keys() & {"ks", "e", "d"}) >= 2


def to_settings(space: SearchSpace, architecture: Architecture) -> dict[str, Any]:
    """The settings of an architecture of `space`, and the name of the space. Inactive blocks have the smallest choices.

    Raises `UsageError` for a space without this form.
    """
    lists = _lists(space)
    space = space.at(architecture.resolution)
    values = [_names(space, gene)[i] for gene, i in zip(space.genes, space.encode([architecture])[0], strict=True)]
    settings = {name: [values[i] for i in positions] for name, positions in lists.items() if positions}
    resolution = {} if architecture.resolution is None else {"r": architecture.resolution}
    return {"space": space.name, **settings, **resolution}


def from_settings(spaces: Sequence[SearchSpace], data: Mapping[str, Any]) -> Architecture:
    """The architecture with these settings, of one of `spaces`. Raises `UsageError`, which names the wrong field."""
    read = [_read_or_problem(space, data) for space in spaces]
    found = [architecture for architecture in read if isinstance(architecture, Architecture)]
    if len(found) > 1:
        names = " and ".join(architecture.space for architecture in found)
        raise UsageError(f'architecture: ks, e and d fit {names}: add "space": "{found[0].space}", or another')
    if not found:
        problems = [problem for problem in read if isinstance(problem, _Problem)]
        raise UsageError(str(min(problems, key=lambda problem: problem.unlike)))
    return found[0]


class _Problem(UsageError):
    """The settings are not those of a space. `unlike` counts the lists that it has and the settings have not."""

    def __init__(self, message: str, unlike: int) -> None:
        super().__init__(message)
        self.unlike = unlike


def _read_or_problem(space: SearchSpace, data: Mapping[str, Any]) -> Architecture | _Problem:
    try:
        return _read(space, data)
    except UsageError as error:
        lengths = {name: sum(gene.kind in kinds for gene in space.genes) for name, kinds in _KINDS.items()}
        given = {name: len(data[name]) if isinstance(data.get(name), list) else 0 for name in _KINDS}
        unlike = sum(lengths[name] != given[name] for name in _KINDS)
        return _Problem(str(error) if space.name in str(error) else f"{error} ({space.name})", unlike)


def named_space(data: Mapping[str, Any]) -> str | None:
    """The space that the settings name, by our name or by that of the authors' supernet; None if they name none."""
    for key in ("space", "net", "net_id"):
        if isinstance(name := data.get(key), str):
            return _NET_IDS.get(name, name)
    return None


def matches_width(data: Mapping[str, Any], space: str) -> bool:
    """Whether the width in the settings, if there is one, is that in the name of a space."""
    for key in ("width", "width_mult", "wid", "w"):
        if isinstance(width := data.get(key), int | float):
            return space.endswith(f"-w{float(width):.1f}")
    return True


def resolution_of(space: SearchSpace, data: Mapping[str, Any], remedy: str = 'add "r", for example 224') -> int | None:
    """The resolution in settings or in a `net.config`. Raises `UsageError`, with the remedy if there is none."""
    if space.resolution_gene is None:
        return None
    for name in _RESOLUTION_NAMES:
        value = data.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if type(value) is int:
            return value
        if value is not None:
            raise UsageError(f"architecture: {name!r} is {value!r:.60}, not one image size in pixels")
    raise UsageError(f"architecture: the image size is missing: {remedy}")


# --- one space -----------------------------------------------------------------------------------------


def _lists(space: SearchSpace) -> dict[str, list[int]]:
    """Name of a list -> the positions of its genes, in order: the stem, the stages, their blocks."""
    order = sorted(range(len(space.genes)), key=lambda i: not space.genes[i].stem)
    unknown = {gene.kind for gene in space.genes} - {RESOLUTION, *(kind for kinds in _KINDS.values() for kind in kinds)}
    if unknown:
        raise UsageError(f"space {space.name} has choices that ks, e, d, w and r cannot express: {', '.join(unknown)}")
    return {name: [i for i in order if space.genes[i].kind in kinds] for name, kinds in _KINDS.items()}


def _names(space: SearchSpace, gene: Gene) -> list[float]:
    """How the settings write each choice of a gene."""
    has_widths = any(other.kind in _KINDS["w"] for other in space.genes)
    if gene.kind in _KINDS["w"]:
        return list(range(len(gene.choices)))
    if gene.kind == DEPTH and has_widths:
        return [2 * i if gene.stem else depth - min(gene.choices) for i, depth in enumerate(gene.choices)]
    return list(gene.choices)


def _read(space: SearchSpace, data: Mapping[str, Any]) -> Architecture:
    lists = _lists(space)
    for name, positions in lists.items():
        if positions and name not in data:
            raise UsageError(f"architecture: {name!r} is missing; it must be a list of {len(positions)} numbers")
    resolution = resolution_of(space, data)
    indices = dict.fromkeys(range(len(space.genes)), 0)
    for name in ("d", "w", *_PER_BLOCK):  # depths first: they say which blocks are active
        if lists[name]:
            indices.update(_indices(space, name, lists[name], data, indices))
    values = [gene.choices[indices[i]] for i, gene in enumerate(space.genes)]
    if space.resolution_gene is not None:
        assert resolution is not None
        values[space.resolution_gene] = resolution
    architecture = space.from_values(values)
    space.validate(architecture)
    return architecture


def _indices(
    space: SearchSpace, name: str, positions: Sequence[int], data: Mapping[str, Any], known: Mapping[int, int]
) -> dict[int, int]:
    """Position of a gene -> the index of its choice, for the genes of one list. Inactive blocks are left out."""
    switches = [(i, space.genes[i].switch, space.genes[i].switch_from) for i in positions]
    active = [i for i, switch, start in switches if name not in _PER_BLOCK or switch is None or known[switch] >= start]
    given = _values(name, positions, active, data, optional=len(space.genes[positions[-1]].choices) == 1)
    found = {}
    for number, (position, value) in enumerate(zip(positions, given, strict=True)):
        choices = _names(space, space.genes[position])
        if position not in active:
            continue
        if name == "d" and len(choices) == 1:  # a stage without a choice
            found[position] = 0
        elif isinstance(value, bool) or value not in choices:
            listed = ", ".join(f"{choice:g}" for choice in choices)
            raise UsageError(f"architecture: {name}[{number}] is {value!r:.60}, not one of {listed}")
        else:
            found[position] = choices.index(value)
    return found


def _values(
    name: str, positions: Sequence[int], active: Sequence[int], data: Mapping[str, Any], *, optional: bool
) -> list[Any]:
    """A value for each gene of a list; None for inactive blocks that the file leaves out."""
    value = data.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value] * len(positions)
    if not isinstance(value, list):
        raise UsageError(f"architecture: {name!r} is {value!r:.60}; it must be a list of {len(positions)} numbers")
    if len(value) == len(positions):
        return value
    if len(value) == len(active) and name in _PER_BLOCK:
        given = dict(zip(active, value, strict=True))
        return [given.get(position) for position in positions]
    if name == "d" and optional and len(value) == len(positions) - 1:
        return [*value, None]
    blocks = f", or {len(active)} for the active blocks" if name in _PER_BLOCK and len(active) < len(positions) else ""
    raise UsageError(f"architecture: {name!r} has {len(value)} numbers, not {len(positions)}{blocks}")
