"""The commands as functions: `profile` a device in one or several precisions and `verify` a table.

from ofa_profiler import profile, verify
result = profile(device="local", space="cifar-mbv3", out="latency_tables/")
result.table, result.path
verify(result.table, device="local").mape
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ofa_profiler.base.plugins import load_plugins
from ofa_profiler.base.progress import Reporter
from ofa_profiler.base.releases import release_of
from ofa_profiler.devices import Device, DeviceOptions, open_device
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.cells import cells_of, read_list
from ofa_profiler.measuring.model import profile_model, settings_for
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.models.inputs import as_arrays
from ofa_profiler.models.sources import ModelSource, open_source, shape_texts
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.protocol.forms import FAST, FORMS_CHOICES
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import SearchSpace, as_space
from ofa_profiler.tables.mixed import AnyTable, MixedTable
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.cells import Comparison, profile_cells
from ofa_profiler.verification.like import profile_like
from ofa_profiler.verification.profile import profile as profile_device
from ofa_profiler.verification.result import DEFAULT_SUBNETS, DEFAULT_TIME_LIMIT_S, Verification
from ofa_profiler.verification.verify import store_validation
from ofa_profiler.verification.verify import verify as verify_table

_Path = str | os.PathLike[str]
DEFAULT_SPACE = "cifar-mbv3"


def profile(
    device: str | Device = "local",
    space: str | SearchSpace = DEFAULT_SPACE,
    out: _Path = "latency_tables",
    *,
    model: ModelSource | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    what_if: bool = False,
    resolutions: Sequence[int] | None = None,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
    batch: int = 1,
    provider: str | None = None,
    threads: int = 1,
    time_limit_s: float | None = 720.0,
    forms: str = "fast",
    calibrate: int | None = None,
    name: str | None = None,
    fresh: bool = False,
    runtime_version: str | None = None,
    like: LatencyTable | _Path | None = None,
    options: DeviceOptions | None = None,
    progress: Reporter | None = None,
) -> Profile:
    """Measure all ops of a space on a device and write a latency table to the folder `out`, like `ofa-profile`.

    After an interruption, the same call resumes. `forms` is `fast` or `plain`, as for `--forms`. `calibrate` is the
    number of networks that the table is calibrated by; 0 leaves out calibration and validation. `runtime_version` is
    the release of the runtime that is brought to a board. `like` is the table of a similar device, from which most ops
    are inferred, as with `--like`. `options` configure the connection to the device; an open device has both already.

    With `model`, that network is measured as a whole and block by block, in place of a space. It is an ONNX or TFLite
    file, the bytes of one, a torch module or `package.module:function`. `shapes` are those of inputs with open
    dimensions (for a torch module, of all inputs), `inputs` real values; both by the names of the inputs. Runtime and
    precision are those of the file, and arguments that only a space has are refused. `what_if` also measures what
    changes of the network would save.

    Raises `DeviceError` if the device or all ops fail, and `UsageError` for invalid arguments
    or if `out` contains another measurement with this name.
    """
    load_plugins()
    _check_forms(forms)
    settings = Settings(
        Target(runtime, precision, batch), provider=provider, threads=threads, time_limit_s=time_limit_s
    )
    how: dict[str, Any] = {"name": name, "fresh": fresh, "progress": progress}
    if model is not None:
        _check_of_model(space=space, resolutions=resolutions, batch=batch, calibrate=calibrate, like=like)
        user_model, feeds = open_source(model, Path(out), shape_texts(shapes or {}), as_arrays(inputs))
        with _opened(device, options, runtime_version) as opened:
            return profile_model(
                opened, user_model, feeds, settings_for(user_model, settings), Path(out), what_if=what_if, **how
            )
    if shapes is not None or inputs is not None or what_if:
        raise UsageError("shapes, inputs and what_if are for a model: give model=")
    chosen = _at(space, resolutions)
    with _opened(device, options, runtime_version) as opened:
        measure = profile_device if like is None else partial(profile_like, table=_loaded(like))
        return measure(opened, chosen, settings, Path(out), try_forms=forms == FAST, networks=calibrate, **how)


def profile_matrix(
    device: str | Device = "local",
    space: str | SearchSpace = "cifar-mbv3",
    out: _Path = "latency_tables",
    *,
    precisions: Sequence[str] = ("fp32", "int8"),
    runtimes: Sequence[str] | None = None,
    resolutions: Sequence[int] | None = None,
    runtime: str = "onnxruntime",
    batch: int = 1,
    provider: str | None = None,
    threads: int | Sequence[int] = 1,
    time_limit_s: float | None = 720.0,
    forms: str = "fast",
    calibrate: int | None = None,
    name: str | None = None,
    fresh: bool = False,
    runtime_version: str | None = None,
    options: DeviceOptions | None = None,
    progress: Reporter | None = None,
) -> Comparison:
    """`profile` with several settings, measured in turns, like `ofa-profile --precision fp32,int8 --threads 1,2`.

    There is a table for each combination of `runtimes` (default: `runtime` alone), `precisions` and `threads`.
    `result.profiles["int8"].table` is one of them; its key has the values of all lists with several, as in
    `litert-int8-t2`. `result.matrix` is their comparison, which is also in `NAME-matrix.csv`. `time_limit_s` is for
    each table. What the device cannot do is an error in `result.outcomes` and a `reason` in the matrix. Raises
    `DeviceError` if the device cannot be reached, and `UsageError` for invalid arguments.
    """
    load_plugins()
    _check_forms(forms)
    counts = [threads] if isinstance(threads, int) else list(threads)
    read_list(",".join(map(str, counts)), "threads")
    named = [runtime] if runtimes is None else read_list(",".join(runtimes), "runtimes")
    if len(named) > 1 and runtime_version is not None:
        raise UsageError("runtime_version is the release of one runtime: give one runtime, or omit it")
    settings = Settings(Target(batch=batch), provider=provider, time_limit_s=time_limit_s)
    cells = cells_of(settings, read_list(",".join(precisions), "precisions"), runtimes=named, threads=counts)
    with _opened(device, options, runtime_version) as opened:
        return profile_cells(
            opened,
            _at(space, resolutions),
            cells,
            Path(out),
            name=name,
            fresh=fresh,
            try_forms=forms == FAST,
            networks=calibrate,
            progress=progress,
        )


def verify(
    table: AnyTable | _Path | Sequence[LatencyTable | _Path],
    device: str | Device = "local",
    *,
    subnets: int = DEFAULT_SUBNETS,
    seed: int = 0,
    space: str | SearchSpace | None = None,
    architectures: Sequence[Architecture] | None = None,
    time_limit_s: float | None = DEFAULT_TIME_LIMIT_S,
    options: DeviceOptions | None = None,
    progress: Reporter | None = None,
) -> Verification:
    """Measure whole networks and compare them with the predictions of a table, like `ofa-verify`.

    Two tables, of fp32 and int8, are those of networks in mixed precision. If the table is a file and belongs to this
    device, the result is stored in its JSON, except for given `architectures`. Raises `UsageError` if the table lacks
    its measurement settings or two tables do not belong together, and `DeviceError` if the device fails.
    """
    load_plugins()
    loaded = _loaded_any(table)
    chosen = None if space is None else as_space(space)
    options = replace(options or DeviceOptions(), like_release=release_of(loaded.metadata.get("runtime_version")))
    with _opened(device, options) as opened:
        result = verify_table(
            loaded,
            opened,
            subnets=subnets,
            seed=seed,
            space=chosen,
            architectures=architectures,
            time_limit_s=time_limit_s,
            progress=progress,
        )
    if architectures is None:
        store_validation(loaded, result)
    return result


def _loaded(table: LatencyTable | _Path) -> LatencyTable:
    return table if isinstance(table, LatencyTable) else LatencyTable.load(table)


def _loaded_any(table: AnyTable | _Path | Sequence[LatencyTable | _Path]) -> AnyTable:
    if isinstance(table, MixedTable):
        return table
    if isinstance(table, LatencyTable | str | os.PathLike):
        return _loaded(table)
    return MixedTable.of([_loaded(each) for each in table])


def _check_of_model(**arguments: Any) -> None:
    """Raise `UsageError` for arguments that only a search space has."""
    usual = {"space": DEFAULT_SPACE, "batch": 1}
    for name, value in arguments.items():
        if value != usual.get(name):
            raise UsageError(f"{name} is for search spaces: omit it with model=")


def _check_forms(forms: str) -> None:
    if forms not in FORMS_CHOICES:
        raise UsageError(f"forms {forms!r:.40}; choose from {', '.join(FORMS_CHOICES)}")


def _at(space: str | SearchSpace, resolutions: Sequence[int] | None) -> SearchSpace:
    chosen = as_space(space)
    return chosen if resolutions is None else chosen.with_resolutions(resolutions)


def _opened(device: str | Device, options: DeviceOptions | None, release: str | None = None) -> Device:
    if release is not None:
        if isinstance(device, Device):
            raise UsageError("runtime_version is for a device that is given by its name: this one has its options")
        options = replace(options or DeviceOptions(), runtime_version=release)
    return open_device(device, options or DeviceOptions()) if isinstance(device, str) else device
