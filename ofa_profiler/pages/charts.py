"""Charts from plain numbers: a function each, which returns a figure of plotly.

Labels come from files and devices, so they are escaped: plotly reads a few HTML elements in labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_GREY, _RED = "#999", "#c00"
#: Colours of groups, the largest first; those of the groups beyond them all are grey.
_COLOURS = ("#3366cc", "#dc7633", "#2e8b57", "#8e44ad", "#b7950b", "#16a2b8", "#c2528b", "#6d4c41", "#607d8b")


@dataclass(frozen=True)
class Points:
    """Points of one colour: coordinates, and a label for each, which shows under the pointer."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str]


@dataclass(frozen=True)
class Part:
    """A part of a whole: what it is called, its size, what it is coloured by, and what shows under the pointer."""

    label: str
    value: float
    group: str
    hint: str


def scatter(
    series: Sequence[Points],
    x_title: str,
    y_title: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    marked: Points | None = None,
) -> Figure:
    """Points on linear or logarithmic axes. Those that are `marked` too have a red ring."""
    from plotly import graph_objects

    figure = _figure(x_title, y_title)
    for i, points in enumerate(series):
        figure.add_trace(
            graph_objects.Scatter(
                x=list(points.x),
                y=list(points.y),
                text=[escape(label) for label in points.labels],
                name=escape(points.name),
                mode="markers",
                marker={"size": 7, "symbol": i % 8, "opacity": 0.75},
            )
        )
    if marked is not None and len(marked.x):
        figure.add_trace(
            graph_objects.Scatter(
                x=list(marked.x),
                y=list(marked.y),
                text=[escape(label) for label in marked.labels],
                name=escape(marked.name),
                mode="markers",
                marker={"size": 15, "symbol": "circle-open", "color": _RED, "line": {"width": 2}},
            )
        )
    if log_x:
        figure.update_xaxes(type="log", dtick="D2")
    if log_y:
        figure.update_yaxes(type="log", dtick="D2")
    return figure


def front(curve: Points, found: Points, others: Points, x_title: str, y_title: str, limit: float | None) -> Figure:
    """A line through the points of the curve, those that were found as stars, and others with their names below them.

    A dotted line stands at the `limit` of x.
    """
    from plotly import graph_objects

    figure = _figure(x_title, y_title)
    shapes = ((curve, "lines+markers", "circle", _COLOURS[0], 7), (others, "markers", "diamond", "#666", 9))
    for points, mode, symbol, colour, size in (*shapes, (found, "markers", "star", _RED, 14)):
        figure.add_trace(
            graph_objects.Scatter(
                x=list(points.x),
                y=list(points.y),
                hovertext=[escape(label) for label in points.labels],
                hoverinfo="text",
                name=escape(points.name),
                mode=mode,
                marker={"size": size, "symbol": symbol, "color": colour},
                line={"color": colour, "width": 1.5},
            )
        )
    xs = [*curve.x, *found.x, *others.x, *([] if limit is None else [limit])]
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    figure.update_xaxes(range=[low - margin, high + margin])
    ys = [*curve.y, *found.y, *others.y] or [0.0, 1.0]
    margin = 0.12 * (max(ys) - min(ys)) or 0.1 * abs(max(ys)) or 1.0
    figure.update_yaxes(range=[min(ys) - margin, max(ys) + margin])
    _label_points(figure, others, (low, high))
    if limit is not None:
        figure.add_vline(x=limit, line={"color": _GREY, "width": 1.5, "dash": "dot"})
    return figure


#: Where the name of a point stands, in pixels below it; the next one if it is close to another named one.
_SHIFTS = (14, -14, 28, -28)


def _label_points(figure: Figure, points: Points, x_range: tuple[float, float]) -> None:
    """Names of points, each once: labels up to a colon or comma, towards the side where there is more room."""
    span_y = (max(points.y) - min(points.y) if points.y else 0.0) or 1.0
    named: list[tuple[str, float, float]] = []
    for x, y, label in zip(points.x, points.y, points.labels, strict=True):
        name = label.partition(":")[0].partition(",")[0]
        if any(name == other for other, _, _ in named):
            continue
        near = [abs(x - a) < 0.3 * (x_range[1] - x_range[0]) and abs(y - b) < 0.12 * span_y for _, a, b in named]
        anchor, shift = ("left", -6) if x < sum(x_range) / 2 else ("right", 6)
        place = {"x": x, "y": y, "xanchor": anchor, "xshift": shift, "yshift": -_SHIFTS[sum(near) % len(_SHIFTS)]}
        figure.add_annotation(text=escape(name), showarrow=False, font={"size": 11}, **place)
        named.append((name, x, y))


