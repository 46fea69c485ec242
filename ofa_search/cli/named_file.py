"""`NAME|PATH` on the command line: download a published file by its name, with progress on stderr."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.cli.terminal import progress_bar, say


def named_file(kind: str, name: str) -> Path:
    """The file for `--supernet NAME|PATH` or `--predictor NAME|PATH`. Raises the errors of `find`."""
    with suppress(OSError, ValueError):  # not a path: too long, or with a zero byte
        if Path(name).exists():
            return Path(name)
    from ofa_search.artifacts.ofa_files import find  # with urllib and ssl, which few searches need

    with ExitStack() as stack:
        bar: Reporter | None = None

        def progress(state: Progress) -> None:
            nonlocal bar
            if bar is None and state.waiting:
                say(state.waiting)
                return
            if bar is None:
                say(f"downloading the {kind} {name} {state.words} (once)")
                bar = stack.enter_context(progress_bar())
            bar(state)

        return find(kind, name, progress=progress)
