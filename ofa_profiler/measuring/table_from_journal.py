"""Derives the latency table from a journal: the CSV and the JSON contain nothing from another source."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.measuring.model_table import is_model, model_metadata, model_rows
from ofa_profiler.measuring.rows import row_of
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.extension import LIKE, is_partial
from ofa_profiler.protocol.forms import PLAIN_NAME
from ofa_profiler.protocol.records import End, Run
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.spaces import known_space
from ofa_profiler.tables.corrections import Sum
from ofa_profiler.tables.stability import compute_stability
from ofa_profiler.tables.suspects import find_suspects
from ofa_profiler.tables.table import LatencyTable, Row
from ofa_profiler.tables.transfer import Base, Inference, infer

_MAX_NOTES = 5
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
#: Fields that the agents of earlier versions do not report.
_NEWER_FIELDS = ("governor_found", "unit", "vnni", "avx512", "dotprod", "i8mm")
#: Fields that are equal in a table and its journal's metadata only if the table was derived from this journal.
_FROM_JOURNAL = ("device", "date", "sampling")
_SAMPLING_FIELDS = ("seed", "min_rounds", "max_rounds", "target_half_width", "visit_s")


def derive_table(replay: Replay, journal_path: Path) -> LatencyTable:
    """Return the table of a journal. It is written beside the journal unless it exists.

    The JSON of an existing table is kept, because `ofa-verify` may have added to it. So is its CSV, unless it has other
    ops than the journal. Raises `DeviceError` if every op failed.
    """
    path = journal_path.with_suffix(".csv")
    if path.exists() and path.with_suffix(".json").exists():
        with contextlib.suppress(InputFileError):
            table = LatencyTable.load(path)
            derived = table_metadata(replay)
            if all(table.metadata.get(name) == derived[name] for name in _FROM_JOURNAL):
                if {row.op for row in table.rows} == _keys(replay, journal_path):
                    return table
                restored = replace(table, rows=table_rows(replay, journal_path))
                restored.save(path)
                return restored
    return save_table(replay, table_rows(replay, journal_path), journal_path)


def check_usable(rows: tuple[Row, ...]) -> None:
    """Raise `DeviceError` if every op failed."""
    if all(row.status != "ok" for row in rows):
        raise DeviceError(f"all {len(rows)} ops failed, the first with: {rows[0].error} (use --fresh to retry)")


def save_table(replay: Replay, rows: tuple[Row, ...], journal_path: Path) -> LatencyTable:
    """Write CSV and JSON beside the journal."""
    check_usable(rows)
    path = journal_path.with_suffix(".csv")
    metadata = table_metadata(replay)
    found = compute_stability(rows, metadata)
    suspects = [suspect.to_json() for suspect in find_suspects(rows)]
    verdicts = {"stability": found.to_json() if found else None, **({"suspects": suspects} if suspects else {})}
    if (base := _base(replay.run, journal_path)) is not None:
        measured = {"measured": len(replay.run.models)}
        verdicts[LIKE] = {**base.described, **measured, **_inference(replay, base).to_json()}
    if is_model(replay.run):
        verdicts |= model_metadata(replay, rows)
    table = LatencyTable(path.stem, rows, {**metadata, **verdicts}, path)
    table.save(path)
    return table


# --- the CSV ----------------------------------------------------------------------------------------------


def table_rows(replay: Replay, source: Path) -> tuple[Row, ...]:
    """Return one row per op, in the order of the request or of the table from which the others are inferred.

    Raises `InputFileError` (of `source`) if an op is not measured yet, or if the journal does not identify its ops.
    """
    if replay.unvisited or not replay.devices:
        counts = f"{len(replay.unvisited)} of {len(replay.visits)}"
        raise InputFileError(source, f"{counts} ops are not measured yet: run the agent again, it resumes")
    run, measured, target = replay.run, replay.measurements(), replay.run.settings.target
    if is_model(run):
        return model_rows(replay, source)
    if (base := _base(run, source)) is not None:
        ms = _inference(replay, base).ms
        return tuple(
            row_of(_in_form(op, replay), measured[op.key], target)
            if op.key in measured
            else Row.inferred(op, batch=target.batch, precision=target.precision, ms=ms[op.key])
            for op in base.ops
        )
    ops = run.ops if run.ops is not None else _ops_of_spaces(run, source)
    return tuple(row_of(_in_form(op, replay), measured[op.key], target) for op in ops)


def _keys(replay: Replay, source: Path) -> set[str]:
    """The ops of the table."""
    run = replay.run
    if is_model(run):
        return {row.op for row in model_rows(replay, source)}
    base = _base(run, source)
    return set(run.models) if base is None else {op.key for op in base.ops}


def _base(run: Run, source: Path) -> Base | None:
    """The table from which ops are inferred; None if all are measured."""
    if not is_partial(run):
        return None
    try:
        base = Base.from_json(run.about[LIKE])
    except ValueError as error:
        raise InputFileError(source, str(error), row=1) from None
    lost = [op.key for op in base.ops if op.key not in base.ms and op.key not in run.models]
    if lost:
        raise InputFileError(source, f"{lost[0]:.200} is neither measured nor in the table of {LIKE!r}", row=1)
    return base


def _inference(replay: Replay, base: Base) -> Inference:
    """The times of the ops that were not measured."""
    found = replay.measurements()
    measured = {key: one.median_ms for key, one in found.items() if one.ok}
    if not measured.keys() & base.ms.keys():
        errors = [one.error for one in found.values() if not one.ok]
        why = f"; the first failed with: {errors[0]}" if errors else ""
        raise DeviceError(f"no op was measured from which the others can be inferred{why}")
    return infer(base.ops, base.ms, measured)


def _in_form(op: Op, replay: Replay) -> Op:
    """Return `op` with the attribute `form`, unless its model was plain."""
    candidates = replay.run.candidates
    variants = candidates.variants.get(op.key, {}) if candidates is not None else {}
    form = replay.forms.of(group for forms in variants for group in forms.chosen).name
    return op if form == PLAIN_NAME else replace(op, attributes={**op.attributes, "form": form})


def _ops_of_spaces(run: Run, source: Path) -> tuple[Op, ...]:
    """Return the ops of a journal of version 0.1, which has the names of its spaces and no ops."""
    try:
        resolutions = run.about["resolutions"]
        unique = {op.key: op for name in run.spaces for op in known_space(name).unique_ops(resolutions)}
    except (KeyError, TypeError, UsageError) as error:
        reason = f"the measured ops are unknown ({error}): the line needs 'ops', or known 'spaces' and 'resolutions'"
        raise InputFileError(source, f"{reason}; profile again", row=1) from None
    if unique.keys() != run.models.keys():
        differing = sorted(unique.keys() ^ run.models.keys())
        raise InputFileError(
            source, f"its ops are not those of {', '.join(run.spaces)} ({differing[0]:.200}); profile again"
        )
    return tuple(unique.values())


# --- the JSON ---------------------------------------------------------------------------------------------


def table_metadata(replay: Replay) -> dict[str, Any]:
    """Return the JSON beside a table: what was measured, how and when. `ofa-verify` fills in `validation`."""
    run, settings, end = replay.run, replay.run.settings, replay.end
    runtime = replay.devices[0].runtime
    assert runtime is not None  # `Replay` refuses a device without one
    watched = {"references": replay.n_references, "repeated": replay.n_repeated, "drifted": replay.n_drifted}
    return {
        "device": _device(replay),
        "runtime": runtime.name,
        "runtime_version": runtime.version,
        "provider": runtime.provider,
        **({} if runtime.options is None else {"runtime_options": dict(runtime.options)}),
        "precision": settings.target.precision,
        **_integers(replay),
        "threads": settings.threads,
        "batch": settings.target.batch,
        "spaces": list(run.spaces),
        "resolutions": run.about.get("resolutions"),
        # A board may report 1970 if its clock was never set.
        "date": max(run.created, replay.devices[-1].time),
        "tool_version": run.about.get("tool_version"),
        **_forms(replay),
        "correction": Sum().to_json(),
        "validation": None,
        "sampling": {
            **{name: getattr(settings, name) for name in _SAMPLING_FIELDS},
            "visits": replay.n_visits,
            # Ops that did not reach `target_half_width` within the time limit, or within the maximum number of rounds.
            "cut_short": len(end.cut_short) if end else None,
            "noisy": len(end.noisy) if end else None,
            # Visits of the reference op; visits repeated after a drift; visits that count in spite of a drift.
            **(watched if replay.n_references else {}),
            **_disturbances(replay),
        },
    }


def _integers(replay: Replay) -> dict[str, Any]:
    """Of int8: where the ranges come from, and the encoding, which the agent chose if the models came in a kit."""
    chosen = replay.devices[0].json.get("encoding") or replay.run.settings.target.encoding
    found = {"encoding": chosen, "ranges": replay.run.about.get("ranges")}
    return {name: value for name, value in found.items() if value}


def _disturbances(replay: Replay) -> dict[str, Any]:
    """What other programs did. Journals of earlier versions do not tell, and a table made of one stays as it is."""
    share = replay.others_share
    if share is None:
        return {}
    kept = sum(visit.is_disturbed for visits in replay.visits.values() for visit in visits)
    return {"disturbed": replay.n_disturbed, "kept_disturbed": kept, "others_share": round(share, 4)}


def _forms(replay: Replay) -> dict[str, Any]:
    if replay.trials is None:
        return {}
    trials = [trial.to_json() for trial in replay.trials.trials]
    return {"forms": {"chosen": replay.forms.to_json(), "trials": trials}}


def _device(replay: Replay) -> dict[str, Any]:
    said = replay.devices[0].json
    # Journals of earlier versions lack these, and a table made of one then equals a table made of it now.
    newer = {name: said[name] for name in _NEWER_FIELDS if name in said}
    notes = [note for device in replay.devices for note in device.uncontrolled]
    return {
        **{name: said.get(name) for name in _DEVICE_FIELDS},
        **newer,
        "before": said.get("before"),
        "after": replay.end.json.get("after") if replay.end else None,
        "uncontrolled": list(dict.fromkeys([*notes, *_notes(replay, replay.end)])),
    }


def _notes(replay: Replay, end: End | None) -> Iterator[str]:
    """Yield what the measurement as a whole could not control, in sentences like those of the device.

    Existing tables contain the first two sentences in their JSON. Keep them byte for byte: with another wording,
    `derive_table` would take such a table for one of another journal and replace it.
    """
    if end is not None and end.measured_hot is not None:
        yield f"it stayed hot, and was measured so: {end.measured_hot}"
    if replay.n_drifted:
        percent = f"{replay.run.settings.drift_tolerance:.0%}"
        yield f"{replay.n_drifted} of {replay.n_visits} visits count though the reference op was off by over {percent}"
    for note, ops in Counter(_notes_of_visits(replay)).most_common(_MAX_NOTES):
        yield f"the runtime said of {ops} ops: {note}"


def _notes_of_visits(replay: Replay) -> Iterator[str]:
    """Yield what runtimes reported about models that they measured all the same, each note once per model."""
    for visits in replay.visits.values():
        found = [note for visit in visits if isinstance(notes := visit.json.get("notes"), list) for note in notes]
        yield from dict.fromkeys(note for note in found if isinstance(note, str))
