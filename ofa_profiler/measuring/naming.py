"""The name of a table: a default from its contents, and a check of one that the user gives."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.records import Device, Run
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.runtimes import runtimes


def slug(text: str) -> str:
    """A safe and readable file name: `'Intel(R) Core(TM) i5'` -> `'intel-core-i5'`."""
    plain = unicodedata.normalize("NFKD", re.sub(r"\((r|tm|c)\)", " ", text, flags=re.IGNORECASE))
    return re.sub(r"[^a-z0-9.]+", "-", plain.encode("ascii", "ignore").decode().lower()).strip("-.")[:60].strip("-.")


def subjects_of(run: Run) -> tuple[str, ...]:
    """What a journal is about, for the name of its table: its search spaces, or the file of the user's model."""
    model = run.about.get("model")
    file = model.get("file") if isinstance(model, Mapping) else None
    return (subject_of(file),) if isinstance(file, str) else run.spaces


def subject_of(file: str) -> str:
    """What the name of a table calls a model file."""
    return slug(Path(file).stem) or "model"


def default_name(device: Device, spaces: Sequence[str], settings: Settings) -> str:
    """Device and spaces, then the settings that are not the default: `raspberry-pi-5-cifar-mbv3-t4`."""
    default = Settings()
    parts = [device.model or device.soc or "device", *spaces]
    parts += [
        value
        for value in (settings.target.runtime, settings.target.precision)
        if value not in (default.target.runtime, default.target.precision)
    ]
    runtime = runtimes().get(settings.target.runtime)
    if settings.provider not in (None, runtime.default_provider if runtime else None):
        parts.append(str(settings.provider).removesuffix("ExecutionProvider"))
    parts += [f"t{settings.threads}"] * (settings.threads != default.threads)
    parts += [f"b{settings.target.batch}"] * (settings.target.batch != default.target.batch)
    return "-".join(filter(None, map(slug, parts))) or "device"


def table_name(name: str | None, device: Device, spaces: Sequence[str], settings: Settings) -> str:
    """The name that the user gives, or else the default one. Raises `UsageError`."""
    return check_name(name) if name is not None else default_name(device, spaces, settings)


def distinct_names(devices: Mapping[str, Device], spaces: Sequence[str], settings: Settings) -> dict[str, str]:
    """The default names of the tables of several devices. Devices of one model get their addresses in the name, too.

    The keys are the names of the devices, like `ssh:pi@board`.
    """
    names = {spec: default_name(device, spaces, settings) for spec, device in devices.items()}
    often = Counter(names.values())
    return {
        spec: f"{name}-{slug(spec.partition(':')[2] or spec)}" if often[name] > 1 else name
        for spec, name in names.items()
    }


def check_name(name: str) -> str:
    """`name`, if `NAME.csv` is a file directly in `--out`. Raises `UsageError`."""
    if not re.fullmatch(r"[\w][\w.+ -]{0,199}", name):
        raise UsageError(f"--name {name!r} is not a plain file name (letters, digits, . _ - + and spaces inside)")
    return name
