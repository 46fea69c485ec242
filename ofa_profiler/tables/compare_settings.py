"""What two tables differ in besides their times: device, runtime, settings and forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ofa_profiler.protocol.forms import PLAIN_NAME
from ofa_profiler.protocol.identity import EXECUTION, HARDWARE, DeviceIdentity, difference
from ofa_profiler.tables.table import LatencyTable

REPEAT, VERSION, SETTINGS, DEVICE, UNKNOWN = "repeat", "version", "settings", "device", "unknown"
#: Fields of the JSON, beside those that identify a device.
_SETTINGS = ("precision", "threads", "batch", "encoding", "ranges")
#: Fields that are listed, and are no settings of a measurement.
_ABOUT = ("runtime_options", "date", "tool_version")


@dataclass(frozen=True)
class Setting:
    """A field with different values, as texts; None: unknown."""

    name: str
    base: str | None
    table: str | None

    def to_json(self) -> dict[str, str | None]:
        """A dict of plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class FormDifference:
    """A group of layers that was measured in different forms."""

    group: str
    base: str
    table: str

    def to_json(self) -> dict[str, str]:
        """A dict of plain JSON types."""
        return asdict(self)


def settings_of(base: LatencyTable, other: LatencyTable) -> tuple[Setting, ...]:
    """The fields in which the tables differ. A field that is unknown for one of them only is listed too."""
    said = [_settings(table) for table in (base, other)]
    return tuple(
        Setting(name, _text(said[0][name]), _text(said[1][name])) for name in said[0] if said[0][name] != said[1][name]
    )


def _settings(table: LatencyTable) -> dict[str, Any]:
    identity, metadata = DeviceIdentity.from_table(table.metadata), table.metadata
    device = metadata.get("device")
    found = {name: getattr(identity, name) for name in (*HARDWARE, *EXECUTION)}
    found["governor"] = device.get("governor") if isinstance(device, Mapping) else None
    return found | {name: _setting(table, name) for name in _SETTINGS} | {name: metadata.get(name) for name in _ABOUT}


def _setting(table: LatencyTable, name: str) -> Any:
    """A setting from the JSON, else from the rows."""
    value = table.metadata.get(name)
    if value is None and name in ("precision", "batch"):
        value = getattr(table.rows[0], name)
    return None if value == "" else value


def _text(value: Any) -> str | None:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "not pinned"
    return None if value is None else str(value)


def form_differences(base: LatencyTable, other: LatencyTable) -> tuple[FormDifference, ...]:
    """The groups of layers whose form differs."""
    one, two = base.forms.chosen, other.forms.chosen
    return tuple(
        FormDifference(group, one.get(group, PLAIN_NAME), two.get(group, PLAIN_NAME))
        for group in sorted({*one, *two})
        if one.get(group) != two.get(group)
    )


def question_of(base: LatencyTable, other: LatencyTable) -> str:
    """What the comparison of two tables can answer: see `PairComparison.question`."""
    one, two = (DeviceIdentity.from_table(table.metadata) for table in (base, other))
    if one.model is None or two.model is None:
        return UNKNOWN
    if difference(one, two, HARDWARE):
        return DEVICE
    execution = [name for name in EXECUTION if name != "runtime_version"]
    if difference(one, two, execution) or any(_setting(base, name) != _setting(other, name) for name in _SETTINGS):
        return SETTINGS
    return VERSION if difference(one, two, ("runtime_version",)) else REPEAT
