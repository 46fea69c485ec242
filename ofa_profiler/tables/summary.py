"""The summary of a table for notebooks and debuggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ofa_profiler.tables.row import FAILED, INFERRED, Row

Facts = Sequence[tuple[str, str]]

_SETTINGS = ("precision", "threads", "batch")
#: More resolutions are counted instead.
_MOST_LISTED = 5


def facts(rows: Sequence[Row], spaces: Sequence[str], metadata: Mapping[str, Any]) -> Facts:
    """The most important facts of a table, as (label, value)."""
    counts = ((sum(row.status == status for row in rows), status) for status in (FAILED, INFERRED))
    found = [("ops", ", ".join([str(len(rows)), *(f"{count} {status}" for count, status in counts if count)]))]
    found.append(("spaces", ", ".join(spaces) or "none known"))
    device = metadata.get("device")
    if isinstance(device, Mapping):
        found.append(("device", str(device.get("model") or device.get("soc") or "unnamed")))
    runtime = [metadata.get("runtime"), metadata.get("runtime_version")]
    if metadata.get("runtime"):
        found.append(("runtime", " ".join(str(part) for part in runtime if part)))
        found.append(("precision, threads, batch", ", ".join(str(metadata.get(n)) for n in _SETTINGS)))
    forms = metadata.get("forms")
    if isinstance(forms, Mapping) and isinstance(forms.get("chosen"), Mapping) and forms["chosen"]:
        found.append(("forms", ", ".join(f"{group} {form}" for group, form in forms["chosen"].items())))
    if metadata.get("date"):
        found.append(("date", str(metadata["date"])))
    found.append(("validation", _validation(metadata.get("validation"))))
    return found


def coverage_words(spaces: Sequence[str], covered: Mapping[str, Sequence[int]]) -> str:
    """The spaces of a table, for messages; `covered` maps those that are complete, at some resolutions, to these."""
    words = []
    for name in spaces:
        resolutions = covered.get(name)
        if resolutions is None:
            words.append(f"parts of {name}")
        elif len(resolutions) > _MOST_LISTED:
            words.append(f"{name} at {len(resolutions)} resolutions from {resolutions[0]} to {resolutions[-1]}")
        else:
            words.append(f"{name} at {', '.join(map(str, resolutions))}" if resolutions else name)
    return "; ".join(words) or "no known space completely"


def _validation(validation: Any) -> str:
    if not isinstance(validation, Mapping) or not isinstance(validation.get("mape"), int | float):
        return "none; run ofa-verify to measure the prediction error"
    return f"MAPE {validation['mape']:.1%} on {validation.get('subnets')} networks"


def facts_text(title: str, found: Facts) -> str:
    """The facts as one line of text."""
    return f"<{title}: " + "; ".join(f"{label} {value}" for label, value in found) + ">"


def facts_html(title: str, found: Facts) -> str:
    """The facts as an HTML table."""
    from html import escape  # only notebooks need it

    rows = "".join(f"<tr><th>{escape(label)}</th><td>{escape(value)}</td></tr>" for label, value in found)
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"
