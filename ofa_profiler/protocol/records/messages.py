"""What an agent says to its host alone. No journal keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.protocol.records.values import JsonObject


@dataclass(frozen=True)
class Waiting:
    """The agent waits: for another measurement on the device, or, if `why` is not empty, for that reason."""

    why: str

    @staticmethod
    def from_json(data: JsonObject) -> Waiting:
        """Takes anything."""
        return Waiting(data["why"] if isinstance(data.get("why"), str) else "")


@dataclass(frozen=True)
class Alive:
    """The answer to a sign of life of the host."""


@dataclass(frozen=True)
class Fatal:
    """Nothing can be measured. `usage`: another request could work; `transient`: another start may help."""

    error: str
    usage: bool
    transient: bool

    @staticmethod
    def from_json(data: JsonObject) -> Fatal:
        """Takes anything: whatever the reason, the agent has ended."""
        return Fatal(str(data.get("error")), data.get("usage") is True, data.get("transient") is True)


@dataclass(frozen=True)
class Unknown:
    """A record of another version. It is ignored."""

    type: str
