"""What `ofa-profile --device` says at the end: of each device its table, or its tables and their comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ofa_profiler.cli.report import report_outcome
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import OfaError
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.tables.matrix import matrix_lines
from ofa_profiler.verification.cells import Comparison
from ofa_profiler.verification.mixed import MixedCalibration

_Outcome = Profile | Comparison | OfaError


def report_outcomes(command: str, outcomes: Mapping[str, _Outcome], *, as_json: bool) -> int:
    """Report on every device, by its name -> the exit code. The error of the only table is raised."""
    errors = [error for outcome in outcomes.values() for error in _errors(outcome)]
    if len(outcomes) == 1 and errors and len(errors) == sum(map(_n_tables, outcomes.values())):
        raise errors[0]
    documents = {
        spec: _report_comparison(command, outcome, as_json=as_json)
        if isinstance(outcome, Comparison)
        else report_outcome(command, outcome)
        for spec, outcome in outcomes.items()
    }
    if as_json:
        (only, *others) = documents.values()
        print(json.dumps({"devices": documents} if others else only, indent=2))
    return errors[0].exit_code if errors else 0


def _errors(outcome: _Outcome) -> list[OfaError]:
    found = [*outcome.outcomes.values(), outcome.mixed] if isinstance(outcome, Comparison) else [outcome]
    return [error for error in found if isinstance(error, OfaError)]


def _n_tables(outcome: _Outcome) -> int:
    return len(outcome.outcomes) if isinstance(outcome, Comparison) else 1


def _report_comparison(command: str, found: Comparison, *, as_json: bool) -> dict[str, Any]:
    """Report on all cells of a device. Without `as_json`, the comparison is printed on stdout."""
    documents = {label: report_outcome(command, outcome) for label, outcome in found.outcomes.items()}
    if found.matrix:
        say(f"{found.path}: what each kind of op gains")
        if not as_json:
            for line in matrix_lines(found.matrix, {one.table.name: label for label, one in found.profiles.items()}):
                print(line)
    rows = [asdict(row) for row in found.matrix]
    mixed = _report_mixed(command, found.mixed)
    return {"cells": documents, "mixed": mixed, "matrix": str(found.path) if rows else None, "rows": rows}


def _report_mixed(command: str, mixed: MixedCalibration | OfaError | None) -> dict[str, Any] | None:
    if mixed is None:
        return None
    if isinstance(mixed, OfaError):
        say(f"{command}: networks in mixed precision are not calibrated: {' '.join(str(mixed).split())}")
        return {"error": str(mixed), "exit_code": mixed.exit_code}
    validation = mixed.verification.validation() if mixed.verification.usable else None
    if validation is not None:
        count = validation["subnets"]
        say(f"predictions are off by {validation['mape']:.1%} on average, for {count} networks in mixed precision")
    return {"validation": validation}
