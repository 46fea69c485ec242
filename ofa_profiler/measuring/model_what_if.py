"""What changes of a user's network would save: edited networks, measured beside the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.measuring.model_request import cached_models
from ofa_profiler.measuring.model_table import WHOLE, check_runs
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.session import measure_into
from ofa_profiler.models.base import Array, UserModel
from ofa_profiler.models.what_if.ranking import savings
from ofa_profiler.models.what_if.variants import what_if
from ofa_profiler.protocol.journal import Journal
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.settings import Settings

#: The journal of the edited networks of a table NAME is `NAME-what-if.jsonl`.
JOURNAL_ENDING = "-what-if.jsonl"
#: More rounds than for blocks: a saving is a small difference of long times.
_LEAST_ROUNDS = 5


def add_what_if(
    done: Profile,
    device: Device,
    model: UserModel,
    feeds: Mapping[str, Array],
    settings: Settings,
    *,
    fresh: bool = False,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> Profile:
    """Measure the edited networks and the original in turns, and add `what_if` to the JSON of the table.

    An interrupted measurement is resumed. Raises `DeviceError` if the device fails or does not run the original,
    `UsageError` if files of this runtime cannot be edited.
    """
    found = what_if(model, feeds)
    timed = {WHOLE: model.whole(feeds), **{variant.key: variant.model for variant in found.variants}}
    models = cached_models(model.runtime, timed, cache_dir)
    about = {"spaces": [], "session": done.replay.run.created}
    settings = replace(settings, min_rounds=max(settings.min_rounds, _LEAST_ROUNDS))
    path = done.path.with_name(f"{done.path.stem}{JOURNAL_ENDING}")
    with Journal(path, run_record(models, settings, about), fresh=fresh) as journal:
        measure_into(journal, device, models, settings, progress)
        measured = journal.replay.measurements()
    original = measured.pop(WHOLE)
    check_runs(original)
    ranked = [saving.to_json() for saving in savings(original, found.variants, measured)]
    table = replace(done.table, metadata={**done.table.metadata, "what_if": ranked})
    table.save(done.path)
    return replace(done, table=table)
