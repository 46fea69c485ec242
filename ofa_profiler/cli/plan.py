"""`ofa-profile --plan`: what would be measured, as a summary on stdout, or as a JSON document with all ops."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ofa_profiler.base.units import format_count, format_duration_ms
from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace

if TYPE_CHECKING:
    from ofa_profiler.measuring.plan import Plan
    from ofa_profiler.networks.op import Op

_LOCAL = "local"


def show_plan(arguments: argparse.Namespace, space: SearchSpace, settings: Settings) -> int:
    """Print the plan, and return the exit code. Of all devices, only this machine is asked what it is."""
    from ofa_profiler.devices import open_device
    from ofa_profiler.measuring.plan import plan

    devices = arguments.device or []
    if len(devices) > 1:
        raise UsageError("--plan takes one --device: the same ops are measured on each")
    (name,) = arguments.name or [None]
    is_local = devices == [_LOCAL]
    described = None
    if is_local and name is None and arguments.out is not None and arguments.out.is_dir():
        with open_device(_LOCAL, device_options(arguments, settings)) as device:
            described = device.describe()
    planned = plan(
        space, settings, out=arguments.out, name=name, device=described, is_slow=bool(devices) and not is_local
    )
    if arguments.fresh and planned.is_complete:
        planned = plan(space, settings, out=arguments.out)
    if arguments.json:
        print(json.dumps(_document(planned, space), indent=2))
        return 0
    for line in _summary(planned):
        print(line)
    at = ", ".join(map(str, space.resolutions))
    say(f"{len(planned.ops)} ops of {space.name} at {at}; nothing was measured; --json lists all ops")
    return 0


def _document(planned: Plan, space: SearchSpace) -> dict[str, object]:
    return {
        "space": space.name,
        "resolutions": list(space.resolutions),
        "ops": [op.key for op in planned.ops],
        "models_to_export": planned.models_to_export,
        "complete": planned.is_complete,
        "seconds": {
            "expected": round(planned.seconds, 1),
            "min": round(planned.min_seconds, 1),
            "max": round(planned.max_seconds, 1),
        },
        "basis": str(planned.basis) if planned.basis is not None else None,
    }


def _summary(planned: Plan) -> list[str]:
    lines = [f"{'kind':16}{'ops':>6}  MACs"]
    lines += [f"{kind:16}{len(ops):6}  {_macs(ops)}" for kind, ops in planned.kinds.items()]
    lines.append(f"{'models to export':16}{planned.models_to_export:6}")
    return [*lines, f"measuring: {_time(planned)}"]


def _macs(ops: list[Op]) -> str:
    low, high = min(op.macs for op in ops), max(op.macs for op in ops)
    return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"


def _time(planned: Plan) -> str:
    if planned.is_complete:
        return f"nothing to do, the table of {planned.basis} is complete; --fresh measures again"
    expected, low, high = (
        format_duration_ms(seconds * 1e3) for seconds in (planned.seconds, planned.min_seconds, planned.max_seconds)
    )
    if planned.basis is not None:
        return f"about {expected}, according to {planned.basis}"
    return f"about {expected} ({low} to {high}: a busy device needs more rounds)"
