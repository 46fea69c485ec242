"""The page and the files of a comparison of tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.base.files import replacing, write_text
from ofa_profiler.pages import charts
from ofa_profiler.pages.charts import Part, Points
from ofa_profiler.pages.page import Page, Section, can_write_pages, page_html
from ofa_profiler.tables.compare import PairComparison, TableComparison
from ofa_profiler.tables.compare_groups import OpRatio
from ofa_profiler.tables.compare_text import comparison_csv

CSV_NAME, PAGE_NAME = "compare.csv", "compare.html"


def save_comparison(comparison: TableComparison, folder: Path) -> list[Path]:
    """Write `compare.csv`, and `compare.html` if plotly is installed, both or none -> their paths.

    Raises `UsageError` if a file cannot be written.
    """
    table, page = folder / CSV_NAME, folder / PAGE_NAME
    text = comparison_csv(comparison)
    if not can_write_pages():
        write_text(table, text)
        page.unlink(missing_ok=True)  # it would be that of another comparison
        return [table]
    html = page_html(comparison_page(comparison))
    with replacing(page) as new_page:
        new_page.write_text(html, encoding="utf-8")
        with replacing(table) as new_table:
            new_table.write_text(text, encoding="utf-8", newline="\n")
            page.unlink(missing_ok=True)
    return [table, page]


def comparison_page(comparison: TableComparison) -> Page:
    """The ratios of all ops, and of their kinds."""
    facts: dict[str, str] = {"base": comparison.base}
    sections = []
    for pair in comparison.pairs:
        facts[pair.table] = f"factor {pair.factor:.3f}, spread {pair.spread:.1%}, {len(pair.ops)} ops"
        for setting in pair.settings:
            facts[f"{pair.table}: {setting.name}"] = f"{setting.base} -> {setting.table}"
        for form in pair.forms:
            facts[f"{pair.table}: form of {form.group}"] = f"{form.base} -> {form.table}"
        sections += [_ops(pair), _kinds(pair)]
    return Page(f"Tables against {comparison.base}", facts, sections)


def _ops(pair: PairComparison) -> Section:
    kinds = dict.fromkeys(op.kind for op in pair.ops)
    series = [_points(kind, [op for op in pair.ops if op.kind == kind]) for kind in kinds]
    marked = _points("stands out", pair.outliers)
    figure = charts.scatter(
        series, "base (ms)", "ratio without the common factor", log_x=True, log_y=True, marked=marked
    )
    return Section(f"{pair.table}: ops", "Above 1: slower than the common factor explains.", figure)


def _points(name: str, ops: Sequence[OpRatio]) -> Points:
    return Points(name, [op.base_ms for op in ops], [op.ratio_without_factor for op in ops], [op.op for op in ops])


def _kinds(pair: PairComparison) -> Section:
    parts = [
        Part(group.label, 100 * (group.ratio_without_factor - 1), group.kind, f"{group.label}: {group.count} ops")
        for group in pair.groups
        if group.count > 1
    ]
    figure = charts.bars(parts, "slower than the common factor (%)")
    return Section(f"{pair.table}: kinds", "The median of the ops of each kind.", figure, n_rows=len(parts))
