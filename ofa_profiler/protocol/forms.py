"""The forms in which models are written, and the trials that decide between them on a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ofa_profiler.errors import UsageError

#: The name of the plain form.
PLAIN_NAME = "plain"
#: The values of `--forms`: the device tries all forms, or everything is plain.
FAST = "fast"
FORMS_CHOICES = (FAST, PLAIN_NAME)


@dataclass(frozen=True)
class Forms:
    """Group of layers -> the name of its form, for groups that are not written in the plain form.

    A group is a text such as `depthwise 7x7, stride 2`. `export/forms` defines groups and forms.
    """

    chosen: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.chosen)

    def __hash__(self) -> int:
        return hash(frozenset(self.chosen.items()))

    def of(self, groups: Iterable[str]) -> Forms:
        """The forms of these groups only."""
        return Forms({group: self.chosen[group] for group in groups if group in self.chosen})

    @property
    def name(self) -> str:
        """The names of the forms on one line, such as `split`; `plain` without any."""
        return "+".join(sorted(set(self.chosen.values()))) or PLAIN_NAME

    def to_json(self) -> dict[str, str]:
        """A dict of plain JSON types."""
        return dict(sorted(self.chosen.items()))

    @staticmethod
    def from_json(data: Any) -> Forms:
        """Read the result of `to_json`; None means all plain. Raises `UsageError`."""
        if data is None:
            return PLAIN
        if not isinstance(data, Mapping) or not all(isinstance(text, str) for pair in data.items() for text in pair):
            raise UsageError("'forms' must be an object: group of layers -> name of a form")
        return Forms(dict(data))

    @staticmethod
    def from_table(metadata: Mapping[str, Any]) -> Forms:
        """The forms of a table, from the JSON beside it. Raises `UsageError`."""
        forms = metadata.get("forms")
        return Forms.from_json(forms.get("chosen") if isinstance(forms, Mapping) else forms)

    def at(self, precision: str) -> Forms:  # noqa: ARG002
        """The forms of layers of this precision: all have the same."""
        return self


#: Everything in the plain form.
PLAIN = Forms()


@dataclass(frozen=True)
class MixedForms:
    """The forms of a network of mixed precision: those of the tables of both precisions."""

    fp32: Forms = PLAIN
    int8: Forms = PLAIN

    def __bool__(self) -> bool:
        return bool(self.fp32 or self.int8)

    def at(self, precision: str) -> Forms:
        """The forms of layers of this precision."""
        return self.int8 if precision == "int8" else self.fp32

    def to_json(self) -> dict[str, dict[str, str]]:
        """A dict of plain JSON types."""
        return {"fp32": self.fp32.to_json(), "int8": self.int8.to_json()}


#: The forms of any network.
AnyForms = Forms | MixedForms


@dataclass(frozen=True)
class Trial:
    """A comparison on the device: the models `keys` in these forms against their plain form."""

    forms: Forms
    keys: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        return {"forms": self.forms.to_json(), "keys": list(self.keys)}


@dataclass(frozen=True)
class Candidates:
    """What a request says about forms: the trials, and for each model with candidates its forms and their SHA-256."""

    trials: tuple[Trial, ...]
    variants: Mapping[str, Mapping[Forms, str]]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        variants = {
            key: [{"forms": forms.to_json(), "sha256": sha256} for forms, sha256 in found.items()]
            for key, found in self.variants.items()
        }
        return {"trials": [trial.to_json() for trial in self.trials], "variants": variants}

    @staticmethod
    def from_json(data: Any) -> Candidates:
        """Read the result of `to_json`. Raises `ValueError`."""
        try:
            trials = tuple(Trial(Forms.from_json(t["forms"]), tuple(map(str, t["keys"]))) for t in data["trials"])
            variants = {
                key: {Forms.from_json(variant["forms"]): str(variant["sha256"]) for variant in found}
                for key, found in data["variants"].items()
            }
        except (KeyError, TypeError, AttributeError, UsageError):
            raise ValueError("'forms' must have 'trials' and 'variants'") from None
        return Candidates(trials, variants)
