"""The ladder of a search: networks of which each is slower and better than the one before, and their file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ofa_profiler.base.files import write_text
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.tables.mixed import AnyTable
from ofa_search.ladder.rungs import FILE_NAME, LadderFile, Rung
from ofa_search.results.found import Found


def rungs_of(found: Sequence[Found], table: str) -> list[Found]:
    """The networks that are better than all faster ones, from fast to slow. Latencies are by this table.

    What was measured counts more than what was predicted. Of several budgets that give the same network, the first
    counts.
    """
    each: dict[Architecture, Found] = {}
    for network in found:
        each.setdefault(network.result.architecture, network)
    kept: list[Found] = []
    for network in sorted(each.values(), key=lambda network: (expected_ms(network, table), -network.result.score)):
        if not kept or network.result.score > kept[-1].result.score:
            kept.append(network)
    return kept


def expected_ms(network: Found, table: str) -> float:
    """The measured latency by a table, or the predicted one."""
    measured = (network.measured_latency_ms or {}).get(table)
    return network.result.latency_ms[table] if measured is None else measured


def write_ladder(out: Path, rungs: Sequence[Found], table: AnyTable) -> Path:
    """Write `ladder.json` beside the files of the networks."""
    card = rungs[0].card().to_json()
    settings = {name: table.metadata.get(name) for name in ("runtime", "provider", "threads")}
    ladder = LadderFile(
        space=rungs[0].result.architecture.space,
        precision=rungs[0].precision,
        table=table.name,
        runtime=settings["runtime"],
        provider=settings["provider"],
        threads=settings["threads"],
        rungs=[_rung(number, network, table.name) for number, network in enumerate(rungs)],
        # The resolution belongs to the rung.
        preprocessing={name: value for name, value in card["preprocessing"].items() if name != "resolution"},
        labels=card["labels"],
    )
    path = out / FILE_NAME
    write_text(path, json.dumps(ladder.to_json(out), indent=2, allow_nan=False) + "\n")
    return path


def _rung(number: int, network: Found, table: str) -> Rung:
    result = network.result
    return Rung(
        number=number,
        expected_ms=expected_ms(network, table),
        accuracy=result.predicted_accuracy,
        score=result.score,
        budget_ms=result.budget_ms[table],
        resolution=result.architecture.resolution,
        files=network.files,
    )
