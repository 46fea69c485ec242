"""`NAME|PATH` on the command line: what is published is fetched by its name, with progress on stderr."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ofa_profiler.cli.terminal import Show, progress_bar, say


def named_file(kind: str, name: str) -> Path:
    """The file that `--supernet NAME|PATH` or `--predictor NAME|PATH` means. Raises as `find` does."""
    from ofa_search.artifacts.ofa_files import find  # with urllib and ssl, which few searches need

    with ExitStack() as stack:
        show: Show | None = None

        def progress(done: int, total: int | None, server: str) -> None:
            nonlocal show
            if show is None:
                say(f"fetching the {kind} {name} from {server}, once")
                show = stack.enter_context(progress_bar())
            show("fetch", done >> 10, (total or done) >> 10, None, f"KiB from {server}")

        return find(kind, name, progress=progress, waiting=lambda: say(f"another process is fetching {name}: waiting"))
