"""The results of a device that cannot be reached are imported. `verification/kit.py` makes the kit."""

from __future__ import annotations

from pathlib import Path

from ofa_profiler.base.files import write_bytes
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.naming import subjects_of, table_name
from ofa_profiler.measuring.table_from_journal import check_usable, save_table, table_rows
from ofa_profiler.protocol.journal import OLD, read_journal
from ofa_profiler.protocol.kit import RESULTS_FILE
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.tables.table import LatencyTable


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
    name = table_name(name, replay.devices[0], subjects_of(replay.run), replay.run.settings)
    target = out / f"{name}.jsonl"
    if not (target.exists() and target.samefile(path)):
        if target.exists() and not fresh and not data.startswith(target.read_bytes()):
            raise UsageError(f"{target} holds another measurement: use another --name, or --fresh to replace it")
        check_usable(rows)
        if target.exists() and not data.startswith(target.read_bytes()):
            write_bytes(target.with_name(f"{target.name}{OLD}"), target.read_bytes())
        write_bytes(target, data)
    return save_table(replay, rows, target), replay
