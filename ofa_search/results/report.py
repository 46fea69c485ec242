"""The table and the messages that a search shows to people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ofa_profiler.base.units import format_bytes, format_count
from ofa_profiler.networks.ranges import CALIBRATED, MADE_UP, TABLE
from ofa_search.results.found import Found
from ofa_search.results.weight_source import WeightSource
from ofa_search.searching.functions.objective import FunctionObjective
from ofa_search.searching.objectives import Objective, PredictedAccuracy

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("budget\nms", "latency\nms", "measured\nms", "accuracy", "score", "MACs", "params", "pixels", "depths")
_NOTHING = "-"
_SHIPS = ", which comes with ofa-profiler"


def results_table(found: Sequence[Found]) -> Table:
    """A row per network; empty columns are left out. It fits 80 columns, and no cell is ever cut.

    With several tables, a cell has a line for each, in their order.
    """
    from rich import box
    from rich.table import Table

    first = found[0]
    title = f"{first.result.architecture.space}, highest {first.objective.name}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    rows = [_row(network) for network in found]
    shown = [i for i in range(len(_COLUMNS)) if any(row[i] != _NOTHING for row in rows)]
    for i in shown:
        name = "choices" if _COLUMNS[i] == "depths" and first.result.architecture.choices else _COLUMNS[i]
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    return table


def files_table(found: Sequence[Found]) -> Table:
    """A row per model file: its size, and the memory that it takes when it runs, if that is known."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("peak memory", justify="right")
    for network in found:
        for kind, size in network.size_bytes.items():
            memory = network.memory_bytes.get(kind)
            table.add_row(
                network.files[kind].name, format_bytes(size), _NOTHING if memory is None else format_bytes(memory)
            )
    return table


def _row(network: Found) -> list[str]:
    result = network.result
    accuracy = result.predicted_accuracy
    return [
        _milliseconds(result.budget_ms.values()),
        _milliseconds(result.latency_ms.values()),
        _milliseconds((network.measured_latency_ms or {}).values()),
        f"{accuracy:.2%}" if accuracy is not None else _NOTHING,
        f"{result.score:.6g}" if accuracy is None and isinstance(network.objective, FunctionObjective) else _NOTHING,
        format_count(result.macs),
        format_count(result.params),
        str(result.architecture.resolution),
        result.architecture.summary,
    ]


def _milliseconds(values: Iterable[float]) -> str:
    return "\n".join(f"{value:.4g}" for value in values) or _NOTHING


def interval_words(network: Found) -> list[str]:
    """A line per table with an interval of the network's latency."""
    result = network.result
    return [
        f"{name}: {_three_digits(result.latency_ms[name])} ms, {100 * result.interval_level:g}% of networks like this "
        f"between {_three_digits(ends[0])} and {_three_digits(ends[1])}"
        for name, ends in result.latency_interval_ms.items()
        if ends is not None
    ]


def gap_words(network: Found) -> str:
    """How much better than this network another one could be."""
    result, where = network.result, f"{next(iter(network.result.budget_ms.values())):g} ms: "
    if result.gap is None:
        return f"{where}how much better another network could be is unknown: {result.no_bound}"
    if result.is_optimal:
        return f"{where}no network within the limits is better (proven)"
    words = f"{where}gap to the best possible network {result.gap_text}"
    if result.predicted_accuracy is not None and (network.accuracy_bound or 0.0) >= 1.0:
        words += ": only that no accuracy is above 100% is proven"
    return words


def _three_digits(value: float) -> str:
    """20.04 -> 20.0, 0.12345 -> 0.123, 1234.5 -> 1234."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0}f}"


def accuracy_words(objective: Objective, *, ships: bool, precision: str = "fp32") -> str:
    """The origin of the accuracy; `ships` is true for a predictor of the package."""
    if isinstance(objective, FunctionObjective):
        return f"accuracies and scores are the values of {objective.name}"
    if not isinstance(objective, PredictedAccuracy):
        return f"{objective.name} were maximised instead of accuracy: no accuracy was predicted"
    predictor = objective.predictor
    words = f"accuracy predicted by {predictor.name}{_SHIPS if ships else ''}"
    if predictor.accuracy_of:
        words += f"; it learned accuracies on {predictor.accuracy_of}"
    if predictor.offset:
        words += f"; {100 * predictor.offset:+.2f} points are added for test images"
    if precision != "fp32" and not predictor.knows_bits:
        words += f"; it is that of the network in fp32, before {precision}"
    return words


def mixed_words(network: Found) -> str:
    """How a network of mixed precision is divided."""
    precisions = list((network.precisions or {}).values())
    integers, changes = precisions.count("int8"), sum(a != b for a, b in pairwise(precisions))
    where = f"{next(iter(network.result.budget_ms.values())):g} ms"
    return (
        f"{where}: {integers} of {len(precisions)} blocks in int8, {changes} change{'s' * (changes != 1)} of precision"
    )


def precision_words(source: WeightSource) -> str:
    """The origin of the ranges of int8 models."""
    return {
        CALIBRATED: "int8 with ranges measured on each network with images",
        TABLE: f"int8 with ranges from the table in the supernet {source.supernet}",
        MADE_UP: "int8 with made-up ranges: good for timing, not for predictions",
    }[source.ranges]


def weight_words(source: WeightSource, *, ships: bool) -> str:
    """The origin of the weights; `ships` is true for a supernet of the package."""
    if source.supernet is None:
        return "the weights of the models are made up, not trained: good for timing, not for predictions"
    own = ", with BatchNorm statistics of their own" if source.calibrated else ""
    return f"the models have weights of the supernet {source.supernet}{_SHIPS if ships else ''}{own}"
