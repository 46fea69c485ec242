"""`ladder.json`: the networks of a ladder, from the fastest to the most accurate."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError

FILE_NAME = "ladder.json"
FORMAT = 1


@dataclass(frozen=True)
class Rung:
    """A network of a ladder. Higher numbers are slower and better.

    `accuracy` is the predicted top-1 in [0, 1], None if something else was maximised; `score` is what was maximised.
    `resolution` is in pixels, None if the space has no choice of it. `files` are by kind: `onnx`, `tflite`,
    `architecture`.
    """

    number: int
    expected_ms: float
    accuracy: float | None
    score: float
    budget_ms: float
    resolution: int | None
    files: Mapping[str, Path]


@dataclass(frozen=True)
class LadderFile:
    """The content of `ladder.json`. `table` is the latency table that `expected_ms` is of; `runtime`, `provider` and
    `threads` are its settings, None for a published table. `preprocessing` and `labels` are as in a model file.
    """

    space: str
    precision: str
    table: str
    runtime: str | None
    provider: str | None
    threads: int | None
    rungs: Sequence[Rung]
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] | None = None

    def to_json(self, folder: Path) -> dict[str, Any]:
        """The document; files are relative to its folder."""
        names = ("space", "precision", "table", "runtime", "provider", "threads")
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in names},
            "preprocessing": dict(self.preprocessing),
            "labels": None if self.labels is None else list(self.labels),
            "rungs": [_rung_to_json(rung, folder) for rung in self.rungs],
        }

    @classmethod
    def load(cls, path: str | Path) -> LadderFile:
        """Read the file, or the one in a folder. Raises `InputFileError`."""
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputFileError(path, f"cannot be read ({error.strerror}); ofa-search --ladder writes it") from error
        except (ValueError, RecursionError) as error:
            raise InputFileError(path, f"not JSON ({error})") from error
        try:
            return cls._from_json(document, path.parent)
        except KeyError as error:
            raise InputFileError(path, f"{error} is missing") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputFileError(path, f"not a ladder: {error}") from error

    @classmethod
    def _from_json(cls, document: Any, folder: Path) -> LadderFile:
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}, this version reads {FORMAT}")
        rungs = tuple(_rung_of(number, entry, folder) for number, entry in enumerate(document["rungs"]))
        if not rungs:
            raise ValueError("it has no rungs")
        for lower, upper in pairwise(rungs):
            if lower.expected_ms >= upper.expected_ms or lower.score >= upper.score:
                raise ValueError(f"rung {upper.number} is not slower and better than rung {lower.number}")
        names = ("space", "precision", "table", "runtime", "provider", "threads", "preprocessing", "labels")
        return cls(**{name: document[name] for name in names}, rungs=rungs)


def _rung_to_json(rung: Rung, folder: Path) -> dict[str, Any]:
    names = ("expected_ms", "accuracy", "score", "budget_ms", "resolution")
    files = {kind: path.relative_to(folder).as_posix() for kind, path in rung.files.items()}
    return {**{name: getattr(rung, name) for name in names}, "files": files}


def _rung_of(number: int, entry: Mapping[str, Any], folder: Path) -> Rung:
    accuracy = entry["accuracy"]
    return Rung(
        number=number,
        expected_ms=_positive(entry["expected_ms"], "expected_ms"),
        accuracy=None if accuracy is None else float(accuracy),
        score=float(entry["score"]),
        budget_ms=_positive(entry["budget_ms"], "budget_ms"),
        resolution=None if entry["resolution"] is None else int(entry["resolution"]),
        files={kind: folder / name for kind, name in entry["files"].items()},
    )


def _positive(value: Any, name: str) -> float:
    if not (math.isfinite(float(value)) and float(value) > 0):
        raise ValueError(f"{name} must be above zero and finite, not {value!r}")
    return float(value)
