"""What `ofa-profile --device` says at the end: of each device its table, or its tables and their comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ofa_profiler.cli.devices import Outcome
from ofa_profiler.cli.report import report_outcome
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import DeviceError, OfaError, UsageError
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.tables.matrix_text import matrix_lines
from ofa_profiler.verification.cells import Comparison
from ofa_profiler.verification.mixed import MixedCalibration


def report_outcomes(command: str, outcomes: Mapping[str, Outcome], *, as_json: bool) -> int:
    """Report on every device, by its name -> the exit code. The error of the only device is raised.

    A device with a list of settings has failed if it has no table at all.
    """
    codes = [_exit_code(outcome) for outcome in outcomes.values()]
    if len(outcomes) == 1 and (error := _only_error(*outcomes.values())):
        raise error
    documents = {
        spec: _report_comparison(command, outcome, as_json=as_json)
        if isinstance(outcome, Comparison)
        else report_outcome(command, outcome)
        for spec, outcome in outcomes.items()
    }
    if as_json:
        (only, *others) = documents.values()
        print(json.dumps({"devices": documents} if others else only, indent=2))
    return next(filter(None, codes), 0)


def _exit_code(outcome: Outcome) -> int:
    if isinstance(outcome, OfaError):
        return outcome.exit_code
    if isinstance(outcome, Profile):
        return 0
    if outcome.profiles:
        return next((mixed.exit_code for mixed in outcome.pairs.values() if isinstance(mixed, OfaError)), 0)
    only_usage = all(isinstance(error, UsageError) for error in outcome.errors.values())
    return (UsageError if only_usage else DeviceError).exit_code


def _only_error(outcome: Outcome) -> OfaError | None:
    """The error of a device, if there is no table and the same reason for each."""
    if isinstance(outcome, OfaError):
        return outcome
    if isinstance(outcome, Profile) or outcome.profiles:
        return None
    first, *others = outcome.errors.values()
    return first if all(str(error) == str(first) for error in others) else None


def _report_comparison(command: str, found: Comparison, *, as_json: bool) -> dict[str, Any]:
    """Report on all cells of a device. Without `as_json`, the comparison is printed on stdout."""
    documents = {
        label: report_outcome(f"{command}: {label}" if isinstance(outcome, OfaError) else command, outcome)
        for label, outcome in found.outcomes.items()
    }
    if found.matrix:
        labels = {one.table.name: label for label, one in found.profiles.items()}
        missing = (row.table for row in found.matrix if row.reason is not None)
        labels |= dict(zip(missing, found.errors, strict=True))
        bases = dict.fromkeys(labels[row.base] for row in found.matrix if row.base)
        say(f"{found.path}: what each kind of op gains over {' and '.join(bases)}")
        if not as_json:
            for line in matrix_lines(found.matrix, labels):
                print(line)
    rows = [asdict(row) for row in found.matrix]
    mixed = {pair: _report_mixed(command, each, pair) for pair, each in found.pairs.items()}
    has_one_pair = found.outcomes.keys() <= {"fp32", "int8"}  # a list of precisions alone
    return {
        "cells": documents,
        "mixed": next(iter(mixed.values()), None) if has_one_pair else mixed or None,
        "matrix": str(found.path) if rows else None,
        "rows": rows,
    }


def _report_mixed(command: str, mixed: MixedCalibration | OfaError, pair: str) -> dict[str, Any]:
    if isinstance(mixed, OfaError):
        say(f"{command}: {pair}: networks in mixed precision are not calibrated: {' '.join(str(mixed).split())}")
        return {"error": str(mixed), "exit_code": mixed.exit_code}
    validation = mixed.verification.validation() if mixed.verification.usable else None
    if validation is not None:
        count = validation["subnets"]
        say(f"predictions are off by {validation['mape']:.1%} on average, for {count} networks in mixed precision")
    return {"validation": validation}
