"""How exported models are written and run: in the forms, and with the settings of the runtime, of a latency table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture_file import find_file, read_entries
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.tables.table import LatencyTable


@dataclass(frozen=True)
class Deployment:
    """The models for one runtime. Without a table, they are plain and the settings unknown."""

    forms: Forms = PLAIN
    runtime_options: Mapping[str, Any] | None = None


def deployments_of(tables: Sequence[LatencyTable]) -> dict[str, Deployment]:
    """Runtime -> the deployment of its table; with several tables, what they agree on."""
    found: dict[str, Deployment] = {}
    for table in tables:
        runtime, options = str(table.metadata.get("runtime")), table.metadata.get("runtime_options")
        known = found.get(runtime, Deployment(table.forms, options))
        common = dict(known.forms.chosen.items() & table.forms.chosen.items())
        found[runtime] = Deployment(Forms(common), options if options == known.runtime_options else None)
    return found


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
