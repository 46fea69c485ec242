"""How exported models are written and run: as those of a latency table, in its forms and with its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture_file import find_file, read_entries
from ofa_profiler.protocol.encodings import encoding_for
from ofa_profiler.protocol.forms import PLAIN, AnyForms, Forms, MixedForms
from ofa_profiler.protocol.target import MIXED
from ofa_profiler.runtimes import runtimes
from ofa_profiler.tables.mixed import AnyTable, MixedTable


@dataclass(frozen=True)
class Deployment:
    """The models for one runtime. Without a table, they are plain and the settings unknown.

    `encoding` is that of int8, for runtimes that have several; "" for the one that is exact on every processor.
    """

    forms: AnyForms = PLAIN
    runtime_options: Mapping[str, Any] | None = None
    encoding: str = ""


def deployments_of(tables: Sequence[AnyTable]) -> dict[str, Deployment]:
    """Runtime -> the deployment of its table; with several tables, what they agree on.

    A runtime without a table has the encoding that suits the device of the first one.
    """
    found: dict[str, Deployment] = {}
    for table in tables:
        runtime, options = str(table.metadata.get("runtime")), table.metadata.get("runtime_options")
        encoding = str(table.metadata.get("encoding") or "")
        known = found.get(runtime, Deployment(table.forms, options, encoding))
        found[runtime] = Deployment(
            _common(known.forms, table.forms),
            options if options == known.runtime_options else None,
            encoding if encoding == known.encoding else "",
        )
    device = tables[0].metadata.get("device") or {}
    other = Deployment(encoding=encoding_for(device.get("machine"), device).name)
    return {name: found.get(name, other) for name in {**found, **runtimes()}}


def _common(first: AnyForms, second: AnyForms) -> AnyForms:
    """The forms that both have."""
    if isinstance(first, MixedForms) or isinstance(second, MixedForms):
        pairs = {name: (first.at(name).chosen, second.at(name).chosen) for name in ("fp32", "int8")}
        return MixedForms(**{name: Forms(dict(a.items() & b.items())) for name, (a, b) in pairs.items()})
    return Forms(dict(first.chosen.items() & second.chosen.items()))


def precision_of(tables: Sequence[AnyTable], wanted: str | None) -> str:
    """The precision of all tables, `mixed` for pairs. Published ones do not say it; they are of float32.

    Raises `UsageError` if they differ, or if it is not `wanted` (None: any).
    """
    found = {table.name: _precision(table) for table in tables}
    first = next(iter(found.values()))
    if other := [name for name, precision in found.items() if precision != first]:
        raise UsageError(
            f"the tables have different precisions: {other[0]} is {found[other[0]]}, the first is {first}; "
            f"--precision {MIXED} searches networks of both"
        )
    if wanted not in (None, first):
        name = tables[0].name
        hint = f"give a table of ofa-profile --precision {wanted}"
        raise UsageError(f"--precision {wanted}: table {name} is {first}; {hint}")
    return first


def _precision(table: AnyTable) -> str:
    if isinstance(table, MixedTable):
        return MIXED
    return table.metadata.get("precision") or table.rows[0].precision or "fp32"


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
