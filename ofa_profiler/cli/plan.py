"""`ofa-profile --plan`: what would be measured, as a summary on stdout, or as a JSON document with all ops."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.units import format_count, format_duration_ms
from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.forms import FAST
from ofa_profiler.spaces import SearchSpace

if TYPE_CHECKING:
    from ofa_profiler.measuring.cells import Cell
    from ofa_profiler.measuring.plan import Plan
    from ofa_profiler.networks.op import Op
    from ofa_profiler.protocol.records import Device
    from ofa_profiler.tables.transfer import Base
    from ofa_profiler.verification.plan import CalibrationPlan

_LOCAL = "local"


def show_plan(arguments: argparse.Namespace, space: SearchSpace, cells: Sequence[Cell]) -> int:
    """Print the plan, and return the exit code. Of all devices, only this machine is asked what it is."""
    from ofa_profiler.measuring.cells import refuse, too_many_threads
    from ofa_profiler.tables.table import LatencyTable
    from ofa_profiler.tables.transfer import Base

    if arguments.device and len(arguments.device) > 1:
        raise UsageError("--plan takes one --device: the same ops are measured on each")
    base = None if arguments.like is None else Base.of(LatencyTable.load(arguments.like), space)
    described = _described(arguments, cells)
    if described is not None and len(cells) > 1:
        found = described
        cells = refuse(cells, lambda cell: too_many_threads(cell, found, _LOCAL))
    refused = {cell.label: cell.refused for cell in cells if cell.refused}
    able = [cell for cell in cells if not cell.refused]
    plans = {cell.label: _plan_cell(arguments, space, cell, cells, described, base) for cell in able}
    if arguments.json:
        documents = {label: _document(*both, space, base) for label, both in plans.items()}
        reasons = {label: {"error": why, "exit_code": UsageError.exit_code} for label, why in refused.items()}
        of_all = {cell.label: {**documents, **reasons}[cell.label] for cell in cells}
        whole = {"cells": of_all, "seconds": _together(documents)}
        print(json.dumps(whole if len(cells) > 1 else documents[cells[0].label], indent=2))
        return 0
    for label, (planned, networks) in plans.items():
        if len(cells) > 1:
            print(f"{label}:")
        _print(planned, networks, base)
    for label, why in refused.items():
        print(f"{label}: not measured: {why}")
    if len(cells) > 1:
        expected_s = sum(part.seconds for both in plans.values() for part in both if part is not None)
        print(f"together: about {format_duration_ms(expected_s * 1e3)}")
    at = ", ".join(map(str, space.resolutions))
    count = len(plans[able[0].label][0].ops)
    say(f"{count} ops of {space.name} at {at}; nothing was measured; --json lists all ops")
    return 0


def _print(planned: Plan, networks: CalibrationPlan | None, base: Base | None) -> None:
    from ofa_profiler.verification.like import TARGET_MAPE

    for line in _summary(planned, networks):
        print(line)
    if base is not None:
        print(
            f"from {base.described['table']}, the other {len(base.ops) - len(planned.ops)} of {len(base.ops)} ops are "
            f"inferred; if whole networks are then off by more than {TARGET_MAPE:.0%}, more ops are measured"
        )


def _described(arguments: argparse.Namespace, cells: Sequence[Cell]) -> Device | None:
    """What this machine is, if that matters: for the default name, the encoding of int8, and threads in a list."""
    from ofa_profiler.devices import open_device
    from ofa_profiler.export import targets_of_kit

    has_default_name = not arguments.name and arguments.out is not None and arguments.out.is_dir()
    if arguments.device != [_LOCAL]:
        return None
    able = [cell for cell in cells if not cell.refused]
    has_encodings = any(targets_of_kit(cell.settings.target) for cell in able)
    has_threads = any(cell.settings.threads > 1 for cell in able)
    if not has_default_name and not has_encodings and not (has_threads and len(cells) > 1):
        return None
    with open_device(_LOCAL, device_options(arguments, able[0].settings)) as device:
        return device.describe()


def _plan_cell(
    arguments: argparse.Namespace,
    space: SearchSpace,
    cell: Cell,
    cells: Sequence[Cell],
    described: Device | None,
    base: Base | None,
) -> tuple[Plan, CalibrationPlan | None]:
    from ofa_profiler.export import for_device
    from ofa_profiler.measuring.cells import common_settings
    from ofa_profiler.measuring.naming import default_name
    from ofa_profiler.measuring.plan import plan
    from ofa_profiler.verification.like import FEW_NETWORKS, order_for, part_of
    from ofa_profiler.verification.plan import plan_calibration
    from ofa_profiler.verification.profile import USUAL, ops_settings

    settings = cell.settings
    (name,) = arguments.name or [None]
    if name is None and described is not None:
        name = default_name(described, [space.name], common_settings(cells) if len(cells) > 1 else settings)
    if name is not None and len(cells) > 1:
        name = cell.table_name(name)
    if described is not None:
        settings = replace(settings, target=for_device(settings.target, described))
    usual = USUAL if base is None else FEW_NETWORKS
    wanted = arguments.calibrate if base is None else arguments.calibrate or usual.fitted
    of_ops = ops_settings(settings, arguments.calibrate)
    ops = (*space.unique_ops(), *cell.more_ops(space))
    if base is not None:
        journal = None if arguments.fresh or arguments.out is None else arguments.out / f"{name or ''}.jsonl"
        ops = part_of(order_for(space, of_ops, base), base, journal).ops
    is_kit = arguments.kit is not None
    how: dict[str, Any] = {"ops": ops, "out": arguments.out, "try_forms": arguments.forms == FAST}
    of_space = partial(plan, space, of_ops, with_encodings=is_kit, **how)
    planned = of_space(name=name, is_slow=bool(arguments.device) and arguments.device != [_LOCAL])
    if arguments.fresh and planned.is_complete:
        planned = of_space()
    try:
        return planned, plan_calibration(planned, space, settings, wanted, usual, with_encodings=is_kit)
    except UsageError as error:
        say(f"warning: no table will be calibrated: {error}")
        return planned, None


def _together(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    names = ("expected", "min", "max")
    return {name: round(sum(document["seconds"][name] for document in documents.values()), 1) for name in names}


def _document(planned: Plan, networks: CalibrationPlan | None, space: SearchSpace, base: Base | None) -> dict[str, Any]:
    networks_s = 0.0 if networks is None else networks.seconds
    return {
        "space": space.name,
        "resolutions": list(space.resolutions),
        "ops": [op.key for op in planned.ops],
        "inferred": 0 if base is None else len(base.ops) - len(planned.ops),
        "models_to_export": planned.models_to_export,
        "models_mb": round(planned.n_bytes / 1e6, 1),
        "networks": None if networks is None else _networks(networks),
        "complete": planned.is_complete and (networks is None or networks.is_complete),
        "seconds": {
            "expected": round(planned.seconds + networks_s, 1),
            "min": round(planned.min_seconds + networks_s, 1),
            "max": round(planned.max_seconds + networks_s, 1),
        },
        "basis": str(planned.basis) if planned.basis is not None else None,
    }


def _networks(networks: CalibrationPlan) -> dict[str, object]:
    return {
        "fitted": networks.fitted,
        "validated": networks.validated,
        "models_mb": round(networks.n_bytes / 1e6, 1),
        "complete": networks.is_complete,
        "seconds": round(networks.seconds, 1),
    }


def _summary(planned: Plan, networks: CalibrationPlan | None) -> list[str]:
    lines = [f"{'kind':16}{'ops':>6}  MACs"]
    lines += [f"{kind:16}{len(ops):6}  {_macs(ops)}" for kind, ops in planned.kinds.items()]
    size = f"all models, in all forms: {_size(planned.n_bytes)}"
    lines.append(f"{'models to export':16}{planned.models_to_export:6}  {size}")
    if networks is not None:
        roles = f"{networks.fitted} to fit the correction, {networks.validated} to validate it"
        count = networks.fitted + networks.validated
        lines.append(
            f"networks: {count} ({roles}), {_size(networks.n_bytes)}, a twentieth of that on the device, "
            f"{_networks_time(networks)}"
        )
    return [*lines, f"measuring: {_time(planned, networks)}"]


def _size(n_bytes: int) -> str:
    return f"about {n_bytes / 1e6:,.0f} MB"


def _networks_time(networks: CalibrationPlan) -> str:
    return "measured already" if networks.is_complete else f"about {format_duration_ms(networks.seconds * 1e3)}"


def _macs(ops: list[Op]) -> str:
    low, high = min(op.macs for op in ops), max(op.macs for op in ops)
    return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"


def _time(planned: Plan, networks: CalibrationPlan | None) -> str:
    networks_s = 0.0 if networks is None else networks.seconds
    if planned.is_complete and (networks is None or networks.is_complete):
        return f"nothing to do, the table of {planned.basis} is complete; --fresh measures again"
    expected, low, high = (
        format_duration_ms((seconds + networks_s) * 1e3)
        for seconds in (planned.seconds, planned.min_seconds, planned.max_seconds)
    )
    if planned.basis is not None:
        return f"about {expected}, according to {planned.basis}"
    return f"about {expected} ({low} to {high}: a busy device needs more rounds)"
