"""How exported models are written and run: as those of a latency table, in its forms and with its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture_file import find_file, read_entries
from ofa_profiler.protocol.encodings import encoding_for
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.runtimes import runtimes
from ofa_profiler.tables.table import LatencyTable


@dataclass(frozen=True)
class Deployment:
    """The models for one runtime. Without a table, they are plain and the settings unknown.

    `encoding` is that of int8, for runtimes that have several; "" for the one that is exact on every processor.
    """

    forms: Forms = PLAIN
    runtime_options: Mapping[str, Any] | None = None
    encoding: str = ""


def deployments_of(tables: Sequence[LatencyTable]) -> dict[str, Deployment]:
    """Runtime -> the deployment of its table; with several tables, what they agree on.

    A runtime without a table has the encoding that suits the device of the first one.
    """
    found: dict[str, Deployment] = {}
    for table in tables:
        runtime, options = str(table.metadata.get("runtime")), table.metadata.get("runtime_options")
        encoding = str(table.metadata.get("encoding") or "")
        known = found.get(runtime, Deployment(table.forms, options, encoding))
        common = dict(known.forms.chosen.items() & table.forms.chosen.items())
        found[runtime] = Deployment(
            Forms(common),
            options if options == known.runtime_options else None,
            encoding if encoding == known.encoding else "",
        )
    device = tables[0].metadata.get("device") or {}
    other = Deployment(encoding=encoding_for(device.get("machine"), device).name)
    return {name: found.get(name, other) for name in {**found, **runtimes()}}


def precision_of(tables: Sequence[LatencyTable], wanted: str | None) -> str:
    """The precision of all tables. Published ones do not say it; they are of float32.

    Raises `UsageError` if they differ, or if it is not `wanted` (None: any).
    """
    found = {table.name: table.metadata.get("precision") or table.rows[0].precision or "fp32" for table in tables}
    first = next(iter(found.values()))
    if other := [name for name, precision in found.items() if precision != first]:
        raise UsageError(f"the tables have different precisions: {other[0]} is {found[other[0]]}, the first is {first}")
    if wanted not in (None, first):
        name = tables[0].name
        hint = f"give a table of ofa-profile --precision {wanted}"
        raise UsageError(f"--precision {wanted}: table {name} is {first}; {hint}")
    return first


def read_deployments(path: Path) -> dict[str, Deployment]:
    """Runtime -> the deployment that a `search.json` with one network gives; empty for any other file.

    Raises `InputFileError`.
    """
    path = find_file(path)
    entries = read_entries(path)
    said = entries[0].get("forms") if len(entries) == 1 and isinstance(entries[0], dict) else None
    if said is None:
        return {}
    try:
        if not isinstance(said, Mapping):
            raise UsageError("'forms' must be an object: runtime -> forms")
        return {runtime: Deployment(Forms.from_json(forms)) for runtime, forms in said.items()}
    except UsageError as error:
        raise InputFileError(path, str(error)) from error
