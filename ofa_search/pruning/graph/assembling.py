"""From the classes of an analysis to groups of units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ofa_search.pruning.graph.analysis import EACH, Analysis
from ofa_search.pruning.graph.classes import Labels, varying
from ofa_search.pruning.graph.sizes import integers
from ofa_search.pruning.groups import CHANNELS, CONV_GROUPS, HEADS, Axis, Dependencies, Group, Size, Unprunable

Units = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Place:
    """The classes along an axis of a tensor, and where zeroing it makes them zero."""

    tensor: str
    axis: int
    classes: Labels
    made: NDArray[np.bool_]
    read: bool  # by a layer


@dataclass(eq=False)
class _Draft:
    """A group in the making."""

    name: str
    count: int
    first: Units  # along the axis of the first layer that makes it
    made: list[Axis] = field(default_factory=list)
    read: list[Axis] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)


def assemble(analysis: Analysis, module: nn.Module) -> Dependencies:
    """All groups in the order of execution, and what cannot be removed."""
    places = list(_places(analysis))
    order = analysis.makers
    makers = sorted((p for p in places if (p.tensor, p.axis) in order), key=lambda p: order[p.tensor, p.axis])
    found = _by_signature(places, makers)
    index = _Index([classes for classes in found if len(classes) > 1], analysis.classes.size)
    drafts = _named(index, makers)
    for place in places:
        for i, units in index.of(place.classes):
            _add(drafts[i], place, units)
    for integer in integers(analysis, module):
        for i, units in index.of(analysis.classes.resolve(integer.labels)):
            drafts[i].sizes.append(Size(integer.module, integer.attribute, units, integer.position))
    kinds = {HEADS: index.any_of(analysis, analysis.heads), CONV_GROUPS: index.any_of(analysis, analysis.conv_groups)}
    groups = (
        _finished(analysis, draft, [k for k, mine in kinds.items() if i in mine]) for i, draft in enumerate(drafts)
    )
    single = [classes for classes in found if len(classes) == 1]
    return Dependencies(tuple(groups), tuple(_unprunable(analysis, makers, single)))


def _places(analysis: Analysis) -> Iterator[_Place]:
    for (name, axis), labels in analysis.labels.items():
        classes = analysis.classes.resolve(labels)
        made = np.broadcast_to(analysis.made.get((name, axis), np.zeros(1, np.bool_)), classes.shape)
        if axis != EACH:
            yield _Place(name, axis, classes, made, (name, axis) in analysis.readers)
            continue
        shape = analysis.trace.state[name]
        shaped = classes.reshape(shape)
        for only in varying(shaped):
            along = np.moveaxis(shaped, only, 0).reshape(shape[only], -1)[:, 0]
            yield _Place(name, only, along, np.broadcast_to(made[:1], along.shape), read=False)


def _by_signature(places: Sequence[_Place], makers: Sequence[_Place]) -> list[Units]:
    """The classes that the same layers make, as many times each: a group. Both in the order of execution."""
    made: dict[int, list[tuple[int, int]]] = {}
    for i, place in enumerate(places):
        found, counts = np.unique(place.classes[place.made & (place.classes >= 0)], return_counts=True)
        for each, count in zip(found.tolist(), counts.tolist(), strict=True):
            made.setdefault(each, []).append((i, count))
    groups: dict[tuple[tuple[int, int], ...], dict[int, None]] = {}
    for place in makers:
        for each in place.classes[place.classes >= 0].tolist():
            groups.setdefault(tuple(made[each]), {})[each] = None
    return [np.array(list(classes)) for classes in groups.values()]


class _Index:
    """The group and the unit of each class."""

    def __init__(self, groups: Sequence[Units], size: int) -> None:
        self.counts = [len(classes) for classes in groups]
        self._group, self._unit = np.full(size, -1), np.full(size, -1)
        for i, classes in enumerate(groups):
            self._group[classes] = i
            self._unit[classes] = np.arange(len(classes))

    def of(self, classes: Labels) -> Iterator[tuple[int, Units]]:
        """The groups of which there are classes, each with the unit of each class, or -1."""
        groups = np.where(classes >= 0, self._group[classes], -1)
        for i in np.unique(groups[groups >= 0]).tolist():
            yield i, np.where(groups == i, self._unit[classes], -1)

    def any_of(self, analysis: Analysis, labels: Sequence[Labels]) -> set[int]:
        """The groups of which any of the labels are."""
        return {i for each in labels for i, _ in self.of(np.unique(analysis.classes.resolve(each)))}


def _named(index: _Index, makers: Sequence[_Place]) -> list[_Draft]:
    """Each group by the first layer that makes it; a second one of the same layer is `LAYER:2`."""
    drafts: dict[int, _Draft] = {}
    seen: dict[str, int] = {}
    for place in makers:
        for i, units in index.of(place.classes):
            if i not in drafts:
                layer = _layer(place.tensor)
                seen[layer] = seen.get(layer, 0) + 1
                name = layer if seen[layer] == 1 else f"{layer}:{seen[layer]}"
                drafts[i] = _Draft(name, index.counts[i], units)
    return [drafts[i] for i in range(len(drafts))]


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _add(draft: _Draft, place: _Place, units: Units) -> None:
    zeroed = np.where(place.made, units, -1)
    if (zeroed >= 0).any():
        draft.made.append(Axis(place.tensor, place.axis, zeroed))
    if place.read or (zeroed != units).any():
        draft.read.append(Axis(place.tensor, place.axis, units))


def _finished(analysis: Analysis, draft: _Draft, kinds: Sequence[str]) -> Group:
    channels = _count(draft.first)
    if HEADS in kinds:  # the first layer may make queries, keys and values
        weights = [axis for axis in draft.read if len(analysis.trace.state[axis.tensor]) > 1]
        channels = min((_count(axis.units) for axis in weights), default=channels)
    return Group(
        name=draft.name,
        kind=next(iter(kinds), CHANNELS),
        n_units=draft.count,
        unit_channels=channels,
        made=tuple(draft.made),
        read=tuple(draft.read),
        sizes=tuple(draft.sizes),
    )


def _count(units: Units) -> int:
    """How often there is a unit."""
    return int((units == units[units >= 0][0]).sum())


def _unprunable(analysis: Analysis, makers: Sequence[_Place], single: Sequence[Units]) -> Iterator[Unprunable]:
    alone = np.concatenate([np.empty(0, np.int64), *single])
    for place in makers:
        for code in np.unique(place.classes[place.classes < 0])[::-1].tolist():
            count = int((place.classes == code).sum())
            yield Unprunable(_layer(place.tensor), count, analysis.classes.reason(code))
        if count := int(np.isin(place.classes, alone).sum()):
            yield Unprunable(_layer(place.tensor), count, "can only be removed as a whole")


def without(dependencies: Dependencies, failed: dict[str, str]) -> Dependencies:
    """The same without some groups, which are listed with their reasons."""
    groups = tuple(group for group in dependencies.groups if group.name not in failed)
    moved = [
        Unprunable(group.name, group.channels, failed[group.name])
        for group in dependencies.groups
        if group.name in failed
    ]
    return replace(dependencies, groups=groups, unprunable=(*dependencies.unprunable, *moved))
