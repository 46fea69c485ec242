"""Where the weights of a found network come from: a trained supernet, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa_profiler.architecture import Architecture
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.weights import Weights, random_weights


@dataclass(frozen=True)
class WeightSource:
    """`of(architecture)` gives the weights of a subnet; `status` is `trained` or `untrained`."""

    status: str
    of: Callable[[Architecture], Weights]


def weight_source(space: SearchSpace, supernet: Path | None, seed: int) -> WeightSource:
    """Subnets of the supernet in that file; without one, made-up weights that depend on `seed` alone.

    Raises `InputFileError` for a file that holds no supernet of `space`, `UsageError` where supernets
    cannot be read.
    """
    if supernet is None:
        return WeightSource(
            "untrained", lambda architecture: random_weights(space.layout(architecture), np.random.default_rng(seed))
        )
    try:
        from ofa_search.supernet import Supernet  # torch is slow to import
    except ImportError as error:
        raise UsageError(f"--supernet needs torch and safetensors, which cannot be imported: {error}") from None
    return WeightSource("trained", Supernet.from_checkpoint(supernet, space).weights)
