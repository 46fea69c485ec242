"""Where the predicted time of a network goes: to each of its ops, and to what belongs to no op."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import get_space
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_profiler.spaces.genes import Genomes
from ofa_profiler.spaces.mixed import PRECISIONS, MixedSpace
from ofa_profiler.tables.mixed import AnyTable

#: What a network takes once, whatever its ops are: the constant of a correction.
ONCE = "once per network"


@dataclass(frozen=True)
class Share:
    """Milliseconds of a network. `name` is that of the slot; without an `op`, what else takes them."""

    name: str
    op: Op | None
    ms: float


def shares_of(table: AnyTable, architecture: Architecture) -> tuple[Share, ...] | None:
    """The shares of an architecture, in the order of execution; their sum is what the table predicts.

    None if the correction of the table is no sum. Raises `UsageError` if the table does not know the network.
    """
    space = get_space(architecture.space).at(architecture.resolution)
    cost, genomes = table.cost(space), space.encode([architecture])
    if not isinstance(cost, AdditiveCost):
        return None
    ops = dict(space.layout(architecture))
    names = [slot.name for slot in space.slots]
    # The parts of a cost are in the order of the slots; in mixed precision, both ends and all changes follow.
    slots, rest = cost.parts[: len(names)], cost.parts[len(names) :]
    if len(slots) < len(names) or (rest and not isinstance(space, MixedSpace)):
        return None
    changes = _changes(space, architecture, rest[2:], genomes) if isinstance(space, MixedSpace) else {}
    shares: list[Share] = []
    for name, part in zip(names, slots, strict=True):
        if name in ops:
            shares.append(Share(name, ops[name], _at(part, genomes)))
        if name in changes:
            shares.append(changes[name])
    once = cost.constant + sum(_at(part, genomes) for part in rest[:2])
    return (*shares, *([Share(ONCE, None, once)] if once else ()))


def _at(part: Part, genomes: Genomes) -> float:
    return float(part.values[tuple(genomes[0, list(part.genes)])])


def _changes(
    space: MixedSpace, architecture: Architecture, parts: tuple[Part, ...], genomes: Genomes
) -> dict[str, Share]:
    """Slot -> the change of precision after it, where the network has one."""
    found = {}
    precisions = space.precisions(architecture)
    inner = [edge for edge in space.edges if edge.before is not None and edge.after is not None]
    for edge, part in zip(inner, parts, strict=True):
        milliseconds = _at(part, genomes)
        if milliseconds and edge.before is not None:
            name = space.slots[edge.before].name
            after = next(other for other in PRECISIONS.values() if other != precisions[name])
            found[name] = Share(f"to {after} after {name}", None, milliseconds)
    return found
