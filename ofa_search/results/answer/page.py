"""The answer of a search as a page: the front, the networks that were found, and what surrounds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from ofa_profiler.base.units import format_bytes, format_count
from ofa_profiler.pages import charts
from ofa_profiler.pages.charts import Points
from ofa_profiler.pages.page import Folded, Grid, Page, Section
from ofa_search.results.answer.answer import TABLES, Answer
from ofa_search.results.answer.changes import UNKNOWN
from ofa_search.results.answer.network import network_sections
from ofa_search.results.found import Found
from ofa_search.searching.around import Network, undominated

#: A page tells about at most so many networks in detail.
DETAILED = 24


def answer_page(answers: Sequence[Answer]) -> Page:
    """The page about networks of one search, which have the same tables."""
    first = answers[0]
    space = first.found.result.architecture.space
    if len(answers) == 1:
        sections = [*_front(answers), *network_sections(first)]
        return Page(f"{space} for {first.budget}", _facts(first), sections)
    told = _spread(answers, DETAILED)
    folded = [Folded(_headline(each), _facts(each), list(network_sections(each))) for each in told]
    facts = {"networks": f"{len(answers)}, one for each budget on {first.table}", "search": _search_words(answers)}
    if len(told) < len(answers):
        facts["in detail"] = f"{len(told)} of them, below"
    return Page(f"{len(answers)} networks of {space}", facts, [*_front(answers), _found(answers), *folded])


def _spread(answers: Sequence[Answer], most: int) -> list[Answer]:
    """At most so many, evenly from the first to the last."""
    if len(answers) <= most:
        return list(answers)
    return [answers[round(i * (len(answers) - 1) / (most - 1))] for i in range(most)]


# --- facts -----------------------------------------------------------------------------------------------


def _headline(answer: Answer) -> str:
    result = answer.found.result
    ms = f"{result.latency_ms[answer.table]:.4g} ms"
    return f"{answer.budget}: {_quality(answer)}, {ms}"


def _quality(answer: Answer) -> str:
    accuracy = answer.found.result.predicted_accuracy
    return format_count(answer.found.result.macs) + " MACs" if accuracy is None else f"{accuracy:.2%}"


def _facts(answer: Answer) -> dict[str, str]:
    found, result = answer.found, answer.found.result
    facts = {"network": f"{result.architecture.space} at {result.architecture.resolution} pixels, {found.precision}"}
    if result.predicted_accuracy is not None:
        facts["accuracy"] = f"{result.predicted_accuracy:.2%} predicted"
    if len(result.latency_ms) == 1:
        facts["table"] = answer.table
    facts |= {f"latency{answer.on(name)}": _latency_words(found, name) for name in result.latency_ms}
    facts["could be better by"] = _gap_words(found)
    facts["MACs"], facts["parameters"] = format_count(result.macs), format_count(result.params)
    facts |= {"files": _file_words(found)} if found.size_bytes else {}
    facts["weights"] = found.source.status
    facts["search"] = _search_words([answer])
    return facts


def _gap_words(found: Found) -> str:
    result = found.result
    if result.gap is None:
        return f"unknown: {result.no_bound}" if result.no_bound else "unknown"
    unit = f" {found.objective.name}" if result.predicted_accuracy is None and not result.is_optimal else ""
    return f"{result.gap_text}{unit}"


def _latency_words(found: Found, name: str) -> str:
    result = found.result
    predicted, budget = f"{result.latency_ms[name]:.4g} ms predicted", f"of {result.budget_ms[name]:g} ms"
    measured = (found.measured_latency_ms or {}).get(name)
    words = f"{predicted} {budget}" if measured is None else f"{measured:.4g} ms measured {budget}; {predicted}"
    ends = result.latency_interval_ms.get(name)
    if ends is not None:
        words += f"; {100 * result.interval_level:g}% of such networks take {ends[0]:.4g} to {ends[1]:.4g} ms"
    return words


def _file_words(found: Found) -> str:
    memory = found.memory_bytes
    return ", ".join(
        f"{found.files[kind].name} ({format_bytes(size)}"
        f"{f', {format_bytes(memory[kind])} in memory' if kind in memory else ''})"
        for kind, size in found.size_bytes.items()
    )


def _search_words(answers: Sequence[Answer]) -> str:
    results = [each.found.result for each in answers]
    first = results[0]
    scored, seconds = sum(r.evaluations for r in results), sum(r.search_seconds for r in results)
    name = answers[0].found.objective.name
    return f"highest {name}: {first.engine}, seed {first.seed}, {scored} architectures in {seconds:.2f} s"


# --- the front -------------------------------------------------------------------------------------------


def _front(answers: Sequence[Answer]) -> Iterator[Section]:
    first = answers[0]
    if not first.around.knows_scores:
        return
    table, answer = first.table, first.around.answer
    if len(answers) > 1:
        curve, how = [each.around.answer for each in answers], "The line joins the networks that were found."
    else:
        curve = undominated([*first.around.front, answer], table)
        how = (
            "The star is the network that was found. The line is what quick searches find for other budgets; a full "
            "search of one may find a little more. The dotted line is the budget"
            f"{', corrected by what the prediction was off' if first.found.measured_latency_ms else ''}."
        )
    uniform = {name: each for name, each in first.around.uniform.items() if math.isfinite(each.latency_ms[table])}
    is_accuracy = answer.predicted_accuracy is not None
    objective = first.found.objective.name
    figure = charts.front(
        _points("other budgets" if len(answers) == 1 else "front", curve, table),
        _points("found", [each.around.answer for each in answers], table),
        Points(
            "same choice everywhere",
            [each.latency_ms[table] for each in uniform.values()],
            [_height(each) for each in uniform.values()],
            [f"{name}: {_point_words(each, table)}" for name, each in uniform.items()],
        ),
        "predicted latency (ms)",
        "predicted accuracy (%)" if is_accuracy else objective,
        first.limit_ms if len(answers) == 1 else None,
    )
    yield Section(f"{objective[0].upper()}{objective[1:]} and latency{first.on(table)}", how, figure)
    yield _uniform(answers, uniform)


def _points(name: str, networks: Sequence[Network], table: str) -> Points:
    return Points(
        name,
        [each.latency_ms[table] for each in networks],
        [_height(each) for each in networks],
        [_point_words(each, table) for each in networks],
    )


def _height(network: Network) -> float:
    """Where a network stands in the chart: percents of accuracy, or the score itself."""
    return network.score or 0.0 if network.predicted_accuracy is None else 100 * network.predicted_accuracy


def _point_words(network: Network, table: str) -> str:
    return f"{network.latency_ms[table]:.4g} ms, {_network_quality(network)}"


def _network_quality(network: Network) -> str:
    if network.predicted_accuracy is not None:
        return f"{network.predicted_accuracy:.2%}"
    return UNKNOWN if network.score is None else format_count(network.score)


def _uniform(answers: Sequence[Answer], uniform: Mapping[str, Network]) -> Section:
    answer, is_single = answers[0], len(answers) == 1
    rows = [
        (
            name,
            *(f"{ms:.4g}" for ms in list(each.latency_ms.values())[:TABLES]),
            _network_quality(each),
            *(["kept" if each.keeps_limits else "not kept"] if is_single else []),
        )
        for name, each in {**({"found": answer.around.answer} if is_single else {}), **uniform}.items()
    ]
    names = list(answer.around.answer.latency_ms)[:TABLES]
    latency = ["latency (ms)"] if len(names) == 1 else [f"ms on {name}" for name in names]
    return Section(
        "Networks with the same choice everywhere",
        "The smallest, the middle and the largest value of every choice of the space, as predicted.",
        Grid(("network", *latency, answer.found.objective.name, *(["limits"] if is_single else [])), rows),
    )


def _found(answers: Sequence[Answer]) -> Section:
    rows = [
        (
            each.budget,
            f"{each.found.result.latency_ms[each.table]:.4g}",
            _quality(each),
            format_count(each.found.result.macs),
            str(each.found.result.architecture.resolution),
        )
        for each in answers
    ]
    columns = ("budget", "latency (ms)", answers[0].found.objective.name, "MACs", "pixels")
    return Section("The networks", "One for each budget. Open the lines below for more.", Grid(columns, rows))
