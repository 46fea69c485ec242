"""The record of the trials of forms: which forms the models of a measurement have, and why."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.values import JsonObject, Kept, is_nonnegative, number


@dataclass(frozen=True)
class TrialResult:
    """One trial. `gain` is the time of the plain form divided by that of the form, None if one of them failed.

    `half_width` is half of the 95% confidence interval of the logarithm of `gain`.
    """

    forms: Forms
    wins: bool
    gain: float | None
    half_width: float | None
    error: str | None

    def to_json(self) -> JsonObject:
        """A dict of plain JSON types, without what is unknown."""
        values = {"gain": self.gain, "half_width": self.half_width, "error": self.error}
        known = {name: value for name, value in values.items() if value is not None}
        return {"forms": self.forms.to_json(), "wins": self.wins, **known}

    @property
    def label(self) -> str:
        """For people: `depthwise 7x7, stride 1 split: 3.4x`."""
        pairs = ", ".join(f"{group} {form}" for group, form in self.forms.to_json().items())
        if self.gain is None:
            return f"{pairs}: {'the plain form does not run' if self.wins else 'does not run'}"
        return f"{pairs}: {self.gain:.2f}x"


@dataclass(frozen=True)
class FormsRecord(Kept):
    """The forms of all models that follow in the journal."""

    chosen: Forms
    trials: tuple[TrialResult, ...]

    @staticmethod
    def from_json(data: JsonObject) -> FormsRecord:
        """Read and check an object. Raises `ValueError`."""
        if not isinstance(data.get("trials"), list) or not is_nonnegative(data.get("seconds")):
            raise ValueError("'trials' must be a list, and 'seconds' a number")
        return FormsRecord(_forms(data.get("chosen")), tuple(map(_trial, data["trials"])), json=data)


def _trial(data: object) -> TrialResult:
    if not isinstance(data, dict) or not isinstance(data.get("wins"), bool):
        raise ValueError("a trial must be an object with 'forms' and 'wins'")
    gain = number(data.get("gain"))
    if "gain" in data and (gain is None or gain <= 0):
        raise ValueError("'gain' must be a number above 0")
    error = data.get("error")
    return TrialResult(
        _forms(data.get("forms")),
        data["wins"],
        gain,
        number(data.get("half_width")),
        error if isinstance(error, str) else None,
    )


def _forms(data: object) -> Forms:
    try:
        return Forms.from_json(data) if data is not None else PLAIN
    except UsageError as error:
        raise ValueError(error) from None