def agreement(series: Sequence[Points], x_title: str, y_title: str, *, band: float) -> Figure:
    """`scatter` with the diagonal, and lines for y = (1 +- `band`) x."""
    figure = scatter(series, x_title, y_title)
    limit = 1.05 * max((float(np.max(values)) for points in series for values in (points.x, points.y)), default=1.0)
    for factor, dash in ((1 - band, "dot"), (1.0, "solid"), (1 + band, "dot")):
        name = "equal" if factor == 1 else f"{factor - 1:+.0%}"
        _add_line(figure, [0.0, limit], [0.0, factor * limit], name, dash)
    figure.update_xaxes(range=[0, limit])
    figure.update_yaxes(range=[0, limit])
    return figure


def around_zero(
    series: Sequence[Points], x_title: str, y_title: str, ranges: tuple[tuple[float, float], tuple[float, float]]
) -> Figure:
    """`scatter` with both axes through zero, of these ranges."""
    figure = scatter(series, x_title, y_title)
    figure.update_xaxes(zeroline=True, zerolinecolor=_GREY, range=ranges[0])
    figure.update_yaxes(zeroline=True, zerolinecolor=_GREY, range=ranges[1])
    return figure


def usual_range(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """A range with 0 and all values but this `share` at each end, if these are far off."""
    found = np.array([0.0, *values])
    low, high = (float(np.quantile(found, quantile)) for quantile in (share, 1 - share))
    low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.5 * (high - low) or 1.0
    low = low - margin if found.min() < low - margin else float(found.min()) - 0.2 * margin
    high = high + margin if found.max() > high + margin else float(found.max()) + 0.2 * margin
    return low, high


def over_time(points: Points, x_title: str, y_title: str) -> Figure:
    """`scatter` of one series around 0. The axis leaves out the 1% of the points that are the farthest off."""
    figure = scatter([points], x_title, y_title)
    if len(points.y):
        limit = max(5.0, 1.5 * float(np.quantile(np.abs(points.y), 0.99)))
        figure.update_yaxes(range=[-limit, limit], zeroline=True, zerolinecolor=_GREY)
    figure.update_traces(marker={"size": 4})
    return figure


def boxes(groups: Mapping[str, Sequence[float]], x_title: str, y_title: str) -> Figure:
    """A box with all points per group."""
    from plotly import graph_objects

    figure = _figure(x_title, y_title)
    for name, values in groups.items():
        figure.add_trace(
            graph_objects.Box(y=list(values), name=escape(name), boxpoints="all", jitter=0.4, showlegend=False)
        )
    figure.update_yaxes(zeroline=True, zerolinecolor=_GREY)
    return figure


def roofline(
    series: Sequence[Points],
    peak_y: float,
    slopes: Mapping[str, float],
    x_title: str,
    y_title: str,
    *,
    marked: Points | None = None,
) -> Figure:
    """`scatter` on logarithmic axes under roofs min(`peak_y`, slope x). `slopes` by name; the first line is solid."""
    figure = scatter(series, x_title, y_title, log_x=True, log_y=True, marked=marked)
    xs = [x for points in series for x in points.x]
    if xs:
        roof_x = np.geomspace(min(xs), max(xs), 50)
        for i, (name, slope) in enumerate(slopes.items()):
            dash = "dot" if i else "solid"
            _add_line(figure, list(roof_x), list(np.minimum(peak_y, slope * roof_x)), name, dash)
    return figure


def bars(parts: Sequence[Part], x_title: str) -> Figure:
    """A bar per part, in this order from the top, with its label and value. Groups have colours."""
    from plotly import graph_objects

    figure = _figure(x_title, "")
    for group, colour in _group_colours(parts).items():
        places = [i for i, part in enumerate(parts) if part.group == group]
        found = [parts[i] for i in places]
        figure.add_trace(
            graph_objects.Bar(
                y=places,
                x=[part.value for part in found],
                width=0.75,
                orientation="h",
                name=escape(group),
                text=[f"{part.value:.3g}" for part in found],
                textposition="outside",
                hovertext=[escape(part.hint) for part in found],
                hoverinfo="text",
                marker={"color": colour},
            )
        )
    values = [part.value for part in parts] or [1.0]
    low, high = min(0.0, *values), max(0.0, *values)
    # The values stand at the ends of the bars.
    room = (0.5 if low < 0 else 0.32) * (high - low)  # enough on a phone's screen
    figure.update_traces(textfont={"size": 10})
    figure.update_xaxes(range=[low - room if low < 0 else 0.0, high + room], side="top", zerolinecolor=_GREY)
    _label_rows(figure, [part.label for part in parts])
    return figure


def before_and_after(labels: Sequence[str], before: Sequence[float], after: Sequence[float], x_title: str) -> Figure:
    """A row per label, in this order from the top: what is left, in colour, in front of what there was, in grey."""
    from plotly import graph_objects

    figure = _figure(x_title, "")
    places = list(range(len(labels)))
    for name, values, colour, width in (("before", before, "#ccc", 0.8), ("after", after, _COLOURS[0], 0.45)):
        hints = [
            f"{escape(label)}: {one:g} before, {two:g} after"
            for label, one, two in zip(labels, before, after, strict=True)
        ]
        figure.add_trace(
            graph_objects.Bar(
                y=places,
                x=list(values),
                width=width,
                orientation="h",
                name=name,
                hovertext=hints,
                hoverinfo="text",
                marker={"color": colour},
            )
        )
    figure.update_xaxes(range=[0, 1.05 * max([1.0, *before, *after])], side="top")
    _label_rows(figure, labels)
    return figure


def _label_rows(figure: Figure, labels: Sequence[str]) -> None:
    """Rows from the top with a label each, under an axis of x."""
    ticks = {"tickvals": list(range(len(labels))), "ticktext": [escape(label) for label in labels]}
    gap = {"ticks": "outside", "ticklen": 5, "tickcolor": "#fff"}
    figure.update_layout(barmode="overlay", showlegend=True, margin={"t": 70, "b": 20})
    figure.update_yaxes(range=[len(labels) - 0.5, -0.5], automargin=True, tickfont={"size": 11}, **gap, **ticks)


def treemap(parts: Sequence[Part]) -> Figure:
    """A rectangle per group, which contains one per part; areas are values."""
    from plotly import graph_objects

    colours = _group_colours(parts)
    groups = list(colours)
    figure = _figure("", "")
    figure.add_trace(
        graph_objects.Treemap(
            ids=[*(f"group {i}" for i in range(len(groups))), *(f"part {i}" for i in range(len(parts)))],
            labels=[*map(escape, groups), *(escape(part.label) for part in parts)],
            parents=[*("" for _ in groups), *(f"group {groups.index(part.group)}" for part in parts)],
            values=[*(0 for _ in groups), *(part.value for part in parts)],
            marker={"colors": [*colours.values(), *(colours[part.group] for part in parts)]},
            hovertext=[*map(escape, groups), *(escape(part.hint) for part in parts)],
            hoverinfo="text+percent root",
            texttemplate="%{label}<br>%{percentRoot:.1%}",
            tiling={"pad": 1},
            pathbar={"visible": False},
        )
    )
    figure.update_layout(margin={"l": 0, "r": 0, "t": 10, "b": 0})
    return figure


def _group_colours(parts: Sequence[Part]) -> dict[str, str]:
    sizes: dict[str, float] = {}
    for part in parts:
        sizes[part.group] = sizes.get(part.group, 0.0) + part.value
    order = sorted(sizes, key=lambda group: -sizes[group])
    return {group: _COLOURS[i] if i < len(_COLOURS) else _GREY for i, group in enumerate(order)}


def _add_line(figure: Figure, x: Sequence[float], y: Sequence[float], name: str, dash: str) -> None:
    from plotly import graph_objects

    line: dict[str, Any] = {"color": _GREY, "width": 1.5, "dash": dash}
    figure.add_trace(graph_objects.Scatter(x=list(x), y=list(y), mode="lines", line=line, name=name, hoverinfo="skip"))


def _figure(x_title: str, y_title: str) -> Figure:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    figure.update_layout(
        template="plotly_white",
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        legend={"itemsizing": "constant"},
        font={"color": "#1a1a1a"},
    )
    figure.update_xaxes(title=escape(x_title))
    figure.update_yaxes(title=escape(y_title))
    return figure
