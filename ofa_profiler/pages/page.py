"""A report: facts, charts and tables on one HTML page, which contains all it needs.

The library for charts (plotly) is optional, and imported only when a page is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.base.files import write_text
from ofa_profiler.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NOT_INSTALLED = "a report needs plotly, which is not installed: pip install 'ofa-profiler[report]'"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 0; } p { margin: 0.2rem 0; }
table { border-collapse: collapse; margin: 1rem 0; } td { padding: 0.1rem 1.5rem 0.1rem 0; vertical-align: top; }
h1, p, td { overflow-wrap: anywhere; } .facts td:first-child { color: #555; white-space: nowrap; }
.drawing { display: block; width: 100%; max-width: 30rem; margin-top: 0.6rem; }
details { margin-top: 1rem; border-top: 1px solid #ddd; }
summary { cursor: pointer; padding: 0.6rem 0; color: #2a52a0; }
.chart { height: 26rem; } .grid { width: 100%; font-size: 0.9rem; } .grid th { text-align: left; color: #555; }
.grid th, .grid td { padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid #ddd; font-weight: normal; }
.grid td:not(:first-child) { overflow-wrap: normal; } .grid td:first-child { min-width: 14rem; }
@media (max-width: 45rem) {
  .facts td { padding-right: 0.6rem; } .facts td:first-child { white-space: normal; width: 7rem; }
  .grid thead { display: none; } .grid tr { display: block; border-bottom: 1px solid #bbb; padding: 0.4rem 0; }
  .grid td { display: inline-block; border: 0; padding: 0 0.8rem 0 0; overflow-wrap: anywhere !important; }
  .grid td:first-child { display: block; font-weight: 600; }
  .grid td:not(:first-child)::before { content: attr(data-name) ": "; color: #555; }
}
"""
#: Height of a chart with a row per part, and of what surrounds the rows.
_ROW_PX, _FRAME_PX = 22, 110
#: The page may run its own script and nothing else, and may load nothing.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_DRAW = """
function draw(data) {
  const figure = JSON.parse(data.textContent);
  if (innerWidth < 700) {  // a legend beside a chart takes most of a narrow screen
    figure.layout.legend = {...figure.layout.legend, orientation: 'h', yref: 'container', y: 0, yanchor: 'bottom'};
    figure.layout.margin = {...figure.layout.margin, l: Math.min(figure.layout.margin.l, 50), r: 5, b: 60};
    const rows = figure.layout.yaxis;  // long labels too; their ends tell most
    if (rows && rows.ticktext) rows.ticktext = rows.ticktext.map(t => t.length > 28 ? '\\u2026' + t.slice(-27) : t);
  }
  Plotly.newPlot(data.dataset.chart, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
for (const data of document.querySelectorAll('script[type="application/json"]')) {
  const closed = data.closest('details');  // what is not shown has no size
  if (closed) closed.addEventListener('toggle', () => draw(data), {once: true}); else draw(data);
}
"""


@dataclass(frozen=True)
class Grid:
    """A table of texts. The first column names the rows. On a narrow screen, each row becomes a paragraph."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Drawing:
    """An SVG element, with escaped texts (`drawings.py`)."""

    svg: str


@dataclass(frozen=True)
class Section:
    """A chart, a table or a drawing. `says` is a sentence on what to see in it.

    `n_rows`: the chart has so many rows of text, and its height follows from them.
    """

    title: str
    says: str
    figure: Figure | Grid | Drawing
    n_rows: int | None = None


@dataclass(frozen=True)
class Folded:
    """Facts and sections behind a line that opens them."""

    title: str
    facts: Mapping[str, str]
    sections: Sequence[Section | Folded]


@dataclass(frozen=True)
class Page:
    """A report. `facts` maps names to values, as texts."""

    title: str
    facts: Mapping[str, str]
    sections: Sequence[Section | Folded]


def can_write_pages() -> bool:
    """Whether the library for charts is installed; found out without importing it."""
    return find_spec("plotly") is not None


def write_page(page: Page, path: Path) -> None:
    """Write `page` to `path`, completely or not at all. Raises `UsageError` if that is impossible."""
    if not can_write_pages():
        raise UsageError(NOT_INSTALLED)
    write_text(path, page_html(page))


def page_html(page: Page) -> str:
    """The page. Texts are escaped, so they can come from files and devices."""
    from plotly.offline import get_plotlyjs

    names = (f"chart{number}" for number in count())
    sections = "".join(_part(names, part) for part in page.sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(page.title)}</h1>\n{_facts(page.facts)}{sections}"
        f"<script>{get_plotlyjs()}</script>\n<script>{_DRAW}</script></body></html>\n"
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f'<table class="facts">{rows}</table>\n' if rows else ""


def _part(names: Iterator[str], part: Section | Folded) -> str:
    if isinstance(part, Section):
        return _section(next(names), part)
    sections = "".join(_part(names, each) for each in part.sections)
    return f"<details><summary>{escape(part.title)}</summary>{_facts(part.facts)}{sections}</details>\n"


def _section(name: str, section: Section) -> str:
    head = f"<h2>{escape(section.title)}</h2><p>{escape(section.says)}</p>" if section.title else ""
    if isinstance(section.figure, Grid):
        return head + _grid(section.figure)
    if isinstance(section.figure, Drawing):
        return f"{head}{section.figure.svg}\n"
    height = "" if section.n_rows is None else f' style="height: {_ROW_PX * section.n_rows + _FRAME_PX}px"'
    # A text in the data could end the script element.
    data = json.dumps(json.loads(section.figure.to_json())).replace("<", "\\u003c")
    return (
        f'{head}<div class="chart" id="{name}"{height}></div>'
        f'<script type="application/json" data-chart="{name}">{data}</script>\n'
    )


def _grid(grid: Grid) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in grid.columns)
    rows = "".join(f"<tr>{''.join(map(_cell, grid.columns, row))}</tr>" for row in grid.rows)
    return f'<table class="grid"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>\n'


def _cell(column: str, text: str) -> str:
    # Long paths break at their slashes.
    return f'<td data-name="{escape(column)}">{escape(text).replace("/", "/<wbr>")}</td>'
