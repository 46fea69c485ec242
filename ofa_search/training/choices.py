"""What was chosen to be kept: asked for by the leading process, the same in all, and the same after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ofa_profiler.base.files import write_text
from ofa_profiler.errors import UsageError
from ofa_search.evaluation.world import World
from ofa_search.pruning.groups import Dependencies, Kept
from ofa_search.pruning.optimizers import Chooser


class Choices:
    """A chooser that asks `choose` in the leading process alone, which may measure on a device for the answer.

    With `remember`, answers are in a file: a training that is resumed before one of them gets the same answer again,
    even if a device would now measure something else.
    """

    def __init__(self, choose: Chooser, dependencies: Dependencies, world: World) -> None:
        self._choose, self._world = choose, world
        self._counts = {group.name: group.n_units for group in dependencies.groups}
        self._path: Path | None = None
        self._training: Mapping[str, Any] = {}
        self._answers: list[dict[str, list[int]]] = []
        #: How many were made.
        self.made = 0

    def remember(self, path: Path, training: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Answer from this file, if it is of this `training` (as JSON) and not `fresh`, and write all answers there."""
        self._path, self._training = path, json.loads(json.dumps(training))
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            known = found["training"] == self._training
            self._answers = found["choices"] if known and not fresh else []
        except (OSError, ValueError, KeyError, TypeError):
            self._answers = []  # there is none, or it was damaged: choose again

    def __call__(self, saliency: Mapping[str, NDArray[np.float64]], share: float) -> Kept:
        """As a `Chooser`."""
        # The last byte says whether the leading process has an answer.
        bits = torch.zeros(sum(self._counts.values()) + 1, dtype=torch.uint8)
        try:
            if self._world.leads:
                bits[:-1] = self._as_bits(self._answer(saliency, share))
                bits[-1] = 1
        finally:
            on_device = bits.to(self._world.device)
            self._world.broadcast([on_device])
        bits = on_device.cpu()
        if not bits[-1]:
            raise UsageError("the leading process could not choose what is kept; it says why")
        self.made += 1
        parts = torch.split(bits[:-1], list(self._counts.values()))
        return {name: np.flatnonzero(part.numpy()) for name, part in zip(self._counts, parts, strict=True)}

    def _answer(self, saliency: Mapping[str, NDArray[np.float64]], share: float) -> Mapping[str, Any]:
        if self.made < len(self._answers):
            return self._answers[self.made]
        kept = self._choose(saliency, share)
        self._answers.append({name: [int(unit) for unit in units] for name, units in kept.items()})
        if self._path is not None:
            document = {"training": self._training, "choices": self._answers}
            write_text(self._path, json.dumps(document, allow_nan=False) + "\n")
        return kept

    def _as_bits(self, kept: Mapping[str, Any]) -> torch.Tensor:
        parts = []
        for name, count in self._counts.items():
            part = np.zeros(count, dtype=np.uint8)
            part[np.asarray(kept.get(name, np.arange(count)), dtype=np.int64)] = 1
            parts.append(part)
        return torch.from_numpy(np.concatenate(parts))
