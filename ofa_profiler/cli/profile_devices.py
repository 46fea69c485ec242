"""What `ofa-profile --device` does: all devices at the same time, one table each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ofa_profiler.base.parallel import Check
from ofa_profiler.base.progress import Reporter
from ofa_profiler.cli.devices import measure_devices, opened_devices
from ofa_profiler.cli.lending import lending_of
from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.report_cells import report_outcomes
from ofa_profiler.cli.terminal import progress_bar, say
from ofa_profiler.devices import Device
from ofa_profiler.devices.comparison import describe_all, prepare_runtimes
from ofa_profiler.errors import OfaError
from ofa_profiler.export import export_ops, for_device
from ofa_profiler.measuring.cells import Cell, common_settings
from ofa_profiler.measuring.naming import distinct_names
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import FAST
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.cells import Comparison, profile_cells
from ofa_profiler.verification.like import profile_like
from ofa_profiler.verification.profile import profile


def profile_devices(prog: str, arguments: argparse.Namespace, space: SearchSpace, cells: Sequence[Cell]) -> int:
    """Measure all devices at the same time, one table per cell; a device that fails does not stop the others."""
    specs, options = arguments.device, device_options(arguments, _able(cells)[0].settings)
    like = None if arguments.like is None else LatencyTable.load(arguments.like)
    lending = lending_of(arguments)
    with opened_devices(specs, options, lending, arguments.dask) as (devices, failed), progress_bar() as reporter:
        names = dict(zip(specs, arguments.name or [None] * len(specs), strict=True))
        if len(specs) > 1:
            ops = space.unique_ops() if like is None else ()
            try_forms = arguments.forms == FAST
            failed |= _prepare_comparison(devices, names, space, ops, cells, reporter, try_forms=try_forms)
        ready = {spec: device for spec, device in devices.items() if spec not in failed}
        measure = partial(_profile_one, arguments, space, cells, names, like)
        outcomes = {**failed, **measure_devices(ready, measure, reporter, labels=len(specs) > 1)}
    return lending.exit_code(report_outcomes(prog, {spec: outcomes[spec] for spec in specs}, as_json=arguments.json))


def _prepare_comparison(
    devices: dict[str, Device],
    names: dict[str, str | None],
    space: SearchSpace,
    ops: Sequence[Op],
    cells: Sequence[Cell],
    reporter: Reporter,
    *,
    try_forms: bool,
) -> dict[str, OfaError]:
    """Do once what several devices share: one release of the runtime, models of `ops`, and `names` that differ.

    Return the errors of the devices that failed.
    """
    able = _able(cells)
    runtimes = dict.fromkeys(cell.settings.target.runtime for cell in able)
    versions = {runtime: prepare_runtimes(devices, runtime, say) for runtime in runtimes}
    described = describe_all(devices)
    failed = {spec: found for spec, found in described.items() if isinstance(found, OfaError)}
    if len(cells) == 1:  # of several runtimes, others may work
        of_runtime = versions[cells[0].settings.target.runtime]
        failed = {spec: found for spec, found in of_runtime.items() if isinstance(found, OfaError)} | failed
    known = {spec: found for spec, found in described.items() if not isinstance(found, OfaError)}
    unnamed = {spec: found for spec, found in known.items() if names[spec] is None}
    settings = common_settings(cells) if len(cells) > 1 else cells[0].settings
    names.update(distinct_names(unnamed, [space.name], settings))
    wanted = {  # processors differ in their encoding of int8
        (release, for_device(cell.settings.target, found))
        for spec, found in known.items()
        for cell in able
        if not isinstance(release := versions[cell.settings.target.runtime][spec], OfaError)
    }
    for release, target in sorted(wanted, key=repr):
        export_ops(ops, target, release=release, with_variants=try_forms, progress=reporter)
    return failed


def _able(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that are not refused. There is one at least."""
    return [cell for cell in cells if not cell.refused]


def _profile_one(
    arguments: argparse.Namespace,
    space: SearchSpace,
    cells: Sequence[Cell],
    names: Mapping[str, str | None],
    like: LatencyTable | None,
    spec: str,
    device: Device,
    progress: Reporter,
    check: Check,
) -> Profile | Comparison:
    how: dict[str, Any] = {
        "fresh": arguments.fresh,
        "try_forms": arguments.forms == FAST,
        "networks": arguments.calibrate,
        "progress": progress,
        "name": names[spec],
    }
    if len(cells) > 1:
        return profile_cells(device, space, cells, arguments.out, like=like, check=check, **how)
    one = profile if like is None else partial(profile_like, table=like)
    return one(device, space, cells[0].settings, arguments.out, **how)
