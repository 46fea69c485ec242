"""Model files of a network with any numbers of its units kept, for measuring: their weights are made up."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from ofa_profiler.models.base import UserModel
from ofa_search.pruning.groups import Counts, Dependencies, Group, Kept
from ofa_search.pruning.latency.rules import Example, Export, NotLearned

if TYPE_CHECKING:
    import torch

#: Removes all but the kept units of a module, in place: (module, dependencies, kept).
Cut = Callable[[Any, Dependencies, Kept], object]
#: Name or output of a node -> the layer of its weights ("": none), and its first input.
Layers = Mapping[str, tuple[str, str]]

#: Exports from which the rules of sizes are learned; more where groups of few units need them to be told apart.
_FEWEST_EXAMPLES, _MOST_EXAMPLES = 3, 8
_DRAWS = 200
#: A layer is looked for among so many operators before an activation.
_MOST_STEPS = 4

_Made = TypeVar("_Made", covariant=True)


class Template(Protocol[_Made]):
    """The export of the whole network, and what changes in it."""

    def at(self, counts: Counts) -> _Made:
        """The export of the network cut to `counts`."""


def first_units(counts: Counts) -> dict[str, np.ndarray]:
    """The first units of each group: which ones they are does not matter for the time."""
    return {group: np.arange(count, dtype=np.int64) for group, count in counts.items()}


@dataclass(eq=False)
class Exporter(ABC, Generic[Export]):
    """Exports `module`, which never changes, for one runtime. `shapes` are values of `--shape`."""

    module: torch.nn.Module
    dependencies: Dependencies
    shapes: Sequence[str]
    cut: Cut
    #: What one call of the runtime costs on a core of a PC.
    call_us: ClassVar[float]
    #: Why each network is cut and exported by itself, which takes seconds; empty if that is not needed.
    slow_because: str = field(default="", init=False)

    @abstractmethod
    def exported(self, counts: Counts) -> Export:
        """The export of the cut module. Raises `UsageError` if there is none."""

    @abstractmethod
    def write(self, counts: Counts, folder: Path) -> UserModel:
        """Write the file of the network cut to `counts`, and open it."""

    @abstractmethod
    def _learned(self, whole: Export, examples: Sequence[Example[Export]]) -> Template[Export]:
        """Raises `NotLearned`."""

    @abstractmethod
    def _find_layers(self, layers: frozenset[str]) -> Layers:
        """`layers` are the modules that have weights."""

    def _node_of(self, kernel: str) -> str:
        """The name of a kernel in `_find_layers`."""
        return kernel

    def model(self, counts: Counts) -> Export:
        """The export of the network cut to `counts`; groups without a count are whole."""
        template = self._template
        return self.exported(counts) if template is None else template.at(counts)

    def layer_of(self, kernel: str) -> str:
        """The layer of the module to which a kernel belongs: by the names of weights. Its own name if none is known."""
        name = self._node_of(kernel)
        for _ in range(_MOST_STEPS):
            layer, before = self._layers.get(name, ("", ""))
            if layer or not before:
                return layer or kernel
            name = before
        return kernel

    def cut_module(self, counts: Counts) -> torch.nn.Module:
        """A copy of the module, cut to `counts`."""
        module = copy.deepcopy(self.module)
        whole = {group.name: group.n_units for group in self.dependencies.groups}
        kept = {name: count for name, count in counts.items() if count < whole[name]}
        self.cut(module, self.dependencies, first_units(kept))  # also if all are kept: the module can change its form
        return module

    @cached_property
    def _layers(self) -> Layers:
        weights = (name for name in self.module.state_dict() if name.endswith(".weight"))
        return self._find_layers(frozenset(name.rpartition(".")[0] for name in weights))

    @cached_property
    def _template(self) -> Template[Export] | None:
        whole = self.exported({})  # first: if there is no export, nothing is cut
        draws = distinct_counts(self.dependencies.groups)
        if not draws:
            self.slow_because = "groups of so few units cannot be told apart"
            return None
        examples = [Example(counts, self.exported(counts)) for counts in draws]
        try:
            return self._learned(whole, examples)
        except NotLearned as error:
            self.slow_because = str(error)
            return None


def distinct_counts(groups: Sequence[Group]) -> list[Mapping[str, int]]:
    """Numbers of units of all groups, several times, so that what a size loses tells which group it depends on.

    No two groups lose the same, or so much more each time. Empty if none were found.
    """
    generator = np.random.default_rng(0)
    several = [group for group in groups if group.n_units > 1]  # the others are never cut
    for number in range(_FEWEST_EXAMPLES, _MOST_EXAMPLES + 1):
        for _ in range(_DRAWS):
            drawn = {
                g.name: generator.integers(max(1, g.n_units // 2), g.n_units, number, endpoint=True) for g in groups
            }
            lost = [g.n_units - drawn[g.name] for g in several]
            told = {tuple((each // max(1, np.gcd.reduce(each))).tolist()) for each in lost if each.any()}
            if len(told) == len(several):
                return [{name: int(counts[i]) for name, counts in drawn.items()} for i in range(number)]
    return []
