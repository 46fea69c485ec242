"""What is asked of a device: a model of every op of a search space, and the first line of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.base.progress import Reporter
from ofa_profiler.export import Model, export_ops
from ofa_profiler.measuring.trials import trials_of
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.extension import LIKE
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.records import Run
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.known_ranges import source_of_ranges
from ofa_profiler.tables.transfer import Base


@dataclass(frozen=True)
class Request:
    """The models of a space's distinct ops, in the order of the space, and what a journal or a kit says about them."""

    models: tuple[Model, ...]
    run: Run


@dataclass(frozen=True)
class Part:
    """The ops of a space that are measured, if the others are inferred from a base."""

    ops: tuple[Op, ...]
    base: Base


def request(
    space: SearchSpace,
    settings: Settings,
    *,
    part: Part | None = None,
    more_ops: Sequence[Op] = (),
    release: str | None = None,
    try_forms: bool = True,
    joint_forms: bool = False,
    with_encodings: bool = False,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> Request:
    """Export the ops of `space` at its resolutions, for a release of the runtime, as far as the cache lacks them.

    `part`: only these ops. `more_ops`: these, too.
    With `try_forms`, the device tries the forms of the ops first. Otherwise all are plain. With `joint_forms`, it
    chooses all forms or none. `with_encodings` adds each model in all encodings of int8, for a kit.
    """
    ops = (*(space.unique_ops() if part is None else part.ops), *more_ops)
    models = export_ops(
        ops,
        settings.target,
        release=release,
        with_variants=try_forms,
        with_encodings=with_encodings,
        cache_dir=cache_dir,
        progress=progress,
    )
    about: dict[str, Any] = {"spaces": [space.name], "resolutions": list(space.resolutions)}
    if settings.target.precision == "int8":
        about["ranges"] = source_of_ranges(ops)
    if part is not None and len(part.ops) < len(part.base.ops):
        about[LIKE] = part.base.to_json()
    trials = trials_of(ops, settings.target, joint=joint_forms) if try_forms else ()
    return Request(tuple(models), run_record(models, settings, about, ops, trials))
