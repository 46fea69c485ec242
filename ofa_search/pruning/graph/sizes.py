"""Integers of modules that say how many channels, heads or groups there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from ofa_search.pruning.graph.analysis import Analysis, Counted
from ofa_search.pruning.graph.classes import Labels

#: Integers with such names are no numbers of channels, even if they are equal to one.
_GEOMETRY = ("kernel", "stride", "pad", "dilation", "window", "shift", "depth", "resolution", "img", "patch", "length")


@dataclass(frozen=True, eq=False)
class Integer:
    """An attribute of a module, or one of its integers, that is the number of the labels."""

    module: str
    attribute: str
    position: int | None
    labels: Labels


def integers(analysis: Analysis, module: nn.Module) -> list[Integer]:
    """Those of the layers that have weights, and those of the modules that split or merge axes in their `forward`."""
    found: dict[tuple[str, str, int | None], Integer] = {}
    modules = dict(module.named_modules(remove_duplicate=False))
    for counted in analysis.counted:
        owner = modules.get(counted.module)
        if owner is not None and (analysis.classes.resolve(counted.labels) >= 0).any():
            matches = list(_attributes(owner, counted))
            of_heads = [match for match in matches if "head" in match[0] and "dim" not in match[0]]
            for name, position in of_heads if _of_heads(analysis, counted) and of_heads else matches:
                key = (counted.module, name, position)
                found.setdefault(key, Integer(*key, counted.labels))
    return list(found.values())


def _of_heads(analysis: Analysis, counted: Counted) -> bool:
    """Whether each label is another head."""
    classes = analysis.classes.resolve(counted.labels)
    return len(np.unique(classes)) == len(classes) and any(
        np.isin(classes, analysis.classes.resolve(labels)).all() for labels in analysis.heads
    )


def _attributes(owner: nn.Module, counted: Counted) -> Iterator[tuple[str, int | None]]:
    if counted.name:
        names = [counted.name]
    elif isinstance(owner, nn.MultiheadAttention):
        names = ["num_heads"]  # the embedding may be of the same size
    else:
        names = [name for name in vars(owner) if not any(part in name for part in _GEOMETRY)]
    for name in names:
        held = vars(owner).get(name)
        if type(held) is int and held == len(counted.labels):
            yield name, None
        elif isinstance(held, list | tuple) and counted.among and tuple(held) == counted.among:
            yield name, counted.position
