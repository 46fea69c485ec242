"""The files of a search: for each network its architecture and its models, and one summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ofa_profiler.base.files import replacing, write_text
from ofa_profiler.base.units import format_bytes
from ofa_profiler.errors import OverBudgetError
from ofa_profiler.export import export_network, get_exporter
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import runtimes
from ofa_search.results.deployments import Deployment
from ofa_search.results.found import ARCHITECTURE, Found, document
from ofa_search.searching.problem import SizeLimit

SUMMARY = "search.json"


def write_networks(
    out: Path, found: Sequence[Found], *, models: bool = True, max_size: SizeLimit | None = None
) -> list[Found]:
    """Write every architecture and, with `models`, a model for each runtime into `out`, named by budget.

    All of them or none. Those that have files already keep them. Returns `found` with the paths. Raises `UsageError`
    when they cannot be written, `OverBudgetError` if a file is larger than `max_size`.
    """
    written = []
    with ExitStack() as files:  # each file gets its name only when all are written
        for network, stem in zip(found, file_stems(found), strict=True):
            if network.files:
                written.append(network)
                continue
            paths = {ARCHITECTURE: out / f"{stem}.json"}
            text = json.dumps(network.result.architecture.to_json(), indent=2) + "\n"
            files.enter_context(replacing(paths[ARCHITECTURE])).write_text(text, encoding="utf-8")
            for suffix, runtime in _formats().items() if models else ():
                kind = suffix.removeprefix(".")
                paths[kind] = out / f"{stem}{suffix}"
                path = export(network, files.enter_context(replacing(paths[kind])), target_of(network, runtime))
                if max_size is not None and kind == max_size.kind:
                    _check_size(paths[kind], path.stat().st_size, max_size.limit)
            written.append(replace(network, files=paths))
    return written


def _check_size(path: Path, size: int, limit: float) -> None:
    if size > limit:
        raise OverBudgetError(
            f"{path.name} has {size} bytes, {size - limit:.0f} above --max-size, although fewer were predicted; "
            f"nothing was written: lower --max-size by {format_bytes(size - limit)}"
        )


def _formats() -> dict[str, str]:
    """The kinds of model file, as suffixes, and the runtime of each."""
    formats: dict[str, str] = {}
    for runtime in runtimes().values():
        formats.setdefault(runtime.suffix, runtime.name)
    return formats


def target_of(network: Found, runtime: str) -> Target:
    """What the model for a runtime is exported for."""
    target = Target(runtime, network.precision)
    if not target.has_integers or not get_exporter(target).encodings:
        return target
    return replace(target, encoding=network.deployments.get(runtime, Deployment()).encoding)


def export(network: Found, path: Path, target: Target, release: str | None = None) -> Path:
    """Write the network as a model, for a release of the target's runtime."""
    architecture, source = network.result.architecture, network.source
    deployment = network.deployments.get(target.runtime, Deployment())
    return export_network(
        source.space,
        architecture,
        source.of(architecture),
        path,
        target,
        metadata=network.card().metadata(deployment),
        forms=deployment.forms,
        ranges=source.ranges_of(architecture) if target.has_integers else None,
        release=release,
    )


def write_summary(out: Path, found: Sequence[Found]) -> None:
    """Write `search.json`."""
    write_text(out / SUMMARY, json.dumps(document(found), indent=2, allow_nan=False) + "\n")


def file_stems(found: Sequence[Found]) -> list[str]:
    """`ofa-mbv3-w1.2-25ms`: space and the first table's budget, with a number where that is not unique."""
    stems: list[str] = []
    for network in found:
        space = network.result.architecture.space.replace(":", ".")
        stem = f"{space}-{next(iter(network.result.budget_ms.values())):g}ms"
        stems.append(stem if stem not in stems else f"{stem}-{len(stems)}")
    return stems
