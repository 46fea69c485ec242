"""The table of a user's model, from its journal: a row per block in order of execution, and the network in the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_profiler.errors import DeviceError, InputFileError
from ofa_profiler.measuring.rows import row_of
from ofa_profiler.models.explained import match_profile
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.records import Run
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.tables.row import OK, Row

#: The key of the network among the models.
WHOLE = "whole"
#: Blocks that are named where the runtime's own profile disagrees most.
_DISAGREEMENTS = 5


def is_model(run: Run) -> bool:
    """Whether a journal is that of a user's model."""
    return "model" in run.about


def model_rows(replay: Replay, source: Path) -> tuple[Row, ...]:
    """A row per block. Raises `InputFileError` for a journal that does not describe them.

    Raises `DeviceError` if the network itself could not be measured.
    """
    run, target = replay.run, replay.run.settings.target
    ops, measured = {op.key: op for op in run.ops or ()}, replay.measurements()
    check_runs(measured.get(WHOLE))
    kernel_ms = _kernel_ms(replay, source)
    rows = []
    for place, block in enumerate(_blocks(run, source)):
        key = block["measured"]
        try:
            op, found = ops[key], measured[key]
        except KeyError:
            raise InputFileError(source, f"the block {key!r:.120} was not measured; profile again", row=1) from None
        row = row_of(_without_attributes(op, block), found, target)
        ms = [milliseconds for _, _, milliseconds, at in kernel_ms if at == place]
        more = {"place": str(place + 1), "share": ""}
        more |= {name: str(op.attributes[name]) for name in ("macs", "bytes", "kernels")}
        rows.append(replace(row, extra={**row.extra, **more, "runtime_ms": f"{sum(ms):.6g}" if ms else ""}))
    total = _sum_ms(rows)
    return tuple(
        replace(row, extra={**row.extra, "share": f"{row.median_ms / total:.6g}"}) if total and row.median_ms else row
        for row in rows
    )


def model_metadata(replay: Replay, rows: Sequence[Row]) -> dict[str, Any]:
    """The part of the JSON that only tables of models have. All times are in milliseconds."""
    about, whole = replay.run.about["model"], replay.measurements()[WHOLE]
    statistics = {
        "median_ms": whole.median_ms,
        "mean_ms": whole.mean_ms,
        "std_ms": whole.std_ms,
        "p10_ms": whole.percentile_ms(10),
        "p90_ms": whole.percentile_ms(90),
        "samples": int(whole.samples_ms.size),
        "half_width": whole.half_width,
    }
    return {
        "model": {name: about[name] for name in ("file", "sha256", "bytes", "inputs")},
        "whole_ms": whole.median_ms,
        "sum_ms": _sum_ms(rows),
        "whole": statistics,
        "runtime_profile": _runtime_profile(replay, rows),
    }


def check_runs(whole: Measurement | None) -> None:
    """Raise `DeviceError` if the network failed; None: it has not been measured yet."""
    if whole is not None and not whole.ok:
        raise DeviceError(f"the device does not run the model: {whole.error} (use --fresh to retry)")


def _without_attributes(op: Op, block: dict[str, Any]) -> Op:
    """The op of a row, whose attributes have columns of their own."""
    return replace(op, key=block["op"], attributes={})


def _sum_ms(rows: Sequence[Row]) -> float | None:
    """The plain sum of the blocks; None if one failed."""
    times = [row.median_ms for row in rows]
    return None if any(ms is None for ms in times) else sum(ms for ms in times if ms is not None)


def _blocks(run: Run, source: Path) -> list[dict[str, Any]]:
    """The blocks in the journal's first line."""
    about = run.about["model"]
    blocks = about.get("blocks") if isinstance(about, dict) else None
    if not isinstance(blocks, list) or not blocks or not all(map(_is_block, blocks)):
        raise InputFileError(source, "'model' does not describe the blocks of a model; profile again", row=1)
    return blocks


def _is_block(block: Any) -> bool:
    return (
        isinstance(block, dict)
        and isinstance(block.get("op"), str)
        and isinstance(block.get("measured"), str)
        and isinstance(block.get("kernels"), list)
        and all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair)) for pair in block["kernels"])
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _kernel_ms(replay: Replay, source: Path) -> list[tuple[str, str, float, int | None]]:
    """Name, kind, milliseconds and place of the block of each kernel in the runtime's own profile."""
    if replay.profile is None or replay.profile.kernels is None:
        return []
    kernels = replay.profile.kernels
    ours = [[(name, kind) for name, kind in block["kernels"]] for block in _blocks(replay.run, source)]
    places = match_profile(ours, [(kernel.name, kernel.kind) for kernel in kernels])
    return [
        (kernel.name, kernel.kind, kernel.ns * kernel.calls / 1e6, place)
        for kernel, place in zip(kernels, places, strict=True)
    ]


def _runtime_profile(replay: Replay, rows: Sequence[Row]) -> dict[str, Any] | None:
    """What the runtime says about its kernels, and where blocks measured alone disagree most; None without a profile.

    The runtime's own times contain what its profiler costs, so they add up to more than the network.
    """
    kernels = _kernel_ms(replay, Path())
    if not kernels:
        return None
    total = sum(ms for _, _, ms, _ in kernels)
    named = sum(ms for _, _, ms, place in kernels if place is not None)
    both = [
        (row.op, row.median_ms, float(row.extra["runtime_ms"]))
        for row in rows
        if row.status == OK and row.median_ms is not None and row.extra["runtime_ms"]
    ]
    both.sort(key=lambda found: -abs(found[1] - found[2]))
    profile = replay.profile
    assert profile is not None  # it has kernels
    return {
        "sum_ms": total,
        "named_ms": named,
        "named_share": named / total if total else None,
        "whole_ms": profile.whole_ns / 1e6,
        "runs": profile.runs,
        "disagreements": [
            {"op": op, "median_ms": alone_ms, "runtime_ms": runtime_ms}
            for op, alone_ms, runtime_ms in both[:_DISAGREEMENTS]
        ],
        "kernels": [
            {"name": name, "kind": kind, "ms": round(ms, 6), "block": None if place is None else rows[place].op}
            for name, kind, ms, place in kernels
        ],
    }
