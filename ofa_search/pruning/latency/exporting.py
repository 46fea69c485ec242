"""ONNX files of a network with any numbers of its units kept, for measuring: their weights are made up."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_profiler.models.torch_export import export_module
from ofa_search.pruning.groups import Counts, Dependencies, Group, Kept
from ofa_search.pruning.latency.sizes import Example, NotLearned, Template, name_before, separated, with_made_up_weights

if TYPE_CHECKING:
    import onnx
    import torch

#: Removes all but the kept units of a module, in place: (module, dependencies, kept).
Cut = Callable[[Any, Dependencies, Kept], object]

#: Exports from which the rules of sizes are learned; more where groups of few units need them to be told apart.
_FEWEST_EXAMPLES, _MOST_EXAMPLES = 3, 8
_DRAWS = 200
#: A layer is looked for among so many operators before an activation.
_MOST_STEPS = 4


def first_units(counts: Counts) -> dict[str, np.ndarray]:
    """The first units of each group: which ones they are does not matter for the time."""
    return {group: np.arange(count, dtype=np.int64) for group, count in counts.items()}


@dataclass(eq=False)
class Exporter:
    """Exports `module`, which never changes. `shapes` are values of `--shape`."""

    module: torch.nn.Module
    dependencies: Dependencies
    shapes: Sequence[str]
    cut: Cut
    #: Why each network is cut and exported by itself, which takes seconds; empty if that is not needed.
    slow_because: str = field(default="", init=False)

    def model(self, counts: Counts) -> onnx.ModelProto:
        """The file of the network cut to `counts`; groups without a count are whole."""
        template = self._template
        if template is None:
            return with_made_up_weights(self.exported(counts))
        return template.at(counts)

    def layer_of(self, kernel: str) -> str:
        """The layer of the module to which a kernel belongs: by the names of weights. Its own name if none is known."""
        layers, name = self._layers, kernel
        for _ in range(_MOST_STEPS):
            layer, before = layers.get(name, ("", ""))
            if layer or not before:
                return layer or kernel
            name = before
        return kernel

    @cached_property
    def _layers(self) -> Mapping[str, tuple[str, str]]:
        """Name or output of a node -> the layer of its weights, if it has any, and its first input."""
        found: dict[str, tuple[str, str]] = {}
        layers = {name.rpartition(".")[0] for name in self.module.state_dict() if name.endswith(".weight")}
        for node in self.model({}).graph.node:
            read = (name_before(name).rpartition(".")[0] for name in node.input)
            layer = next((name for name in read if name in layers), "")
            about = layer, node.input[0] if node.input else ""
            found |= dict.fromkeys((node.name, *node.output), about)
        return found

    def exported(self, counts: Counts) -> onnx.ModelProto:
        """The file that torch writes of the cut module."""
        import onnx

        module = copy.deepcopy(self.module)
        whole = {group.name: group.n_units for group in self.dependencies.groups}
        kept = {name: count for name, count in counts.items() if count < whole[name]}
        self.cut(module, self.dependencies, first_units(kept))  # also if all are kept: the module can change its form
        with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
            return separated(onnx.load(export_module(module, Path(folder) / "model.onnx", self.shapes)))

    @cached_property
    def _template(self) -> Template | None:
        draws = distinct_counts(self.dependencies.groups)
        if not draws:
            self.slow_because = "groups of so few units cannot be told apart"
            return None
        examples = [Example(counts, self.exported(counts)) for counts in draws]
        try:
            return Template.learned(self.exported({}), self.dependencies, examples)
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
