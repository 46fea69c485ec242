"""`NAME|PATH` on the command line: published files are downloaded by name, with progress on stderr."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ofa_profiler.cli.terminal import Show, progress_bar, say


def named_file(kind: str, name: str) -> Path:
    """The file for `--supernet NAME|PATH` or `--predictor NAME|PATH`. Raises as `find` does."""
    from ofa_search.artifacts.ofa_files import find  # with urllib and ssl, which few searches need

    with ExitStack() as stack:
        show: Show | None = None

        def progress(done: int, total: int | None, server: str) -> None:
            nonlocal show
            if show is None:
                say(f"downloading the {kind} {name} from {server}; it is kept in the cache")
                show = stack.enter_context(progress_bar())
            show("fetch", done >> 10, (total or done) >> 10, None, f"KiB from {server}")

        def waiting() -> None:
            say(f"waiting for another process that downloads {name}")

        return find(kind, name, progress=progress, waiting=waiting)
