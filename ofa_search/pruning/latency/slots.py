"""The slots of a network: its blocks, the groups on which each depends, and the model of each for any units kept.

The whole network decides where it is cut; a cut network is cut at the same kernels. A block depends on a group if its
model is another one with fewer units of this group. Blocks that do not differ for all units, or for fewer units of
each group, are the same function of units: they share a template, and are measured once.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Array, Block, TimedModel
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.models.names import printable
from ofa_profiler.models.onnx_blocks import Cutter
from ofa_profiler.models.onnx_model import OnnxModel
from ofa_search.pruning.groups import Counts, Group
from ofa_search.pruning.latency.exporting import Exporter
from ofa_search.pruning.latency.space import Place, levels_of


@dataclass(frozen=True, eq=False)
class CutNetwork:
    """A network with some units kept: the model of the whole, and of its blocks, one for each place."""

    counts: Counts
    whole: TimedModel
    blocks: tuple[Block, ...]


@dataclass(eq=False)
class Blocks:
    """Cuts networks into blocks. `this_machine`: they run here, so a cut follows what the runtime does here."""

    exporter: Exporter
    this_machine: bool
    #: The kernels with which blocks end; None until the whole network is cut.
    ends: tuple[str, ...] | None = field(default=None, init=False)

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

    def _opened(self, counts: Counts, folder: Path) -> tuple[OnnxModel, Mapping[str, Array]]:
        path = folder / "model.onnx"
        path.write_bytes(self.exporter.model(counts).SerializeToString(deterministic=True))
        model = OnnxModel(path)
        return model, feeds_for(model.inputs, {})

    def _ends(self) -> tuple[str, ...]:
        if self.ends is None:
            with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
                model, feeds = self._opened({}, Path(folder))
                self.ends = _ends(model.cutter(feeds, this_machine=self.this_machine))
        return self.ends


def _ends(cutter: Cutter) -> tuple[str, ...]:
    """The last kernel with a name of each block. The name of a block is that of its last kernel here."""
    names = dict(zip((kernel.name for kernel in cutter.kernels), cutter.names(), strict=True))
    ends = []
    for block in cutter.blocks():
        named = [names[kernel.name] for kernel in block.kernels if names[kernel.name]]
        ends.append(named[-1] if named else "")
    return tuple(ends)


def find_places(blocks: Blocks, groups: Sequence[Group]) -> tuple[Place, ...]:
    """The places of a network, in order of execution. Raises `UsageError` if a cut network has other blocks."""
    whole = blocks.network({}).blocks
    depends: list[dict[str, str]] = [{} for _ in whole]
    for group in groups:
        count, narrowed = _narrowed(blocks, group)
        for place, (before, after) in enumerate(zip(whole, narrowed, strict=True)):
            if before.signature != after:
                depends[place][group.name] = f"{group.n_units} {count} {after}"
    return _described(whole, depends)


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


def _described(whole: Sequence[Block], depends: Sequence[Mapping[str, str]]) -> tuple[Place, ...]:
    names = _names(whole)
    templates: dict[str, str] = {}
    places = []
    for block, found, name in zip(whole, depends, names, strict=True):
        same = hashlib.sha256(repr((block.signature, list(found.values()))).encode()).hexdigest()
        template = templates.setdefault(same, name)
        places.append(Place(name, template, tuple(found), block.kind, block.inputs, block.outputs))
    return tuple(places)


def _names(whole: Sequence[Block]) -> list[str]:
    """Names by position and main kernel, without spaces: units follow in the key of an op."""
    return [f"{i + 1}:{'_'.join(printable(block.name).split()) or 'block'}" for i, block in enumerate(whole)]


def check_prunable(places: Sequence[Place]) -> None:
    """Raise `UsageError` for a network whose time does not depend on any group."""
    if not any(place.groups for place in places):
        raise UsageError("no block of the network depends on units that can be removed: there is nothing to prune")
