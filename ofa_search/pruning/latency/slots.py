"""The slots of a network: its blocks, the groups on which each depends, and the model of each for any units kept.

The whole network decides where it is cut; a cut network is cut at the same kernels. A block depends on a group if its
model is another one with fewer units of this group. Blocks that do not differ for all units, or for fewer units of
each group, are the same function of units: they share a template, and are measured once.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Array, Block, Cutter, TimedModel, UserModel
from ofa_profiler.models.grouping import CALLS
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.models.names import printable
from ofa_search.pruning.groups import Counts, Group
from ofa_search.pruning.latency.design import DESIGN_LEVELS
from ofa_search.pruning.latency.exporting import Exporter
from ofa_search.pruning.latency.space import Place, levels_of

#: At most so many of the shortest blocks are joined.
_MOST_JOINED = 12
#: Blocks of more groups are as bad as those of so many: groups will share a gene.
_MOST_COUNTED = 6
#: What a block of no length costs, in points.
_SHORT_COSTS = 10.0


@dataclass(frozen=True, eq=False)
class CutNetwork:
    """A network with some units kept: the model of the whole, and of its blocks, one for each place."""

    counts: Counts
    whole: TimedModel
    blocks: tuple[Block, ...]


@dataclass(eq=False)
class Blocks:
    """Cuts networks into blocks. `this_machine`: they run here, so a cut follows what the runtime does here."""

    exporter: Exporter[Any]
    this_machine: bool
    #: The kernels with which blocks end; None until the whole network is cut.
    ends: tuple[str, ...] | None = None

    def network(self, counts: Counts) -> CutNetwork:
        """The network cut to `counts`. Raises `UsageError` if its blocks are not those of the whole network."""
        ends = self._ends()
        with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
            model, feeds = self._opened(counts, Path(folder))
            cutter = model.cutter(feeds, this_machine=self.this_machine)
            return CutNetwork(counts, model.whole(feeds), cutter.blocks_between(ends))

    def whole(self, counts: Counts) -> TimedModel:
        """The whole network alone."""
        with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
            model, feeds = self._opened(counts, Path(folder))
            return model.whole(feeds)

    def _opened(self, counts: Counts, folder: Path) -> tuple[UserModel, Mapping[str, Array]]:
        model = self.exporter.write(counts, folder)
        return model, feeds_for(model.inputs, {})

    def _ends(self) -> tuple[str, ...]:
        """Those of the shortest blocks, unless others were chosen."""
        if self.ends is None:
            with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
                model, feeds = self._opened({}, Path(folder))
                self.ends = _ends(model.cutter(feeds, this_machine=self.this_machine))
        return self.ends


def _ends(cutter: Cutter) -> tuple[str, ...]:
    """The last kernel with a name of each of the shortest blocks."""
    names = dict(zip((kernel.name for kernel in cutter.kernels), cutter.names(), strict=True))
    ends = []
    for block in cutter.blocks(call_us=0.0):
        named = [names[kernel.name] for kernel in block.kernels if names[kernel.name]]
        ends.append(named[-1] if named else "")
    return tuple(ends)


def find_places(blocks: Blocks, groups: Sequence[Group]) -> tuple[Place, ...]:
    """The places of a network, in order of execution, at the ends that are then those of `blocks`.

    Raises `UsageError` if a cut network has other blocks.
    """
    whole = blocks.network({}).blocks
    depends = _dependence(blocks, whole, groups)
    ends = tuple(block.name for block in whole)
    blocks.ends = tuple(
        ends[last] for last in joined_blocks(whole, [list(found) for found in depends], blocks.exporter.call_us)
    )
    if blocks.ends != ends:
        whole = blocks.network({}).blocks
        depends = _dependence(blocks, whole, groups)
    return _described(whole, depends, _names([blocks.exporter.layer_of(block.name) for block in whole]))


def _dependence(blocks: Blocks, whole: Sequence[Block], groups: Sequence[Group]) -> list[dict[str, str]]:
    """For each block, the groups on which it depends, with what tells blocks apart that depend otherwise."""
    depends: list[dict[str, str]] = [{} for _ in whole]
    for group in groups:
        count, narrowed = _narrowed(blocks, group)
        for place, (before, after) in enumerate(zip(whole, narrowed, strict=True)):
            if before.signature != after:
                depends[place][group.name] = f"{group.n_units} {count} {after}"
    return depends


def joined_blocks(whole: Sequence[Block], depends: Sequence[Sequence[str]], call_us: float) -> list[int]:
    """Consecutive short blocks that are measured as one: the positions of the last ones.

    Few points are wanted: two layers that depend on the same groups are one block. A block should not be too short
    either: its data would be in a nearer cache than in the network.
    """
    n = len(whole)
    us = np.cumsum([0.0, *(sum(kernel.estimated_us for kernel in block.kernels) for block in whole)])
    best, start = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=int)
    best[0] = 0.0
    for stop in range(1, n + 1):
        groups: set[str] = set()
        for first in range(stop - 1, max(stop - 1 - _MOST_JOINED, -1), -1):
            groups.update(depends[first])
            short = max(0.0, 1.0 - (us[stop] - us[first]) / (CALLS * call_us))
            cost = best[first] + DESIGN_LEVELS ** min(len(groups), _MOST_COUNTED) + _SHORT_COSTS * short
            if cost < best[stop]:
                best[stop], start[stop] = cost, first
    ends, stop = [], n
    while stop:
        ends.append(stop - 1)
        stop = start[stop]
    return ends[::-1]


def _narrowed(blocks: Blocks, group: Group) -> tuple[int, list[str]]:
    """The fewest units of a group with which the network is cut as before, and the signatures of its blocks then.

    Raises `UsageError` if there are none.
    """
    for count in levels_of(group):
        try:
            return count, [block.signature for block in blocks.network({group.name: count}).blocks]
        except UsageError as error:  # noqa: PERF203 (each takes long)
            why = error
    raise why


def _described(whole: Sequence[Block], depends: Sequence[Mapping[str, str]], names: Sequence[str]) -> tuple[Place, ...]:
    templates: dict[str, str] = {}
    places = []
    for block, found, name in zip(whole, depends, names, strict=True):
        same = hashlib.sha256(repr((block.signature, list(found.values()))).encode()).hexdigest()
        template = templates.setdefault(same, name)
        places.append(Place(name, template, tuple(found), block.kind, block.inputs, block.outputs))
    return tuple(places)


def _names(layers: Sequence[str]) -> list[str]:
    """Names by position and last layer, without spaces: units follow in the key of an op."""
    return [f"{i + 1}:{'_'.join(printable(layer).split()) or 'block'}" for i, layer in enumerate(layers)]


def check_prunable(places: Sequence[Place]) -> None:
    """Raise `UsageError` for a network whose time does not depend on any group."""
    if not any(place.groups for place in places):
        raise UsageError("no block of the network depends on units that can be removed: there is nothing to prune")
