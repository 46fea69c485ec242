"""Packages of optional extras, which only some commands need: `pip install 'ofa-profiler[EXTRA]'`."""

from __future__ import annotations

from importlib import import_module

from ofa_profiler.errors import UsageError


def need(package: str, *, extra: str, purpose: str, module: str | None = None) -> None:
    """Import `module` (default: `package`). If it fails, raises `UsageError` with the extra to install."""
    try:
        import_module(module or package)
    except ImportError as error:
        raise UsageError(f"{purpose} needs {package} ({error}): pip install 'ofa-profiler[{extra}]'") from None
