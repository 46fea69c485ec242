"""Messages that an agent sends to its host only. A journal does not contain them."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.protocol.values import JsonObject


@dataclass(frozen=True)
class Waiting:
    """The agent waits. `why` is the reason; if it is empty, another measurement is running on the device."""

    why: str

    @staticmethod
    def from_json(data: JsonObject) -> Waiting:
        """Read any object; an invalid `why` counts as empty."""
        return Waiting(data["why"] if isinstance(data.get("why"), str) else "")


@dataclass(frozen=True)
class Alive:
    """The agent answers a heartbeat of the host."""


@dataclass(frozen=True)
class Paused:
    """The agent has made as many visits as it was asked for, and more are left."""


@dataclass(frozen=True)
class Fatal:
    """The agent cannot measure. `usage`: another request could work; `transient`: a restart may help.

    `cause`: "runtime" if the runtime does not load there and another release may, "noexec" or "memory" if none will.
    """

    error: str
    usage: bool
    transient: bool
    cause: str = ""

    @staticmethod
    def from_json(data: JsonObject) -> Fatal:
        """Read any object: the agent has ended, so the message counts even if it is invalid."""
        return Fatal(
            str(data.get("error")), data.get("usage") is True, data.get("transient") is True, str(data.get("cause", ""))
        )


@dataclass(frozen=True)
class RuntimeLoaded:
    """The answer to `--check`: the runtime loads on the device. `version` is None if the device did not report it."""

    version: str | None

    @staticmethod
    def from_json(data: JsonObject) -> RuntimeLoaded:
        """Read any object."""
        version = data.get("version")
        return RuntimeLoaded(version if isinstance(version, str) else None)


@dataclass(frozen=True)
class Unknown:
    """A record of a type that this version does not know. It is ignored."""

    type: str
