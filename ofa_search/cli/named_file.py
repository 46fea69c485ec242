"""`NAME|PATH` on the command line: download a published file by its name, with progress on stderr."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.cli.terminal import progress_bar, say


def named_file(kind: str, name: str) -> Path:
    """The file for `--supernet NAME|PATH` or `--predictor NAME|PATH`. Raises the errors of `find`."""
    from ofa_search.artifacts.ofa_files import find  # with urllib and ssl, which few searches need

    with ExitStack() as stack:
        show: Reporter | None = None

        def progress(done: int, total: int | None, server: str) -> None:
            nonlocal show
            if show is None:
                say(f"downloading the {kind} {name} from {server} (once)")
                show = stack.enter_context(progress_bar())
            show(Progress("download", done >> 10, (total or done) >> 10, words=f"KiB from {server}"))

        return find(
            kind, name, progress=progress, waiting=lambda: say(f"another process is downloading {name}: waiting")
        )
