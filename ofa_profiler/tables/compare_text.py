"""The comparison of tables as lines for people, and as a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ofa_profiler.tables.compare import PairComparison, TableComparison
from ofa_profiler.tables.compare_groups import Group
from ofa_profiler.tables.compare_settings import DEVICE, REPEAT, SETTINGS, UNKNOWN, VERSION

#: How many ops and parts of kinds the lines name.
_OPS, _PARTS = 10, 8
_COLUMNS = (
    "table",
    "op",
    "kind",
    "resolution",
    "base_ms",
    "ms",
    "ratio",
    "ratio_without_factor",
    "noise",
    "differs",
    "significant",
    "worth_ms",
    "attributes",
)
_QUESTIONS = {
    REPEAT: "one device, the same settings",
    VERSION: "one device, other versions of the runtime",
    SETTINGS: "one device, other settings",
    DEVICE: "different devices",
    UNKNOWN: "a device is unknown",
}


def comparison_csv(comparison: TableComparison) -> str:
    """A row per table and op, in the order of the tables and of the ops of the base."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for pair in comparison.pairs:
        for op in pair.ops:
            writer.writerow([_cell(pair.table if name == "table" else getattr(op, name)) for name in _COLUMNS])
    return text.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def comparison_lines(comparison: TableComparison) -> Iterator[str]:
    """What a person reads: settings, common factor, agreement, kinds and outliers of every table."""
    for pair in comparison.pairs:
        yield f"{pair.table} against {pair.base}: {_QUESTIONS[pair.question]}"
        yield from _settings_lines(pair)
        yield from _whole_lines(pair)
        yield from _group_lines(pair.groups)
        yield from _outlier_lines(pair)


def _settings_lines(pair: PairComparison) -> Iterator[str]:
    for setting in pair.settings:
        values = [f"{value if value is not None else 'unknown':.60}" for value in (setting.base, setting.table)]
        yield f"  {setting.name:24} {values[0]} -> {values[1]}"
    for form in pair.forms:
        yield f"  form of {form.group}: {form.base} -> {form.table}"


def _whole_lines(pair: PairComparison) -> Iterator[str]:
    more = [
        f"{sum(pair.left_out)} rows without a measured time are left out ({pair.left_out[0]} + {pair.left_out[1]})"
        if any(pair.left_out)
        else "",
        f"{pair.only_in[0]} and {pair.only_in[1]} ops are in one table only" if any(pair.only_in) else "",
    ]
    yield "; ".join(filter(None, (f"  {len(pair.ops)} ops compared", *more)))
    yield f"  common factor {pair.factor:.3f} (median of the ratios), spread of the ops {pair.spread:.1%}"
    one, two = pair.whole_ms
    verdict = "more than" if pair.whole_differs else "within"
    yield f"  whole {one:.4g} -> {two:.4g} ms ({two / one - 1:+.1%}): {verdict} the noise of {pair.whole_noise:.1%}"
    differ = f"{pair.differing} ops differ by more than their noise, and up to {pair.by_chance:.0f} can by chance"
    agree = ": the tables agree" if pair.agrees else ": the tables do not agree"
    yield f"  {differ}{agree if pair.question in (REPEAT, VERSION) else ''}"


def _group_lines(groups: tuple[Group, ...]) -> Iterator[str]:
    parts = sorted((g for g in groups if g.by and g.count > 2), key=lambda g: -abs(g.worth_ms))[:_PARTS]
    yield f"  {'kind':34}{'ops':>5}{'ratio*':>9}{'stand out':>11}{'worth ms':>10}"
    for group in groups:
        if not group.by or group in parts:
            label = f"{'  ' if group.by else ''}{group.label}"
            yield (
                f"  {label:34}{group.count:5}{group.ratio_without_factor:9.3f}"
                f"{group.significant:11}{group.worth_ms:+10.3g}"
            )
    yield "  * without the common factor"


def _outlier_lines(pair: PairComparison) -> Iterator[str]:
    outliers = pair.outliers
    if not outliers:
        yield "  no op stands out from the common factor"
        return
    more = f", the {_OPS} that are worth the most" if len(outliers) > _OPS else ""
    yield f"  {len(outliers)} ops stand out from the common factor, by more than noise and spread{more}:"
    for op in outliers[:_OPS]:
        at = f" at {op.resolution}" if op.resolution is not None else ""
        yield f"  {op.worth_ms:+9.3g} ms  {op.ratio_without_factor:6.3f}*  {op.op}{at}"
