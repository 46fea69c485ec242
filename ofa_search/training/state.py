"""What resumes a training after any interruption: weights, momenta, the teacher, and the step number.

Everything random is drawn from the seed and the step number, so there is no generator to save.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_file
from torch import Tensor

from ofa_profiler.base.files import replacing
from ofa_profiler.errors import InputFileError

_METADATA_KEY = "training"


@dataclass(frozen=True)
class TrainingState:
    """`options` describe what is trained and how. Only a run with the same options may resume from this state."""

    step: int
    options: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        memory: set[int] = set()
        for name, tensor in self.tensors.items():
            saved = tensor.detach().cpu().contiguous()
            # The format has no shared memory, but a network may use one parameter under several names.
            tensors[name] = saved.clone() if saved.data_ptr() in memory else saved
            memory.add(saved.data_ptr())
        text = json.dumps({"step": self.step, "options": self.options})
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={_METADATA_KEY: text})

    @staticmethod
    def load(path: Path) -> TrainingState:
        """Raises `InputFileError`."""
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                data = json.loads((file.metadata() or {})[_METADATA_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return TrainingState(int(data["step"]), data["options"], tensors)
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise InputFileError(path, "not a saved training, or damaged: start over with --fresh") from error


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under names that begin with `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
