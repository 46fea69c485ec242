"""What `ofa-profile --model` says about a table: lines on stderr, and a part of the JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ofa_profiler.base.units import format_duration_ms
from ofa_profiler.cli.terminal import say
from ofa_profiler.tables.row import OK, Row
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.model_report import short_name

#: The number of blocks that are printed, the longest first.
_SHOWN = 8
#: The number of changes that are printed.
_CHANGES = 3
#: From here on, the difference between the sum of the blocks and the network needs a reason.
_LARGEST_DIFFERENCE = 0.1
_LONGEST_NAME = 60


def report_model(table: LatencyTable) -> dict[str, Any]:
    """Say where the time goes -> the same for a JSON document."""
    for line in _lines(table):
        say(line)
    names = ("model", "whole_ms", "sum_ms", "whole", "runtime_profile", "what_if")
    found = {name: table.metadata.get(name) for name in names}
    if found["runtime_profile"] is not None:  # the table's JSON has all kernels
        found["runtime_profile"] = {k: v for k, v in found["runtime_profile"].items() if k != "kernels"}
    return found


def _lines(table: LatencyTable) -> Iterator[str]:
    about = table.metadata
    whole_ms, sum_ms, profile = about["whole_ms"], about.get("sum_ms"), about.get("runtime_profile")
    spread = about["whole"]
    yield (
        f"{about['model']['file']}: {format_duration_ms(whole_ms)} (80% of the runs took "
        f"{format_duration_ms(spread['p10_ms'])} to {format_duration_ms(spread['p90_ms'])})"
    )
    if len(table.rows) == 1:
        yield "it is one block: nothing of it can be measured alone"
    elif sum_ms is not None:
        blocks = f"{len(table.rows)} blocks, measured alone, add up to {format_duration_ms(sum_ms)}"
        yield f"{blocks}: {sum_ms / whole_ms - 1:+.1%}"
        if abs(sum_ms / whole_ms - 1) > _LARGEST_DIFFERENCE:
            yield "note: that is far off; weights that no cache holds, other programs or a short --time-limit can do it"
    elif failed := [row for row in table.rows if row.status != OK]:
        first = f"{failed[0].op}: {failed[0].error}"
        yield f"there is no sum, because {len(failed)} of {len(table.rows)} blocks failed; {first}"
    if profile:
        yield f"the blocks contain {profile['named_share']:.1%} of the time in the runtime's own profile"
    ok = [row for row in table.rows if row.status == OK and row.median_ms is not None]
    longest = sorted(ok, key=lambda row: -(row.median_ms or 0.0))[:_SHOWN]
    for row in longest if len(table.rows) > 1 else ():
        yield _row_line(row)
    yield from _what_if_lines(about.get("what_if"))


def _row_line(row: Row) -> str:
    share = float(row.extra.get("share") or 0.0)
    return f"  {share:6.1%}  {row.median_ms:9.4g} ms  {row.description.kind}  {short_name(row.op, _LONGEST_NAME)}"


def _what_if_lines(found: Any) -> Iterator[str]:
    """The changes that would save most."""
    if found is None:
        return
    saving = [each for each in found if each["saved_ms"] > each["noise_ms"]][:_CHANGES]
    if not saving:
        yield f"none of {len(found)} changes saves more than the noise" if found else "no change could be tried"
    for each in saving:
        share = each["saved_ms"] / each["before_ms"]
        yield f"what if: {each['change']} saves {each['saved_ms']:.3g} ms ± {each['noise_ms']:.2g} ms ({share:.1%})"
