"""`--fix CHOICE=VALUE`: choices of the space that a search does not decide."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_profiler.errors import UsageError


def read_fixed(texts: Sequence[str]) -> dict[str, list[str]]:
    """The values of each choice, by its name. Raises `UsageError`."""
    fixed: dict[str, list[str]] = {}
    for text in texts:
        name, found, values = (part.strip() for part in text.partition("="))
        options = [value.strip() for value in values.split(",")]
        if not found or not name or not all(options):
            raise UsageError(f"--fix {text!r:.60} is not CHOICE=VALUE, for example resolution=192")
        if name in fixed:
            raise UsageError(f"--fix {name} is given twice; several values are {name}={','.join(fixed[name])},...")
        fixed[name] = options
    return fixed
