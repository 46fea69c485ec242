"""The entries of published tables in any YAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import yaml

from ofa_profiler.errors import InputFileError
from ofa_profiler.tables.cells import shown
from ofa_profiler.tables.published_entries import FIELDS, NO_TABLE, Entry

_Event = TypeVar("_Event", bound=yaml.Event)


def yaml_entries(path: Path, text: str) -> Iterator[Entry]:
    """The entries of a file, in order. Raises `InputFileError`.

    They are read from the events of the parser, not loaded as values. Events have line numbers, include repeated keys
    and keep numbers as text (YAML 1.1 reads 1e-05 as a string). Deep nesting, which crashes the C loader, is harmless.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events = yaml.parse(text, Loader=loader)

    def take(kind: type[_Event], problem: str) -> _Event:
        event = next(events)
        if not isinstance(event, kind):
            raise InputFileError(path, problem, row=_line(event))
        return event

    try:
        take(yaml.StreamStartEvent, NO_TABLE)
        take(yaml.DocumentStartEvent, NO_TABLE)
        take(yaml.MappingStartEvent, NO_TABLE)
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise InputFileError(path, "is not the key of an op", row=_line(event))
            take(yaml.MappingStartEvent, f"{shown(event.value)} must be followed by {FIELDS}")
            fields: dict[str, str] = {}
            while not isinstance(field := next(events), yaml.MappingEndEvent):
                value = take(yaml.ScalarEvent, f"{shown(event.value)} must be followed by {FIELDS}")
                fields[getattr(field, "value", "")] = value.value
            yield event.value, fields, _line(event)
        take(yaml.DocumentEndEvent, NO_TABLE)
        take(yaml.StreamEndEvent, "has more content after the table; a file must contain one table")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputFileError(path, f"is not YAML: {problem}", row=mark.line + 1 if mark else None) from None


def _line(event: yaml.Event) -> int | None:
    return event.start_mark.line + 1 if event.start_mark else None
