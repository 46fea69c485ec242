"""`ofa-profile --model`: a user's network, as a whole and block by block."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.parallel import run_all
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.base.units import parse_duration_ms
from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.report_cells import report_outcomes
from ofa_profiler.cli.terminal import labelled, progress_bar, say
from ofa_profiler.devices import Device, open_device
from ofa_profiler.devices.comparison import describe_all
from ofa_profiler.errors import OfaError, UsageError
from ofa_profiler.measuring.model import model_kit, profile_model, settings_for
from ofa_profiler.measuring.naming import distinct_names, subject_of
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.models.base import Array, UserModel
from ofa_profiler.models.inputs import read_inputs
from ofa_profiler.models.sources import open_source
from ofa_profiler.protocol.settings import Settings

_Feeds = Mapping[str, Array]


def profile_models(prog: str, arguments: argparse.Namespace) -> int:
    """Measure the model on all devices at the same time; a device that fails does not stop the others."""
    arrays = None if arguments.inputs is None else read_inputs(arguments.inputs)
    folder = arguments.out if arguments.device and arguments.out else default_cache_dir() / "exported"
    model, feeds = open_source(arguments.model[0], folder, arguments.shape, arrays)
    settings = settings_for(model, _settings(arguments, model))
    if arguments.kit is not None:
        return _kit(arguments, model, feeds, settings)
    options = device_options(arguments, settings)
    outcomes: dict[str, Profile | OfaError] = {}
    devices: dict[str, Device] = {}
    with ExitStack() as opened:
        for spec in arguments.device:
            try:
                devices[spec] = opened.enter_context(open_device(spec, options))
            except OfaError as error:  # noqa: PERF203
                outcomes[spec] = error
        names = _names(arguments, devices, model, settings)
        with progress_bar() as reporter:
            outcomes |= run_all(
                {
                    spec: partial(_profile_one, arguments, device, names.get(spec), model, feeds, settings, reporter)
                    for spec, device in devices.items()
                }
            )
    return report_outcomes(prog, {spec: outcomes[spec] for spec in arguments.device}, as_json=arguments.json)


def _settings(arguments: argparse.Namespace, model: UserModel) -> Settings:
    """The settings, which must agree with what the file is. Raises `UsageError`."""
    for option, found in (("runtime", model.runtime), ("precision", model.precision)):
        wanted = getattr(arguments, option)
        if wanted not in (None, found):
            raise UsageError(
                f"--{option} {wanted}: {model.path.name} is a model for {found}; models are not converted, "
                f"so give one for {wanted}"
            )
    limit_s = parse_duration_ms(arguments.time_limit, "--time-limit") / 1e3
    return Settings(provider=arguments.provider, threads=arguments.threads, time_limit_s=limit_s)


def _names(
    arguments: argparse.Namespace, devices: Mapping[str, Device], model: UserModel, settings: Settings
) -> Mapping[str, str]:
    """The names of the tables, as far as they do not follow from the devices."""
    if arguments.name is not None:
        return dict(zip(arguments.device, arguments.name, strict=True))
    if len(devices) < 2:
        return {}
    described = {spec: found for spec, found in describe_all(devices).items() if not isinstance(found, OfaError)}
    return distinct_names(described, [subject_of(model.path.name)], settings)


def _profile_one(
    arguments: argparse.Namespace,
    device: Device,
    name: str | None,
    model: UserModel,
    feeds: _Feeds,
    settings: Settings,
    reporter: Reporter,
    check: Callable[[], None],
) -> Profile:
    show = labelled(reporter, f"{device.spec}: ") if len(arguments.device) > 1 else reporter

    def progress(state: Progress) -> None:
        check()
        show(state)

    return profile_model(
        device, model, feeds, settings, arguments.out, name=name, fresh=arguments.fresh, progress=progress
    )


def _kit(arguments: argparse.Namespace, model: UserModel, feeds: _Feeds, settings: Settings) -> int:
    from ofa_profiler.cli.kits import wheels_for

    wheels, _ = wheels_for(arguments, settings.target.runtime)
    asked = model_kit(model, feeds, settings, arguments.kit, wheels=wheels)
    say(f"{arguments.kit}: complete. Copy the folder to the board and run there: python3 agent.py --kit .")
    if arguments.json:
        document = {"kit": str(arguments.kit), "models": len(asked.models), "model": model.path.name}
        print(json.dumps(document, indent=2))
    return 0
