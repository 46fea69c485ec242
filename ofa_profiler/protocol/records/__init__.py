"""The records of an agent as values: the request, the device, the measurements, the end.

`device_agents/README.md` lists them as JSON. `read_record` checks an object once, so the users of a record need not
check it again. A record keeps the object that it was read from, so fields that this version does not know are written
back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ofa_profiler.protocol.records.device import Device, RuntimeInfo, State
from ofa_profiler.protocol.records.forms import FormsRecord, TrialResult
from ofa_profiler.protocol.records.measured import CoreUse, Disturbed, End, ModelRun, Reference, Visit
from ofa_profiler.protocol.records.messages import Alive, Fatal, Paused, RuntimeLoaded, Unknown, Waiting
from ofa_profiler.protocol.records.profile import KernelTime, NodeProfile
from ofa_profiler.protocol.records.run import FORMAT, FORMAT_WITH_FORMS, FORMAT_WITH_VALUES, Run
from ofa_profiler.protocol.values import JsonObject, Kept

__all__ = [
    "FORMAT",
    "FORMAT_WITH_FORMS",
    "FORMAT_WITH_VALUES",
    "Alive",
    "CoreUse",
    "Device",
    "Disturbed",
    "End",
    "Fatal",
    "FormsRecord",
    "JsonObject",
    "Kept",
    "KernelTime",
    "ModelRun",
    "NodeProfile",
    "Paused",
    "Record",
    "Reference",
    "Run",
    "RuntimeInfo",
    "RuntimeLoaded",
    "State",
    "TrialResult",
    "Unknown",
    "Visit",
    "Waiting",
    "read_record",
]

Record = (
    Run
    | Device
    | FormsRecord
    | NodeProfile
    | Visit
    | Disturbed
    | Reference
    | End
    | Waiting
    | Alive
    | Paused
    | Fatal
    | RuntimeLoaded
    | Unknown
)

_READ: Mapping[str, Callable[[JsonObject], Record]] = {
    "run": Run.from_json,
    "device": Device.from_json,
    "forms": FormsRecord.from_json,
    "profile": NodeProfile.from_json,
    "visit": Visit.from_json,
    "disturbed": Disturbed.from_json,
    "reference": Reference.from_json,
    "end": End.from_json,
    "waiting": Waiting.from_json,
    "alive": lambda _: Alive(),
    "paused": lambda _: Paused(),
    "fatal": Fatal.from_json,
    "runtime": RuntimeLoaded.from_json,
}


def read_record(data: JsonObject) -> Record:
    """Convert an object with a `type` into a record. Raises `ValueError` for an invalid one."""
    read = _READ.get(data["type"])
    return Unknown(data["type"]) if read is None else read(data)
