"""The sections of a page about one network: its drawing, where its time goes, and what changes would do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ofa_profiler.pages import charts
from ofa_profiler.pages.charts import Part, Points
from ofa_profiler.pages.page import Drawing, Folded, Grid, Section
from ofa_profiler.tables.shares import ONCE, Share, shares_of
from ofa_search.results.answer.answer import TABLES, Answer
from ofa_search.results.answer.blocks import network_drawing, stage_of
from ofa_search.results.answer.changes import (
    UNKNOWN,
    limits_words,
    ms_words,
    saved_per_loss,
    score_words,
    value_words,
)
from ofa_search.searching.around import Change

#: How many changes the tables of both directions list.
CHANGES = 6
#: Points of a measured latency within this of the prediction are between the dotted lines.
_BAND = 0.05


def network_sections(answer: Answer) -> Iterator[Section | Folded]:
    """All of them."""
    architecture, around = answer.found.result.architecture, answer.around
    shares = {table.name: shares_of(table, architecture) for table in around.tables[:TABLES]}
    first = shares[answer.table] or ()
    slot_ms = {share.name: share.ms for share in first if share.op is not None}
    says = "From top to bottom. Shapes are as wide as the block has channels: coming in, inside, going out. "
    says += "An arc is an input that is added to the output. SE is squeeze-and-excitation."
    yield Section("The network", says, Drawing(network_drawing(around.problem.space, architecture, slot_ms)))
    yield from _measured(answer)
    for name, own in shares.items():
        yield from _where(answer.on(name), own)
    yield from _changes(answer)


def _where(place: str, shares: Sequence[Share] | None) -> Iterator[Section]:
    if not shares:
        return
    total = sum(share.ms for share in shares)
    once = "".join(f", of them {share.ms:.3g} ms once per network" for share in shares if share.name == ONCE)
    listed = [share for share in shares if share.name != ONCE]
    parts = [Part(share.name, share.ms, _group(share), f"{share.name}: {share.ms:.4g} ms") for share in listed]
    figure = charts.bars(parts, "ms")
    figure.update_layout(showlegend=False)  # the rows say their stage
    yield Section(
        f"Where the time goes{place}",
        f"Predicted milliseconds of each block, in the order of execution; together {total:.4g} ms{once}.",
        figure,
        n_rows=len(parts),
    )


def _group(share: Share) -> str:
    if share.op is None:
        return "changes of precision"
    return stage_of(share.name) or "other"


def _measured(answer: Answer) -> Iterator[Section]:
    networks = answer.found.finalists or ((answer.found,) if answer.found.measured_latency_ms else ())
    name = answer.table
    pairs = [(each, ms) for each in networks if (ms := (each.measured_latency_ms or {}).get(name)) is not None]
    if not pairs:
        return
    mine = answer.found.result.architecture
    rows = [
        (
            f"{number}{' (found)' if each.result.architecture == mine else ''}",
            f"{each.result.latency_ms[name]:.4g}",
            f"{ms:.4g}",
            f"{each.result.latency_ms[name] / ms - 1:+.1%}",
            UNKNOWN if each.result.predicted_accuracy is None else f"{each.result.predicted_accuracy:.2%}",
        )
        for number, (each, ms) in enumerate(pairs, 1)
    ]
    says = f"The networks that were measured for the budget of {answer.budget}."
    columns = ("network", "predicted (ms)", "measured (ms)", "off by", "accuracy")
    yield Section("Measured and predicted", says, Grid(columns, rows))
    if len(pairs) > 1:
        points = Points(
            "networks",
            [ms for _, ms in pairs],
            [each.result.latency_ms[name] for each, _ in pairs],
            [f"network {i}" for i, _ in enumerate(pairs, 1)],
        )
        figure = charts.agreement([points], "measured latency (ms)", "predicted latency (ms)", band=_BAND)
        yield Section("", "", figure)


# --- changes ---------------------------------------------------------------------------------------------


def _changes(answer: Answer) -> Iterator[Section | Folded]:
    changes = [each for each in answer.around.changes if math.isfinite(each.latency_change_ms[answer.table])]
    if not changes:
        return
    objective = answer.found.objective.name
    if answer.around.knows_scores:
        yield _cloud(answer, changes)
        gains = [each for each in changes if (each.score_change or 0.0) > 0][:CHANGES]
        savers = sorted(changes, key=lambda each: -saved_per_loss(each, answer.table))[:CHANGES]
        savers = [each for each in savers if saved_per_loss(each, answer.table) > 0]
        if gains:
            yield Section(f"Changes that gain most {objective}", "The best first.", _grid(gains, objective))
        if savers:
            says = f"Those that save most milliseconds for what they lose in {objective} first."
            yield Section("Changes that save time", says, _grid(savers, objective))
        yield Folded(f"All {len(changes)} changes", {}, [Section("", "", _grid(changes, objective))])
    else:
        says = "What is maximised was not evaluated for these networks."
        yield Section("What each change of one choice would do", says, _grid(changes[:CHANGES], objective))


def _cloud(answer: Answer, changes: Sequence[Change]) -> Section:
    table, objective = answer.table, answer.found.objective.name
    xs, ys = [each.latency_change_ms[table] for each in changes], [_rise(each) for each in changes]
    ranges = charts.usual_range(xs), charts.usual_range(ys)
    outside = [
        f"{each.choice} {value_words(each)} ({score_words(each)}, {ms_words(each.latency_change_ms[table])})"
        for each, *place in zip(changes, xs, ys, strict=True)
        if not all(low <= value <= high for value, (low, high) in zip(place, ranges, strict=True))
    ]
    says = (
        f"Each point is the network with one other choice: at the left it is faster, at the top its score "
        f"({objective}) is higher. A block that is added has the first option of its choices."
    )
    if outside:
        says += f" Outside of the chart: {', '.join(outside)}."
    is_accuracy = answer.found.result.predicted_accuracy is not None
    figure = charts.around_zero(
        _by_kind(changes, table),
        "change of latency (ms)",
        "change of accuracy (points)" if is_accuracy else f"change of {objective}",
        ranges,
    )
    return Section(f"What each change of one choice would do{answer.on(table)}", says, figure)


def _grid(changes: Sequence[Change], objective: str) -> Grid:
    rows = [(each.choice, value_words(each), score_words(each), _all_ms(each), limits_words(each)) for each in changes]
    return Grid(("choice", "change", objective, "latency", "limits"), rows)


def _all_ms(change: Change) -> str:
    return ", ".join(map(ms_words, list(change.latency_change_ms.values())[:TABLES]))


def _by_kind(changes: Sequence[Change], table: str) -> list[Points]:
    kinds: dict[str, list[Change]] = {}
    for change in changes:
        kinds.setdefault(change.choice.rpartition(".")[2].replace("_", " "), []).append(change)
    return [
        Points(
            kind,
            [each.latency_change_ms[table] for each in members],
            [_rise(each) for each in members],
            [f"{each.choice} {value_words(each)}: {score_words(each)}, {_all_ms(each)}" for each in members],
        )
        for kind, members in kinds.items()
    ]


def _rise(change: Change) -> float:
    """Where a change stands in the chart: points of accuracy, or the score itself."""
    if change.accuracy_change is not None:
        return 100 * change.accuracy_change
    return change.score_change or 0.0
