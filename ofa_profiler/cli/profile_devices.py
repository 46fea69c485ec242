"""What `ofa-profile --device` does: all devices at the same time, one table each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from ofa_profiler.base.parallel import run_all
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.report import report_outcomes
from ofa_profiler.cli.terminal import labelled, progress_bar, say
from ofa_profiler.devices import Device, open_device
from ofa_profiler.devices.comparison import describe_all, prepare_runtimes
from ofa_profiler.errors import OfaError
from ofa_profiler.export import export_ops
from ofa_profiler.measuring.naming import distinct_names
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import FAST
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.like import profile_like
from ofa_profiler.verification.profile import profile


def profile_devices(prog: str, arguments: argparse.Namespace, space: SearchSpace, settings: Settings) -> int:
    """Measure all devices at the same time, one table each; a device that fails does not stop the others."""
    specs, options = arguments.device, device_options(arguments, settings)
    like = None if arguments.like is None else LatencyTable.load(arguments.like)
    outcomes: dict[str, Profile | OfaError] = {}
    devices: dict[str, Device] = {}
    with ExitStack() as opened:
        for spec in specs:
            try:
                devices[spec] = opened.enter_context(open_device(spec, options))
            except OfaError as error:  # noqa: PERF203
                outcomes[spec] = error
        with progress_bar() as reporter:
            names = dict(zip(specs, arguments.name or [None] * len(specs), strict=True))
            if len(specs) > 1:
                ops = space.unique_ops() if like is None else ()
                try_forms = arguments.forms == FAST
                outcomes |= _prepare_comparison(devices, names, space, ops, settings, reporter, try_forms=try_forms)
            jobs = {
                spec: partial(_profile_one, arguments, space, settings, device, names[spec], like, reporter)
                for spec, device in devices.items()
                if spec not in outcomes
            }
            outcomes.update(run_all(jobs))
    return report_outcomes(prog, {spec: outcomes[spec] for spec in specs}, as_json=arguments.json)


def _prepare_comparison(
    devices: dict[str, Device],
    names: dict[str, str | None],
    space: SearchSpace,
    ops: Sequence[Op],
    settings: Settings,
    reporter: Reporter,
    *,
    try_forms: bool,
) -> dict[str, OfaError]:
    """Do once what several devices share: one release of the runtime, models of `ops`, and `names` that differ.

    Return the errors of the devices that failed.
    """
    versions = prepare_runtimes(devices, settings.target.runtime, say)
    described = describe_all({spec: device for spec, device in devices.items() if names[spec] is None})
    failed = {spec: found for spec, found in {**versions, **described}.items() if isinstance(found, OfaError)}
    known = {spec: found for spec, found in described.items() if not isinstance(found, OfaError)}
    names.update(distinct_names(known, [space.name], settings))
    releases = {found for spec, found in versions.items() if not isinstance(found, OfaError) and spec not in failed}
    for release in releases:
        export_ops(ops, settings.target, release=release, with_variants=try_forms, progress=reporter)
    return failed


def _profile_one(
    arguments: argparse.Namespace,
    space: SearchSpace,
    settings: Settings,
    device: Device,
    name: str | None,
    like: LatencyTable | None,
    reporter: Reporter,
    check: Callable[[], None],
) -> Profile:
    show = labelled(reporter, f"{device.spec}: ") if len(arguments.device) > 1 else reporter

    def progress(state: Progress) -> None:
        check()
        show(state)

    how = profile if like is None else partial(profile_like, table=like)
    return how(
        device,
        space,
        settings,
        arguments.out,
        name=name,
        fresh=arguments.fresh,
        try_forms=arguments.forms == FAST,
        networks=arguments.calibrate,
        progress=progress,
    )
