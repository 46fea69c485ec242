"""A journal of a part of the ops of a table, and its extension by more ops.

`ofa-profile --like` measures a few ops first. `about` of such a journal has the field `like`, from which the other ops
are inferred. If more ops are needed, the first line is replaced by one that asks for them too; all others stay.
"""

from __future__ import annotations

from ofa_profiler.protocol.forms import Candidates
from ofa_profiler.protocol.records import Run

#: The field of `about`.
LIKE = "like"


def is_partial(run: Run) -> bool:
    """Whether a request is for a part of the ops of its table."""
    return LIKE in run.about


def extended(found: Run, wanted: Run) -> Run | None:
    """The request `wanted` as the continuation of a partial one; None if it is none.

    It asks for the same models and maybe more, of the same base or of none, with the same settings. The trials of forms
    are those of `found`, because its models have the forms that they chose.
    """
    if not is_partial(found) or wanted.about.get(LIKE, found.about[LIKE]) != found.about[LIKE]:
        return None
    is_same = _settings(found) == _settings(wanted) and _about(found) == _about(wanted)
    if not is_same or not found.models.items() <= wanted.models.items():
        return None
    json = {**wanted.json, "created": found.created, "settings": found.settings.to_json()}
    if found.candidates is None:
        json.pop("forms", None)
        return Run.from_json({**json, "format": found.json["format"]})
    if wanted.candidates is None or not found.candidates.variants.items() <= wanted.candidates.variants.items():
        return None
    return Run.from_json({**json, "forms": Candidates(found.candidates.trials, wanted.candidates.variants).to_json()})


def is_extension(found: Run, wanted: Run) -> bool:
    """Whether the first line of a journal must be replaced for `wanted`, which continues it."""
    more = extended(found, wanted)
    return more is not None and (more.models != found.models or is_partial(more) != is_partial(found))


def _settings(run: Run) -> dict[str, object]:
    return {name: value for name, value in run.settings.to_json().items() if name != "time_limit_s"}


def _about(run: Run) -> dict[str, object]:
    return {name: value for name, value in run.about.items() if name not in (LIKE, "tool_version")}
