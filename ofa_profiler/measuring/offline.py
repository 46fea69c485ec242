"""A device that cannot be reached: a kit is carried there, and its results are imported."""

from __future__ import annotations

from pathlib import Path

from ofa_profiler.base.files import write_bytes
from ofa_profiler.base.progress import Reporter
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.naming import check_name, default_name
from ofa_profiler.measuring.request import request
from ofa_profiler.measuring.table_from_journal import check_usable, save_table, table_rows
from ofa_profiler.protocol.journal import OLD, read_journal
from ofa_profiler.protocol.kit import RESULTS_FILE, KitWheels, write_kit
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.table import LatencyTable


def make_kit(
    space: SearchSpace,
    settings: Settings,
    folder: Path,
    *,
    wheels: KitWheels | None = None,
    release: str | None = None,
    try_forms: bool = True,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> int:
    """Write a kit for `space` into `folder`, which must be new or empty -> the number of its models.

    `release` is that of the runtime on the board, if it is known.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder; give a new folder for the kit")
    asked = request(space, settings, release=release, try_forms=try_forms, cache_dir=cache_dir, progress=progress)
    write_kit(folder, asked.models, asked.run, wheels=wheels)
    return len(asked.models)


def import_results(
    path: Path, out: Path, *, name: str | None = None, fresh: bool = False
) -> tuple[LatencyTable, Replay]:
    """Make a table in `out` from a journal or from the results of a kit, as if it had been measured from here.

    For a journal that is in `out`, the table is derived again. Raises `InputFileError` for a wrong or unfinished
    file, `UsageError` when `out` holds another measurement of that name (unless `fresh`).
    """
    replay, data = read_journal(path)
    rows = table_rows(replay, path)
    if (
        name is None
        and path.suffix == ".jsonl"
        and path.name != RESULTS_FILE
        and path.parent.resolve() == out.resolve()
    ):
        name = path.stem
    name = (
        check_name(name)
        if name is not None
        else default_name(replay.devices[0], replay.run.spaces, replay.run.settings)
    )
    target = out / f"{name}.jsonl"
    if not (target.exists() and target.samefile(path)):
        if target.exists() and not fresh and not data.startswith(target.read_bytes()):
            raise UsageError(f"{target} holds another measurement: use another --name, or --fresh to replace it")
        check_usable(rows)
        if target.exists() and not data.startswith(target.read_bytes()):
            write_bytes(target.with_name(f"{target.name}{OLD}"), target.read_bytes())
        write_bytes(target, data)
    return save_table(replay, rows, target), replay
