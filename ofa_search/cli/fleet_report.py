"""What a fleet's searches found: one table, one document, and the exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import write_text
from ofa_profiler.base.units import format_count, parse_duration_ms
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import OfaError, UsageError
from ofa_search.results.front import csv_text

FLEET = "fleet.csv"
_SUMMARY = "search.json"


@dataclass(frozen=True)
class Outcome:
    """The document of a device's search, or the error."""

    luts: tuple[str, ...]
    budgets: tuple[str, ...]
    document: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    error: OfaError | None = None
    #: Whether an earlier run found it.
    is_kept: bool = False

    def to_json(self) -> dict[str, Any]:
        """Of one of the `devices` of the document."""
        if self.error is not None:
            return {"tables": list(self.luts), "error": str(self.error), "exit_code": self.error.exit_code}
        return {
            "tables": list(self.luts),
            "budget_ms": self.document["results"][0]["budget_ms"],
            "folder": None if self.folder is None else str(self.folder),
        }


#: By the name of the device.
Outcomes = dict[str, Outcome]


def report_fleet(outcomes: Outcomes, out: Path | None, arguments: argparse.Namespace) -> int:
    """Write the summary, print the document or a table for people, and give the exit code."""
    whole = fleet_document(outcomes, arguments)
    if out is not None:
        write_text(out / _SUMMARY, json.dumps(whole, indent=2, allow_nan=False) + "\n")
        write_text(out / FLEET, csv_text([_row(name, outcome) for name, outcome in outcomes.items()]))
    if arguments.json:
        print(json.dumps(whole, indent=2, allow_nan=False), flush=True)
    else:
        _print_table(outcomes)
        seconds, kept = whole["search_seconds"], sum(outcome.is_kept for outcome in outcomes.values())
        say(f"{len(whole['results'])} of {len(outcomes)} devices have a network, searched in {seconds:.2f} s")
        if kept:
            say(f"{kept} of them were found before with the same arguments")
        if out is not None:
            say(f"written to {out}: a folder for each device, {FLEET} and {_SUMMARY}")
    return _exit_code(outcomes)


def fleet_document(outcomes: Mapping[str, Outcome], arguments: argparse.Namespace) -> dict[str, Any]:
    """As the document of a single search, with the results of all devices, and what became of each device."""
    documents = [outcome.document for outcome in outcomes.values() if outcome.error is None]
    return {
        "space": documents[0]["space"] if documents else arguments.space,
        "engine": documents[0]["engine"] if documents else arguments.engine,
        "seed": arguments.seed,
        "evaluations": sum(each["evaluations"] for each in documents),
        "search_seconds": sum(each["search_seconds"] for each in documents),
        "results": [result for each in documents for result in each["results"]],
        "devices": {name: outcome.to_json() for name, outcome in outcomes.items()},
    }


def _row(name: str, outcome: Outcome) -> dict[str, Any]:
    (result,) = outcome.document.get("results") or [{}]
    architecture = result.get("architecture")
    milliseconds = {key: _joined(result.get(key, {})) for key in ("budget_ms", "latency_ms")}
    if outcome.error is not None:
        milliseconds["budget_ms"] = "; ".join(map(_in_ms, outcome.budgets))
    return {
        "device": name,
        "tables": "; ".join(outcome.luts),
        **milliseconds,
        "predicted_accuracy": result.get("predicted_accuracy"),
        "gap": result.get("gap"),
        "macs": result.get("macs"),
        "params": result.get("params"),
        "resolution": architecture and architecture.get("resolution"),
        "folder": outcome.folder,
        "error": outcome.error,
        "exit_code": 0 if outcome.error is None else outcome.error.exit_code,
    }


def _joined(by_table: Mapping[str, float]) -> str:
    return "; ".join(f"{milliseconds:.6g}" for milliseconds in by_table.values())


def _in_ms(budget: str) -> str:
    """The milliseconds of a budget; the text itself if it is none."""
    try:
        return f"{parse_duration_ms(budget, 'budget'):.6g}"
    except UsageError:
        return budget


def _print_table(outcomes: Outcomes) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("device", overflow="fold")
    for name in ("budget\nms", "latency\nms", "accuracy", "MACs", "params", "pixels"):
        table.add_column(name, justify="right", overflow="fold")
    for name, outcome in outcomes.items():
        row = _row(name, outcome)
        if outcome.error is not None:
            table.add_row(name, "\n".join(map(_in_ms, outcome.budgets)) or "-", "failed")
            continue
        (result,) = outcome.document["results"]
        table.add_row(
            name,
            "\n".join(f"{ms:.4g}" for ms in result["budget_ms"].values()),
            "\n".join(f"{ms:.4g}" for ms in result["latency_ms"].values()),
            "-" if row["predicted_accuracy"] is None else f"{row['predicted_accuracy']:.2%}",
            format_count(row["macs"]),
            format_count(row["params"]),
            str(row["resolution"]),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _exit_code(outcomes: Outcomes) -> int:
    """The lowest code of the failures: mistakes in the arguments come first."""
    return min((outcome.error.exit_code for outcome in outcomes.values() if outcome.error is not None), default=0)
