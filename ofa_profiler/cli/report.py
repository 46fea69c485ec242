"""What `ofa-profile` says about the tables that it has made: lines on stderr, a JSON document on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.units import format_duration_ms
from ofa_profiler.cli.report_model import report_model
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import OfaError
from ofa_profiler.pages.page import NOT_INSTALLED, can_write_pages
from ofa_profiler.protocol.journal import NEW
from ofa_profiler.tables.consistency import is_of_model
from ofa_profiler.tables.row import FAILED, INFERRED

if TYPE_CHECKING:
    from ofa_profiler.measuring.profile import Profile
    from ofa_profiler.protocol.replay import Replay
    from ofa_profiler.tables.table import LatencyTable
    from ofa_profiler.verification.result import Subnet


def report_outcome(command: str, outcome: Profile | OfaError) -> dict[str, Any]:
    """Report on a table, or why there is none, on stderr -> the same as a JSON document."""
    if isinstance(outcome, OfaError):
        say(f"{command}: {' '.join(str(outcome).split())}")
        return {"error": str(outcome), "exit_code": outcome.exit_code}
    facts = {
        "seconds": round(outcome.seconds, 3),
        "export_seconds": round(outcome.export_s, 3),
        "measuring_seconds": round(outcome.measuring_s, 3),
        "measuring_share": round(outcome.measuring_s / outcome.seconds, 4),
        "was_complete": outcome.was_complete,
        **outcome.more,
    }
    if outcome.uncalibrated:
        say(f"warning: table {outcome.table.name} is not calibrated: {outcome.uncalibrated}")
    return report_table(outcome.table, outcome.replay, facts)


def report_table(table: LatencyTable, replay: Replay, facts: dict[str, Any]) -> dict[str, Any]:
    """Report on a table on stderr -> the same as a JSON document."""
    assert table.path is not None
    failures = {row.op: row.error for row in table.rows if row.status == FAILED}
    inferred = sum(row.status == INFERRED for row in table.rows)
    ok, sampling = len(table.rows) - len(failures) - inferred, table.metadata["sampling"]
    for doubt in table.doubts:
        say(str(doubt))
    if replay.trials is not None:
        for trial in replay.trials.trials:
            say(f"{'' if trial.wins else 'not used: '}{trial.label}")
    more = f" and {inferred} inferred ones" if inferred else ""
    rows = ("block" if ok == 1 else "blocks") if is_of_model(table.metadata) else "ops"
    what = f"{table.path}: {ok} {rows}{more} of {table.metadata['device']['model'] or 'an unnamed device'}"
    if facts.get("was_complete"):
        say(f"{what}; the table is up to date, nothing was measured; --fresh measures again")
        if (new := table.path.with_suffix(f".jsonl{NEW}")).exists():
            say(f"note: {new} is an interrupted measurement with --fresh; --fresh resumes it")
    elif "seconds" in facts:
        say(f"{what}, measured in {format_duration_ms(facts['seconds'] * 1e3)}")
    else:
        say(what)
    model = report_model(table) if is_of_model(table.metadata) else {}
    page = refresh_report(table)
    validation = table.metadata.get("validation")
    if isinstance(validation, Mapping) and {"mape", "subnets"} <= validation.keys():
        say(f"predictions are off by {validation['mape']:.1%} on average, for {validation['subnets']} whole networks")
    return {
        "name": table.name,
        "table": str(table.path),
        "report": page,
        "metadata": str(table.path.with_suffix(".json")),
        "journal": str(table.path.with_suffix(".jsonl")),
        "spaces": list(table.spaces),
        "ops": len(table.rows),
        "ok": ok,
        "inferred": inferred,
        "failed": len(failures),
        "failures": failures,
        "forms": replay.forms.to_json(),
        "cut_short": sampling["cut_short"],
        "noisy": sampling["noisy"],
        "correction": table.correction.method,
        "validation": validation,
        "stability": table.stability.to_json() if table.stability is not None else None,
        "visits": replay.n_visits,
        **model,
        **facts,
    }


def refresh_report(table: LatencyTable, verified: Sequence[Subnet] = ()) -> str | None:
    """Write the HTML report beside a table -> its path; None, and a note, without the library for charts."""
    from ofa_profiler.verification.report import write_report

    if not can_write_pages():
        say(f"note: {NOT_INSTALLED}")
        return None
    return str(write_report(table, verified))
