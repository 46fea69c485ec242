"""The start of `ofa-search`, `ofa-train` and `ofa-prune`, as in `ofa_profiler.cli.start`."""

from __future__ import annotations

from ofa_profiler.cli.start import end_quietly, leave, run

__all__ = ["end_quietly", "leave", "prune", "search", "train"]


def search() -> int:
    """`ofa-search`."""
    return run("ofa_search.cli.search")


def train() -> int:
    """`ofa-train`."""
    return run("ofa_search.cli.train")


def prune() -> int:
    """`ofa-prune`."""
    return run("ofa_search.cli.prune")
