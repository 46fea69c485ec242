"""Records of a small journal: two models on one device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ofa_profiler.protocol.records import Run
from ofa_profiler.protocol.settings import Settings

SETTINGS = Settings()
RUN = {
    "type": "run",
    "format": 1,
    "created": "2026-01-01T00:00:00+00:00",
    "settings": SETTINGS.to_json(),
    "about": {"spaces": ["cifar-mbv3"], "resolutions": [24]},
    "models": {"a": "00", "b": "11"},
}
DEVICE = {
    "type": "device",
    "time": "2026-01-01T00:00:01+00:00",
    "model": "Board",
    "runtime": {"name": "onnxruntime", "version": "1.20"},
    "uncontrolled": [],
}
END = {"type": "end", "time_limit_s": 600.0, "cut_short": [], "noisy": []}
REQUEST = Run.from_json(RUN)


def visit(key: str, number: int, samples: list[int]) -> dict[str, Any]:
    return {
        "type": "visit",
        "key": key,
        "round": number,
        "status": "ok",
        "warmup_ns": 10,
        "samples_ns": samples,
        "seconds": 0.1,
        "half_width": None,
    }


def failed(key: str, number: int) -> dict[str, Any]:
    return {"type": "visit", "key": key, "round": number, "status": "failed", "error": "no", "seconds": 0.1}


def write(path: Path, *records: dict[str, Any]) -> bytes:
    data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    path.write_bytes(data)
    return data


def look(**values: Any) -> dict[str, Any]:
    """A measurement of the reference op."""
    return {**visit("a", 0, [5]), "type": "reference", "drifted": False, "again": False, **values}
