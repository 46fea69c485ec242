"""What can be removed from a network: groups of units, and where each unit is in the parameters.

A **unit** is the smallest part that can be removed as one: a channel, an attention head, a group of a grouped
convolution. A **group** is all units that one layer (or several that are added up) makes. If the `made` parameters of a
unit are zero, the unit contributes exactly nothing, and cutting it out does not change the function of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

#: Name of a group -> the units that are kept, in ascending order. Groups that are not named are kept whole.
Kept = Mapping[str, NDArray[np.int64]]
#: Name of a group -> how many of its units are kept.
Counts = Mapping[str, int]

CHANNELS, HEADS, CONV_GROUPS = "channels", "heads", "groups"


@dataclass(frozen=True, eq=False)
class Axis:
    """An axis of a parameter or buffer. `units` has the unit for each index along it, or -1 where it is of none."""

    tensor: str  # its name in the state dict
    axis: int
    units: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Size:
    """An integer of a module, like `out_channels` or `num_heads`: the length of `units`, which are as in `Axis`.

    A cut subtracts those that go. With a `position`, the attribute is a sequence, and this is one of its integers.
    """

    module: str  # its path; empty for the network itself
    attribute: str
    units: NDArray[np.int64]
    position: int | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """`n_units` units. A cut removes their indices from the axes `made` (by zeroing which the unit vanishes) and `read`
    (what other layers do with the unit)."""

    name: str  # of the first layer that makes it, like `layer1.0.conv1`
    kind: str  # CHANNELS, HEADS or CONV_GROUPS
    n_units: int
    #: Channels of the tensor between layers per unit: 1, or the size of a head or of a group of a convolution.
    unit_channels: int
    made: tuple[Axis, ...]
    read: tuple[Axis, ...]
    #: What a cut changes besides tensors.
    sizes: tuple[Size, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the tensor between layers."""
        return self.n_units * self.unit_channels


@dataclass(frozen=True)
class Unprunable:
    """Channels that cannot be removed, and why."""

    layer: str
    channels: int
    reason: str


@dataclass(frozen=True, eq=False)
class Dependencies:
    """All groups of a network in the order of execution, and what is in none."""

    groups: tuple[Group, ...]
    unprunable: tuple[Unprunable, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Group]:
        return {group.name: group for group in self.groups}
