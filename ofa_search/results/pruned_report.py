"""The report of a pruned network as a page: before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ofa_profiler.base.units import format_bytes, format_count
from ofa_profiler.pages import charts
from ofa_profiler.pages.page import Grid, Page, Section, can_write_pages, write_page
from ofa_search.results.pruned import NetworkFacts, PrunedResult

_UNKNOWN = "not measured"
_KINDS = {"onnx": "ONNX", "tflite": "TFLite"}


def write_report(result: PrunedResult, path: Path) -> Path | None:
    """Write the page, if the library for charts is installed."""
    if not can_write_pages():
        return None
    write_page(report_page(result), path)
    return path


def report_page(result: PrunedResult) -> Page:
    """The page about a pruned network."""
    return Page(
        f"{result.model.rpartition(':')[2]} for a budget of {result.latency.budget_ms:g} ms",
        _facts(result),
        [*_comparison(result), *_channels(result), *_groups(result), *_kept_whole(result)],
    )


def comparison_rows(result: PrunedResult) -> list[tuple[str, str, str, str]]:
    """What is compared: its name, before, after, and the change."""
    before, after = result.before, result.after
    rows = [
        (f"top-1, {found['images']} {kind.replace('_', '-')} images", *_accuracies(kind, before, after))
        for kind, found in after.accuracy.items()
    ]
    rows.append(("milliseconds, measured", *_numbers(before.measured_ms, after.measured_ms, _milliseconds)))
    rows.append(("milliseconds, predicted", *_numbers(before.predicted_ms, after.predicted_ms, _milliseconds)))
    rows.append(("MACs", *_numbers(before.macs, after.macs, format_count)))
    rows.append(("parameters", *_numbers(before.params, after.params, format_count)))
    for kind, size in before.size_bytes.items():
        rows.append((f"{_KINDS[kind]} file", *_numbers(size, after.size_bytes.get(kind), _bytes)))
    return rows


def latency_words(result: PrunedResult) -> str:
    """Whether the budget is kept, and how that is known."""
    latency, ms = result.latency, result.after.measured_ms
    if ms is not None:
        kept = "keeps" if ms <= latency.budget_ms else "is over"
        return f"{ms:.4g} ms measured, which {kept} the budget of {latency.budget_ms:g} ms"
    missing = f"; {latency.missing_points} points that it lacks were not used" if latency.missing_points else ""
    words = "unknown" if result.after.predicted_ms is None else f"{result.after.predicted_ms:.4g} ms"
    return f"{words} predicted by the table {latency.table}{missing}; nothing was measured"


def _accuracies(kind: str, before: NetworkFacts, after: NetworkFacts) -> tuple[str, str, str]:
    one, two = before.accuracy[kind]["top1"], after.accuracy[kind]["top1"]
    return f"{one:.2%}", f"{two:.2%}", f"{100 * (two - one):+.2f} points"


def _numbers(before: float | None, after: float | None, spell: Callable[[float], str]) -> tuple[str, str, str]:
    texts = [_UNKNOWN if value is None else spell(value) for value in (before, after)]
    change = f"{after / before:.1%} of it" if before and after is not None else ""
    return texts[0], texts[1], change


def _milliseconds(value: float) -> str:
    return f"{value:.4g}"


def _bytes(value: float) -> str:
    return format_bytes(int(value))


def _facts(result: PrunedResult) -> dict[str, str]:
    latency = result.latency
    settings = [
        f"{value}" for name, value in latency.settings.items() if name in ("runtime", "provider", "precision") and value
    ]
    if (threads := latency.settings.get("threads")) is not None:
        settings.append(f"{threads} thread{'s' * (threads != 1)}")
    files = ", ".join(path.name for path in result.files.values())
    return {
        "network": result.model,
        "input": "x".join(map(str, result.image_input.shape)),
        "latency": latency_words(result),
        "device": latency.device,
        "settings": ", ".join(settings) or "unknown",
        "method": result.method,
        "training": _training(result),
        "files": files,
        "TFLite": "written" if result.tflite_reason is None else f"not written: {result.tflite_reason}",
    }


def _training(result: PrunedResult) -> str:
    training = result.training
    if training is None:
        return "none: the network was within the budget"
    names = ("batch", "optimizer", "learning_rate", "seed", "processes")
    said = [f"{name.replace('_', ' ')} {training[name]}" for name in names if name in training]
    epochs = [f"{training['epochs']:g} epochs"] if "epochs" in training else []
    images = [f"{training['images']} images"] if "images" in training else []
    return ", ".join([" of ".join([*epochs, *images]), *said])


def _comparison(result: PrunedResult) -> Iterator[Section]:
    yield Section(
        "Before and after",
        "Measured milliseconds are of both networks in turns, in the same session.",
        Grid(("", "before", "after", "change"), comparison_rows(result)),
    )


def _channels(result: PrunedResult) -> Iterator[Section]:
    layers = result.pruned.layers
    if layers:
        yield Section(
            "Channels per layer",
            "Output channels of each layer, in the order of the module.",
            charts.before_and_after(
                [layer.layer for layer in layers],
                [layer.before[0] for layer in layers],
                [layer.after[0] for layer in layers],
                "output channels",
            ),
            n_rows=len(layers),
        )


def _groups(result: PrunedResult) -> Iterator[Section]:
    rows = [
        (each.group, each.kind, str(each.before), str(each.after), f"{each.after / each.before:.0%}")
        for each in result.pruned.groups
    ]
    if rows:
        yield Section(
            "Groups",
            "What goes together: the layer that makes it first, and its units.",
            Grid(("group", "units", "before", "after", "kept"), rows),
        )


def _kept_whole(result: PrunedResult) -> Iterator[Section]:
    rows: Sequence[tuple[str, str, str]] = [(each.layer, str(each.channels), each.reason) for each in result.unprunable]
    if rows:
        yield Section("Not prunable", "These channels stay.", Grid(("layer", "channels", "reason"), rows))
