"""`ofa-profile --model`: a user's network, as a whole and block by block."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.parallel import Check
from ofa_profiler.base.progress import Reporter
from ofa_profiler.base.units import format_count, format_duration_ms, parse_duration_ms
from ofa_profiler.cli.devices import measure_devices, opened_devices
from ofa_profiler.cli.kits import wheels_for, write_for_cells
from ofa_profiler.cli.lending import lending_of
from ofa_profiler.cli.options import device_options, refused_by_options
from ofa_profiler.cli.report_cells import report_outcomes
from ofa_profiler.cli.terminal import progress_bar, say
from ofa_profiler.devices import Device
from ofa_profiler.devices.comparison import describe_all
from ofa_profiler.errors import OfaError, UsageError
from ofa_profiler.measuring.cells import Cell, common_settings, read_list
from ofa_profiler.measuring.model import model_kit
from ofa_profiler.measuring.model_request import runs_on_this_cpu
from ofa_profiler.measuring.naming import distinct_names, subject_of
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.rewrite import check_out, rewrite
from ofa_profiler.models.inputs import read_inputs
from ofa_profiler.models.sources import open_sources
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.verification.cells import Comparison
from ofa_profiler.verification.model_cells import Source, model_cells, profile_model_cells

_Cells = Mapping[Cell, Source | None]


def profile_models(prog: str, arguments: argparse.Namespace) -> int:
    """Measure the network on all devices at the same time; a device that fails does not stop the others."""
    cells = _cells(arguments)
    if arguments.plan:
        return _show_plan(arguments, cells)
    if arguments.rewrite is not None:
        _check_rewrite(arguments, cells)
    if arguments.kit is not None:
        return _kits(prog, arguments, cells)
    options = device_options(arguments, next(cell.settings for cell in cells if not cell.refused))
    specs = arguments.device
    lending = lending_of(arguments)
    with opened_devices(specs, options, lending, arguments.dask) as (devices, failed):
        if arguments.out is None:
            return _only_rewrite(arguments, devices, failed, cells)
        measure = partial(_profile_one, arguments, _names(arguments, devices, cells), cells)
        with progress_bar() as reporter:
            outcomes = {**failed, **measure_devices(devices, measure, reporter, labels=len(specs) > 1)}
    return lending.exit_code(report_outcomes(prog, {spec: outcomes[spec] for spec in specs}, as_json=arguments.json))


def _cells(arguments: argparse.Namespace) -> _Cells:
    """What is measured, and of which file. Raises `UsageError` and `InputFileError`."""
    arrays = None if arguments.inputs is None else read_inputs(arguments.inputs)
    folder = (
        arguments.out if arguments.device and arguments.out and not arguments.plan else default_cache_dir() / "exported"
    )
    sources = [Source(*each) for each in open_sources(arguments.model, folder, arguments.shape, arrays)]
    settings = Settings(
        provider=arguments.provider,
        time_limit_s=parse_duration_ms(arguments.time_limit, "--time-limit") / 1e3,
    )
    runtimes, precisions = (
        () if text is None else read_list(text, option)
        for text, option in ((arguments.runtime, "--runtime"), (arguments.precision, "--precision"))
    )
    cells = model_cells(sources, settings, runtimes=runtimes, precisions=precisions, threads=arguments.threads)
    if len(cells) > 1 and arguments.kit is None:
        return {_checked(arguments, cell): source for cell, source in cells.items()}
    return cells


def _checked(arguments: argparse.Namespace, cell: Cell) -> Cell:
    """The cell, refused if the options of the device exclude it."""
    try:
        why = cell.refused or refused_by_options(arguments, cell.settings) or ""
    except OfaError as error:
        why = str(error)
    return replace(cell, refused=why)


def _subject(cells: _Cells) -> str:
    return subject_of(next(source.model.path.name for source in cells.values() if source is not None))


def _names(arguments: argparse.Namespace, devices: Mapping[str, Device], cells: _Cells) -> Mapping[str, str]:
    """The names of the tables, as far as they do not follow from the devices."""
    if arguments.name is not None:
        return dict(zip(arguments.device, arguments.name, strict=True))
    if len(devices) < 2:
        return {}
    described = {spec: found for spec, found in describe_all(devices).items() if not isinstance(found, OfaError)}
    settings = common_settings(cells) if len(cells) > 1 else next(iter(cells)).settings
    return distinct_names(described, [_subject(cells)], settings)


def _profile_one(
    arguments: argparse.Namespace,
    names: Mapping[str, str],
    cells: _Cells,
    spec: str,
    device: Device,
    progress: Reporter,
    check: Check,
) -> Profile | Comparison:
    found = profile_model_cells(
        device,
        cells,
        arguments.out,
        name=names.get(spec),
        fresh=arguments.fresh,
        what_if=arguments.what_if,
        progress=progress,
        check=check,
    )
    if arguments.rewrite is None or isinstance(found, Comparison):
        return found
    return replace(found, more={"rewrite": _rewrite(arguments, device, cells, progress)})


def _check_rewrite(arguments: argparse.Namespace, cells: _Cells) -> None:
    """Raise `UsageError` before anything is measured."""
    if len(cells) > 1 or arguments.kit is not None or len(arguments.device) > 1:
        raise UsageError("--rewrite needs one --device, one --model and one number of --threads")
    ((_, source),) = cells.items()
    assert source is not None, "the only model is for the only cell"
    check_out(source.model, arguments.rewrite)


def _rewrite(arguments: argparse.Namespace, device: Device, cells: _Cells, progress: Reporter) -> dict[str, Any]:
    """Write the network in faster forms, and say what was gained -> the same as a JSON document."""
    ((cell, source),) = cells.items()
    assert source is not None, "it is checked"
    found = rewrite(*source, arguments.rewrite, device, cell.settings, progress=progress)
    for line in found.lines():
        say(line)
    return found.to_json()


def _only_rewrite(
    arguments: argparse.Namespace, devices: Mapping[str, Device], failed: Mapping[str, OfaError], cells: _Cells
) -> int:
    """`--rewrite` without a folder for a table. It has one device, whose error is raised."""
    for error in failed.values():
        raise error
    with progress_bar() as reporter:
        document = _rewrite(arguments, next(iter(devices.values())), cells, reporter)
    if arguments.json:
        print(json.dumps({"rewrite": document}, indent=2))
    return 0


def _kits(prog: str, arguments: argparse.Namespace, cells: _Cells) -> int:
    """A kit, or a kit per cell in folders of their own."""

    def write(cell: Cell, folder: Path) -> dict[str, object]:
        source = cells[cell]
        assert source is not None, "it would be refused"
        wheels, _ = wheels_for(arguments, cell.settings.target.runtime)
        asked = model_kit(*source, cell.settings, folder, wheels=wheels)
        return {"models": len(asked.models), "model": source.model.path.name}

    return write_for_cells(prog, arguments, cells, write)


def _counted(blocks: int, distinct: int) -> str:
    return f"{blocks} blocks, {distinct} of them differ" if blocks > 1 else "one block, which is the network"


def _show_plan(arguments: argparse.Namespace, cells: _Cells) -> int:
    """Print the blocks that would be measured. The network runs once on this machine, to be cut."""
    documents: dict[str, dict[str, Any]] = {}
    for cell, source in cells.items():
        if source is None:
            documents[cell.label] = {"refused": cell.refused}
            continue
        device, *others = arguments.device or [""]
        is_here = not others and runs_on_this_cpu(device, cell.settings)
        blocks = source.model.blocks(source.feeds, this_machine=is_here)
        documents[cell.label] = {
            "model": source.model.path.name,
            "blocks": [
                {"op": block.name, "kind": block.kind, "macs": block.macs, "bytes": block.n_bytes} for block in blocks
            ],
            "distinct": len({block.signature for block in blocks}),
        }
        if not arguments.json:
            macs, n_bytes = (sum(values) for values in zip(*((b.macs, b.n_bytes) for b in blocks), strict=True))
            print(
                f"{source.model.path.name}: {_counted(len(blocks), documents[cell.label]['distinct'])}; "
                f"{format_count(macs)} MACs, {n_bytes / 1e6:.3g} MB moved by the blocks"
            )
    if arguments.json:
        (only, *others) = documents.values()
        print(json.dumps({"cells": documents} if others else only, indent=2))
    else:
        limit = format_duration_ms(1e3 * (next(iter(cells)).settings.time_limit_s or 0))
        say(f"nothing was measured; a measurement takes at most about {limit} for each table")
    return 0
