"""Whole networks: what a latency table predicts against what the device measures.

A table is a sum of ops that were measured alone; how far that sum is from a network is a property of
the device and the runtime, so it is measured and kept with the table. `docs/accuracy.md` tells what
the difference is made of.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_profiler.base.files import write_text
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.export import Model, export_network, network_model
from ofa_profiler.measuring.session import Progress, measure_into
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.protocol.journal import Journal, read_journal, request_difference
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.replay import Log, Record
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.csv_file import metadata_text, read_metadata
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.result import DEFAULT_SUBNETS, Subnet, Verification

__all__ = ["Observer", "Subnet", "Verification", "settings_of", "store_validation", "verify"]

#: Fewer networks than the first number say nothing about a table.
MIN_SUBNETS, MAX_SUBNETS = 3, 10_000

#: Told about the phases `export` and `measure`.
Observer = Callable[[str, Progress], None]

#: How networks are sampled; everything else is as for the ops of the table. At least four rounds, so
#: that even and odd ones are both more than one.
_SAMPLING: dict[str, Any] = {"min_rounds": 4, "max_rounds": 8, "visit_s": 0.2}
#: Changes of the device during the measurement that are worth a warning.
_WARMER_C = 10.0
_CLOCK_CHANGE = 0.10
#: Noise that is worth a warning, however large the error is.
_NOISY = 0.05


def verify(
    table: LatencyTable,
    device: Device,
    *,
    subnets: int = DEFAULT_SUBNETS,
    seed: int = 0,
    space: SearchSpace | None = None,
    keep_models: Path | None = None,
    journal: Path | None = None,
    fresh: bool = False,
    progress: Observer | None = None,
) -> Verification:
    """Predict and measure `subnets` random networks of `space` (default: the only one of the table).

    They are run as the ops of the table were: runtime, provider, precision, threads and batch are the
    table's. Their weights are made up. The models are kept in the folder `keep_models`, if given. What
    was measured into the file `journal` before an interruption is used, unless `fresh`.

    Raises `UsageError` for a table that does not say how it was measured or does not cover the space,
    `DeviceError` when the device fails or fewer than `MIN_SUBNETS` networks could be measured.
    """
    if not MIN_SUBNETS <= subnets <= MAX_SUBNETS:
        raise UsageError(f"{subnets} networks: a verification takes {MIN_SUBNETS} to {MAX_SUBNETS}")
    settings = settings_of(table)
    space = _covered(table, space)
    architectures, predicted = draw_spread(space, table.cost(space), subnets, np.random.default_rng(seed))
    with ExitStack() as stack:
        folder = keep_models or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ofa-verify-")))
        models = _export(space, architectures, folder, settings, progress)
        run = run_record(models, settings, {"spaces": [space.name], "resolutions": list(space.resolutions)})
        fresh = fresh or (journal is not None and _is_stale(journal, run))
        opened = stack.enter_context(Journal(journal, run, fresh=fresh))
        measure_into(opened, device, models, settings, None if progress is None else lambda p: progress("measure", p))
        log = opened.log
    found = log.measurements()
    measured = tuple(
        _subnet(architecture, float(ms), found.get(model.key), model.path if keep_models else None)
        for architecture, ms, model in zip(architectures, predicted, models, strict=True)
    )
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    result = Verification(measured, log.devices[0], seed, date)
    if len(result.usable) < MIN_SUBNETS:
        failed = next(subnet for subnet in measured if subnet.error is not None)
        raise DeviceError(
            f"{len(measured) - len(result.usable)} of {subnets} networks failed, too many to say anything; "
            f"the first with: {failed.error}"
        )
    return replace(result, warnings=tuple(_doubts(table, log, result)))


def store_validation(table: LatencyTable, verification: Verification) -> bool:
    """Write the figures into the `validation` of the JSON beside `table`, whole or not at all.

    False, and nothing written, for a verification on another device than the table's.
    """
    if table.path is None or other_device(table, verification.device):
        return False
    path = table.path.with_suffix(".json")
    write_text(path, metadata_text({**read_metadata(path), "validation": verification.validation()}))
    return True


# --- as the table was measured -----------------------------------------------------------------------


def settings_of(table: LatencyTable) -> Settings:
    """The settings that run a network as the ops of `table` were run. Raises `InputFileError` if it tells none."""
    path = table.path or Path(table.name)
    if path.is_dir() or not table.metadata:
        what = "is a published table: it" if path.is_dir() else f"has no {path.stem}.json beside it, so it"
        raise InputFileError(path, f"{what} does not say how it was measured; verify a table made by ofa-profile")
    values = {name: table.metadata.get(name) for name in ("runtime", "precision", "provider", "threads", "batch")}
    try:
        if 0 in values.values():
            raise UsageError("settings: threads and batch must be above zero")
        return Settings.from_json({**Settings().to_json(), **_SAMPLING, **values})
    except UsageError as error:
        raise InputFileError(path.with_suffix(".json"), f"does not say how to measure: {error}") from None


def _covered(table: LatencyTable, space: SearchSpace | None) -> SearchSpace:
    """`space`, or the only one of the table, at the resolutions that the table covers."""
    if space is None:
        if len(table.spaces) != 1:
            held = ", ".join(table.spaces) or "none"
            raise UsageError(f"table {table.name} holds the spaces {held}: say which one to verify")
        space = get_space(table.spaces[0])
    resolutions = table.resolutions(space)
    if not resolutions:
        table.cost(space)  # says what is missing
    return space.with_resolutions(resolutions)


# --- the networks ------------------------------------------------------------------------------------


def _export(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    folder: Path,
    settings: Settings,
    progress: Observer | None,
) -> list[Model]:
    """A model per network in `folder`. Equal architectures give equal files, so a journal can be continued."""
    suffix = get_runtime(settings.target.runtime).suffix
    models = []
    for architecture in architectures:
        text = json.dumps(architecture.to_json(), sort_keys=True)
        key = f"{space.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        path = export_network(
            space,
            architecture,
            repeating_weights(space.layout(architecture)),
            folder / f"{key}{suffix}",
            settings.target,
            metadata={"space": space.name, "architecture": text, "weights": "untrained"},
        )
        models.append(network_model(space, architecture, key, path, settings.target))
        if progress is not None:
            progress("export", Progress(len(models), len(architectures), 0, 0, None))
    return models


def _is_stale(journal: Path, run: Record) -> bool:
    """Whether the file `journal` was begun for another verification, or is none."""
    try:
        return bool(request_difference(read_journal(journal)[0].run, run))
    except InputFileError:
        return True


def _subnet(architecture: Architecture, predicted_ms: float, seen: Measurement | None, model: Path | None) -> Subnet:
    if seen is None or not seen.ok:
        error = seen.error if seen is not None else "it was not measured"
        return Subnet(architecture, predicted_ms, None, model=model, error=error or "unknown")
    even_ms, odd_ms = None, None
    if len(seen.rounds_ms) > 1:
        even_ms, odd_ms = seen.median_of_rounds_ms(0, 2), seen.median_of_rounds_ms(1, 2)
    return Subnet(architecture, predicted_ms, seen.median_ms, even_ms, odd_ms, model)


# --- doubts ------------------------------------------------------------------------------------------


def other_device(table: LatencyTable, device: Mapping[str, Any]) -> str:
    """In words, how `device` (its record) is another one than that of `table`; empty if it seems the same."""
    profiled = _object(table.metadata.get("device"))
    for name in ("model", "soc", "machine"):
        there, here = profiled.get(name), device.get(name)
        if there is not None and there != here:
            return f"table {table.name} was measured on another device: its {name} is {there!r}, here {here!r}"
    return ""


def _doubts(table: LatencyTable, log: Log, result: Verification) -> Iterator[str]:
    """Why the figures may not say what they seem to say."""
    device, end = log.devices[0], log.end or {}
    if other := other_device(table, device):
        yield other
    there, here = table.metadata.get("runtime_version"), device["runtime"].get("version")
    if there is not None and there != here:
        yield f"table {table.name} was measured with {table.metadata['runtime']} {there}, here it is {here}"
    yield from _changes(_object(device.get("before")), _object(end.get("after")))
    if result.noise > min(result.mape, _NOISY):
        yield (
            f"two measurements of the same networks differ by {result.noise:.1%}, while the error is "
            f"{result.mape:.1%}: the device is busy or unsteady; close other programs and verify again"
        )
    failed = [subnet for subnet in result.subnets if subnet.error is not None]
    if failed:
        yield f"{len(failed)} of {len(result.subnets)} networks failed; the first with: {failed[0].error}"
    if end.get("cut_short"):
        yield "the time limit came before every median was known well enough"


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """How the device was different afterwards; what could not be read is not compared."""
    cold, warm = _number(before.get("temperature_c")), _number(after.get("temperature_c"))
    if abs(warm - cold) >= _WARMER_C:
        yield f"the temperature went from {cold:.0f} to {warm:.0f} degrees Celsius during the measurement"
    clocks = _object(after.get("mhz"))
    for core, value in _object(before.get("mhz")).items():
        was, now = _number(value), _number(clocks.get(core))
        if abs(now - was) > _CLOCK_CHANGE * was:
            yield f"the clock of core {core} went from {was:.0f} to {now:.0f} MHz during the measurement"


def _object(value: Any) -> Mapping[str, Any]:
    """What a device or a file says, if it is a JSON object."""
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float:
    """NaN, which compares with nothing, for what could not be read."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
