"""Packages that only some commands need: `pip install 'ofa-profiler[EXTRA]'` brings them."""

from __future__ import annotations

from importlib import import_module

from ofa_profiler.errors import UsageError


def need(package: str, *, extra: str, purpose: str, module: str | None = None) -> None:
    """Import `module` (default: `package`). Raises `UsageError` with the extra to install where that fails."""
    try:
        import_module(module or package)
    except ImportError as error:
        raise UsageError(f"{purpose} needs {package} ({error}): pip install 'ofa-profiler[{extra}]'") from None
