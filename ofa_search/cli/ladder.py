"""`ofa-search --ladder`: a family of networks, each better than the last, between which a program can switch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.base.units import parse_duration_ms
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import UsageError
from ofa_profiler.tables.mixed import AnyTable
from ofa_search.results.found import Found


def add_ladder_option(group: argparse._ArgumentGroup) -> None:
    """Add `--ladder`."""
    group.add_argument(
        "--ladder",
        metavar="T,T…",
        help="budgets instead of the first --budget, for example 10ms,20ms,30ms: a family of networks, each better "
        "than the last, which ofa_search.ladder switches between under load",
    )


def ladder_ms(text: str) -> list[float]:
    """The budgets of `--ladder` from tight to loose, each once. Raises `UsageError`."""
    parts = [part.strip() for part in text.split(",")]
    budgets = sorted({parse_duration_ms(part, "--ladder") for part in parts}) if all(parts) else []
    if len(budgets) < 2:
        raise UsageError(f"--ladder {text!r:.60}: give two different budgets or more, for example 10ms,20ms,30ms")
    return budgets


def only_rungs(found: list[Found], table: AnyTable) -> list[Found]:
    """The networks that are rungs of a ladder; says how many are not."""
    from ofa_search.results.ladder import rungs_of

    rungs = rungs_of(found, table.name)
    if fewer := len(found) - len(rungs):
        say(f"note: {fewer} of {len(found)} budgets give no rung, as a network that is no slower is as good")
    return rungs


def finish_ladder(out: Path | None, found: list[Found], table: AnyTable) -> list[Found]:
    """The rungs, of which some may not be after measuring. Writes `ladder.json`, if files are wanted."""
    rungs = only_rungs(found, table)
    if out is None:
        return rungs
    from ofa_search.results.files import write_summary  # with all exporters
    from ofa_search.results.ladder import write_ladder

    if len(rungs) < len(found):
        _remove_others(found, rungs)
        write_summary(out, rungs)
    say(f"ladder with {len(rungs)} rung{'s' * (len(rungs) != 1)}: {write_ladder(out, rungs, table)}")
    return rungs


def _remove_others(found: Sequence[Found], rungs: Sequence[Found]) -> None:
    """Remove the files, which this search has written, of networks that are no rungs."""
    kept = {path for network in rungs for path in network.files.values()}
    for path in {path for network in found for path in network.files.values()} - kept:
        path.unlink(missing_ok=True)
