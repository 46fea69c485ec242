"""From a journal to the latency table: everything in the CSV and the JSON follows from the journal alone."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import write_bytes
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.measuring.naming import check_name, default_name
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.kit import RESULTS_FILE
from ofa_profiler.protocol.replay import Log
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import get_space
from ofa_profiler.tables.corrections import Sum
from ofa_profiler.tables.table import LatencyTable, Row

_DEVICE_FIELDS = (
    "model",
    "soc",
    "machine",
    "memory_mb",
    "os",
    "jetson_release",
    "power_mode",
    "python",
    "cores_allowed",
    "cores_used",
    "nice",
    "max_mhz",
    "governor",
    "fixed_performance_mode",
)
#: What shows that a table was derived from a journal as it is now; nothing else changes these.
_FROM_JOURNAL = ("device", "date", "sampling")
_SAMPLING_FIELDS = ("seed", "min_rounds", "max_rounds", "target_half_width", "visit_s")


def import_results(path: Path, out: Path, *, name: str | None = None, fresh: bool = False) -> tuple[LatencyTable, Log]:
    """Make a table in `out` from a journal or from what an agent wrote, as if it had been measured from here.

    A journal in `out` itself has its table made anew. Raises `InputFileError` for a wrong or unfinished
    file, `UsageError` when `out` holds another measurement of that name (unless `fresh`).
    """
    log, data = read_journal(path)
    missing = sum(not visits for visits in log.visits.values())
    if missing or not log.devices:
        raise InputFileError(
            path, f"{missing} of {len(log.visits)} ops are not measured yet: run the agent again, it goes on there"
        )
    if name is None and path.name != RESULTS_FILE and path.parent.resolve() == out.resolve():
        name = path.stem
    name = check_name(name) if name is not None else default_name(log.devices[0], log.run)
    target = out / f"{name}.jsonl"
    rows = table_rows(log, path)
    if not (target.exists() and target.samefile(path)):
        if target.exists() and not fresh and not data.startswith(target.read_bytes()):
            raise UsageError(f"{target} holds another measurement: use another --name, or --fresh to replace it")
        write_bytes(target, data)
    return save_table(log, rows, target), log


def derive_table(log: Log, journal_path: Path) -> LatencyTable:
    """The table of a journal, written beside it unless it is there already.

    One that is there may hold more than the journal: `ofa-verify` adds to it. Raises `DeviceError`
    when all ops failed.
    """
    path = journal_path.with_suffix(".csv")
    if path.exists() and path.with_suffix(".json").exists():
        with contextlib.suppress(InputFileError):
            table = LatencyTable.load(path)
            derived = table_metadata(log)
            if all(table.metadata.get(name) == derived[name] for name in _FROM_JOURNAL):
                return table
    return save_table(log, table_rows(log, journal_path), journal_path)


def save_table(log: Log, rows: tuple[Row, ...], journal_path: Path) -> LatencyTable:
    """Write CSV and JSON beside the journal."""
    if all(row.status != "ok" for row in rows):
        raise DeviceError(f"all {len(rows)} ops failed, the first with: {rows[0].error} (--fresh tries again)")
    path = journal_path.with_suffix(".csv")
    table = LatencyTable(path.stem, rows, table_metadata(log), path)
    table.save(path)
    return table


def table_rows(log: Log, source: Path) -> tuple[Row, ...]:
    """A row per op, in the order of the space. Raises `InputFileError` (of `source`) for ops that are not its."""
    about, settings = log.run["about"], Settings.from_json(log.run["settings"])
    try:
        unique = {op.key: op for name in about["spaces"] for op in get_space(name).unique_ops(about["resolutions"])}
    except (KeyError, TypeError, UsageError) as error:
        raise InputFileError(source, f"it does not say which space was measured ({error})", row=1) from None
    measured = log.measurements()
    if unique.keys() != measured.keys():
        differing = sorted(unique.keys() ^ measured.keys())
        raise InputFileError(source, f"its ops are not those of {', '.join(about['spaces'])}: {differing[0]:.200}")
    of_target: Any = {"batch": settings.target.batch, "precision": settings.target.precision}
    rows = []
    for key, op in unique.items():
        seen = measured[key]
        if seen.ok:
            row = Row.from_op(op, **of_target, samples_ms=seen.samples_ms)
            width = "" if seen.half_width is None else f"{seen.half_width:.4g}"
            row = replace(row, extra={"rounds": str(len(seen.rounds_ms)), "half_width": width})
        else:
            row = Row.failed(op, **of_target, error=seen.error or "")
        rows.append(row)
    return tuple(rows)


def table_metadata(log: Log) -> dict[str, Any]:
    """The JSON beside a table: who was measured, how and when. `validation` is for `ofa-verify` to fill."""
    device, run, end = log.devices[0], log.run, log.end or {}
    settings = Settings.from_json(run["settings"])
    notes = [note for record in log.devices for note in record["uncontrolled"]]
    if isinstance(end.get("measured_hot"), str):
        notes.append(f"it stayed hot, and was measured so: {end['measured_hot']}")
    if log.n_drifted:
        percent = f"{settings.drift_tolerance:.0%}"
        notes.append(
            f"{log.n_drifted} of {log.n_visits} visits count though the reference op was off by over {percent}"
        )
    # Journals of earlier versions have none of these, and their tables need not be made anew.
    found = {name: device[name] for name in ("governor_found",) if name in device}
    watched = {"references": log.n_references, "repeated": log.n_repeated, "drifted": log.n_drifted}
    return {
        "device": {
            **{name: device.get(name) for name in _DEVICE_FIELDS},
            **found,
            "before": device.get("before"),
            "after": end.get("after"),
            "uncontrolled": list(dict.fromkeys(notes)),
        },
        "runtime": device["runtime"].get("name"),
        "runtime_version": device["runtime"].get("version"),
        "provider": device["runtime"].get("provider"),
        "precision": settings.target.precision,
        "threads": settings.threads,
        "batch": settings.target.batch,
        "spaces": run["about"].get("spaces"),
        "resolutions": run["about"].get("resolutions"),
        # A board whose clock was never set may think it is 1970.
        "date": max(run["created"], log.devices[-1]["time"]),
        "tool_version": run["about"].get("tool_version"),
        "correction": Sum().to_json(),
        "validation": None,
        "sampling": {
            **{name: getattr(settings, name) for name in _SAMPLING_FIELDS},
            "visits": log.n_visits,
            # Ops that the time limit, or the largest number of rounds, kept from `target_half_width`.
            "cut_short": len(end["cut_short"]) if log.end else None,
            "noisy": len(end["noisy"]) if log.end else None,
            # Looks at the reference op; visits made again because it had drifted; drifted ones that count.
            **(watched if log.n_references else {}),
        },
    }
