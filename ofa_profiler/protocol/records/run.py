"""The request: the first line of a journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import Candidates
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.values import JsonObject, Kept, text_or_none

#: Version of the first line. A change that older versions would misread increases it.
FORMAT = 1
#: Version of a first line with trials of forms.
FORMAT_WITH_FORMS = 2
#: Version of a first line with a profile, and of kits with exact values or spans of inputs.
FORMAT_WITH_VALUES = 3
_FORMATS = (FORMAT, FORMAT_WITH_FORMS, FORMAT_WITH_VALUES)


@dataclass(frozen=True)
class Run(Kept):
    """The request, in the first line of a journal. `models` maps the key of each model to its SHA-256."""

    created: str
    settings: Settings
    #: The origin of a table: `spaces`, `resolutions`, `tool_version`.
    about: JsonObject
    models: Mapping[str, str]
    #: The op of each model, in the same order; None in journals of whole networks and of earlier versions.
    ops: tuple[Op, ...] | None
    #: The forms that the device tries; None: all models are plain.
    candidates: Candidates | None = None
    #: The key of the model that the runtime is to profile with its own means, if any.
    profile: str | None = None

    @property
    def spaces(self) -> tuple[str, ...]:
        """The names of the search spaces of the models, if any."""
        return tuple(self.about.get("spaces") or ())

    @staticmethod
    def from_json(data: JsonObject) -> Run:
        """Read and check an object. Raises `ValueError`."""
        if data.get("format") not in _FORMATS:
            raise ValueError(f"format {data.get('format')!r:.40}; this version reads up to {_FORMATS[-1]}")
        for name in ("about", "models"):
            if not isinstance(data.get(name), dict):
                raise ValueError(f"{name!r} must be an object")
        if not isinstance(data.get("created"), str):
            raise ValueError("'created' must be a date")
        try:
            settings = Settings.from_json(data.get("settings"))
        except UsageError as error:
            raise ValueError(error) from None
        spaces = data["about"].get("spaces")
        if spaces is not None and not (isinstance(spaces, list) and all(isinstance(name, str) for name in spaces)):
            raise ValueError("'spaces' in 'about' must be a list of names")
        models = data["models"]
        if not all(isinstance(sha256, str) for sha256 in models.values()):
            raise ValueError("'models' must give the SHA-256 of each model")
        candidates = Candidates.from_json(data["forms"]) if "forms" in data else None
        profile = text_or_none(data, "profile")
        if profile is not None and profile not in models:
            raise ValueError(f"'profile' is {profile!r:.40}, which is none of the models")
        return Run(data["created"], settings, data["about"], models, _ops(data), candidates, profile, json=data)

    def with_settings(self, settings: Settings) -> Run:
        """Return the same request with other settings."""
        return Run.from_json({**self.json, "settings": settings.to_json()})


def _ops(run: JsonObject) -> tuple[Op, ...] | None:
    data = run.get("ops")
    if data is None:
        return None
    if not isinstance(data, list):
        raise ValueError("'ops' must be a list of ops")
    ops = tuple(map(Op.from_json, data))
    if [op.key for op in ops] != list(run["models"]):
        raise ValueError("'ops' must describe each of the models, in the same order")
    return ops
