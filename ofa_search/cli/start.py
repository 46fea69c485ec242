"""The start of `ofa-search` and `ofa-train`, as in `ofa_profiler.cli.start`."""

from __future__ import annotations

from ofa_profiler.cli.start import end_quietly, leave, run

__all__ = ["end_quietly", "leave", "search", "train"]


def search() -> int:
    """`ofa-search`."""
    return run("ofa_search.cli.search")


def train() -> int:
    """`ofa-train`."""
    return run("ofa_search.cli.train")
