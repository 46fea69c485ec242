"""The forms in which models are written: which layers are not written in the plain form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ofa_profiler.errors import UsageError

#: The name of the plain form.
PLAIN_NAME = "plain"


@dataclass(frozen=True)
class Forms:
    """Group of layers -> the name of its form, for groups that are not written in the plain form.

    A group is a text such as `depthwise 7x7, stride 2`. `export/forms` defines groups and forms.
    """

    chosen: Mapping[str, str] = field(default_factory=dict)

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


#: Everything in the plain form.
PLAIN = Forms()
