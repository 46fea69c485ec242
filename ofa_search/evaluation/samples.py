"""Samples for accuracy predictors (architectures and their accuracies), in files that survive any interruption.

A folder holds `STEM.json`, which describes the samples, and one file for every process that measured some,
`STEM-RANK-of-SIZE.csv`: `index` in the order in which architectures are drawn, `accuracy` in [0, 1], the
number of `images`, and the `architecture` as JSON. A row is synced to disk before the next architecture is
measured. A run with any number of processes reads all files and measures what is missing.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ofa_profiler.base.files import keep_old, write_text
from ofa_profiler.base.locks import try_lock
from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.sampling import leaning_genomes
from ofa_search.evaluation.world import World

COLUMNS = ("index", "accuracy", "images", "architecture")
#: One in this many architectures prefers small or large choices.
_LEANING = 4
_DRAWN_TOGETHER = 64
_PATIENCE = 100


@dataclass(frozen=True)
class Sample:
    """Top-1 in [0, 1] of the architecture that was drawn as number `index`, on this many images."""

    index: int
    accuracy: float
    images: int
    architecture: Architecture


# --- which architectures -----------------------------------------------------------------------------


def draw_architectures(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Draw `count` distinct architectures. With a larger `count`, the first ones stay the same.

    The smallest and the largest are first. Then every choice is drawn evenly (arXiv 1908.09791, section
    3.2), so nearly all architectures are middle-sized. Every fourth prefers small or large choices, so that
    the predictor also learns the ends of the range. Raises `UsageError` if the space has fewer.
    """
    rng = np.random.default_rng(seed)
    drawn = {row.tobytes(): row for row in space.encode([space.smallest, space.largest])}
    patience = _PATIENCE
    while len(drawn) < count:
        if patience == 0:
            raise UsageError(f"found only {len(drawn)} distinct architectures of {space.name}, not {count}")
        before = len(drawn)
        even, leaning = space.sample_genomes(rng, _DRAWN_TOGETHER), leaning_genomes(space, _DRAWN_TOGETHER, rng)
        # Duplicates are dropped before the two kinds are mixed, because the kind follows from the index.
        mixed = _mixed(_new(even, drawn), _new(leaning, drawn))
        drawn |= {row.tobytes(): row for row in mixed}
        patience = patience - 1 if len(drawn) == before else _PATIENCE
    return space.decode(np.array(list(drawn.values())[:count]))


def is_drawn_evenly(index: int) -> bool:
    """Return whether every choice of the architecture with this number was drawn evenly."""
    return index >= 2 and (index - 2) % _LEANING != _LEANING - 1


def _new(rows: Genomes, known: Mapping[bytes, Genomes]) -> list[Genomes]:
    distinct = {row.tobytes(): row for row in rows}
    return [row for key, row in distinct.items() if key not in known]


def _mixed(even: list[Genomes], leaning: list[Genomes]) -> list[Genomes]:
    """Return groups of three even ones and a leaning one; an incomplete group is dropped."""
    taken = {row.tobytes() for row in even}
    leaning = [row for row in leaning if row.tobytes() not in taken]
    mixed: list[Genomes] = []
    for number in range(min(len(even) // (_LEANING - 1), len(leaning))):
        mixed += [*even[number * (_LEANING - 1) : (number + 1) * (_LEANING - 1)], leaning[number]]
    return mixed


# --- measured, in a folder -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleFolder:
    """The samples named `stem` in `folder`. `about` describes them: samples with another description are refused."""

    folder: Path
    stem: str
    about: Mapping[str, Any]

    def collect(
        self,
        wanted: Mapping[int, Architecture],
        images: int,
        measure: Callable[[Architecture], float],
        world: World,
        progress: Reporter | None = None,
    ) -> list[Sample]:
        """Measure the `wanted` samples (by number) that are missing, and return all of them.

        The processes share the work. `progress` counts samples; its phase is the `stem`. Raises
        `InputFileError` for samples with another description, and for damaged ones.
        """
        self._check()
        world.wait()
        if world.leads and not self._about_path.exists():
            write_text(self._about_path, json.dumps(dict(self.about), indent=2) + "\n")
        world.wait()
        known = self.read(wanted, images)
        if not world.agree(len(known)):
            raise UsageError(f"the processes do not see the same {self.folder}: --out must be a folder that all share")
        missing = [index for index in wanted if index not in known]
        path = self.folder / f"{self.stem}-{world.rank}-of-{world.size}.csv"
        with _Shard(path) as shard:
            for done, index in enumerate(missing[world.rank :: world.size]):
                report(progress, self.stem, min(len(known) + done * world.size, len(wanted)), len(wanted))
                shard.append(Sample(index, measure(wanted[index]), images, wanted[index]))
        world.wait()
        report(progress, self.stem, len(wanted), len(wanted))
        known = self.read(wanted, images)
        return [known[index] for index in wanted]

    def forget(self) -> None:
        """Start again. The samples are kept in files with `.old` in place of older ones. Raises `UsageError`."""
        for path in [*self._shards(), self._about_path]:
            keep_old(path)

    @property
    def _about_path(self) -> Path:
        return self.folder / f"{self.stem}.json"

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.stem}-*-of-*.csv"))

    def _check(self) -> None:
        path = self._about_path
        if not path.exists():
            if shards := self._shards():
                raise InputFileError(shards[0], f"its description {path.name} is missing: start over with --fresh")
            return
        try:
            theirs = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InputFileError(path, f"cannot be read ({error}): start over with --fresh") from error
        theirs = theirs if isinstance(theirs, dict) else {}
        for name, ours in self.about.items():
            if theirs.get(name) != ours:
                raise InputFileError(
                    path,
                    f"its samples differ in {name} ({theirs.get(name)!r:.24}, now {ours!r:.24}): "
                    "choose another --out, or start over with --fresh",
                )

    def read(self, wanted: Mapping[int, Architecture], images: int) -> dict[int, Sample]:
        """Return the `wanted` samples that exist, by number. Raises `InputFileError` for an invalid row."""
        found: dict[int, Sample] = {}
        for path in self._shards():
            for row, line in enumerate(_whole_lines(path).decode(errors="replace").split("\n")[:-1], start=1):
                try:
                    sample = _parse(row, line, images)
                    if sample is not None and sample.architecture != wanted.get(sample.index, sample.architecture):
                        raise ValueError(f"not the architecture that is drawn as number {sample.index}")
                except (ValueError, RecursionError, csv.Error, UsageError) as error:
                    raise InputFileError(path, f"{error}: start over with --fresh", row=row) from None
                if sample is not None and sample.index in wanted:
                    found.setdefault(sample.index, sample)
        return found


def _whole_lines(path: Path) -> bytes:
    """Return the content of a file without an incomplete last line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputFileError(path, error.strerror or str(error)) from error
    return data[: data.rfind(b"\n") + 1]


def _parse(row: int, line: str, images: int) -> Sample | None:
    """Return the sample in a row, None for the header. Raises `ValueError`, `csv.Error`, `UsageError`."""
    fields = next(csv.reader([line]), [])
    if row == 1:
        if tuple(fields) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        return None
    if len(fields) != len(COLUMNS):
        raise ValueError(f"has {len(fields)} columns, not {len(COLUMNS)}")
    sample = Sample(int(fields[0]), float(fields[1]), int(fields[2]), Architecture.from_json(json.loads(fields[3])))
    if not 0 <= sample.accuracy <= 1 or sample.index < 0:
        raise ValueError(f"accuracy {fields[1]:.20} of number {fields[0]:.20}")
    if sample.images != images:
        raise ValueError(f"measured on {sample.images} images, not {images}")
    return sample


class _Shard:
    """The file to which one process appends rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        if not try_lock(self._file.fileno()):
            self._file.close()
            raise UsageError(f"another run is writing {path}: wait for it, or choose another --out")
        end = len(_whole_lines(path))
        self._file.truncate(end)
        if end == 0:
            self._write(COLUMNS)

    def append(self, sample: Sample) -> None:
        """Append a sample and sync it to disk. Raises `UsageError`."""
        text = json.dumps(sample.architecture.to_json(), separators=(",", ":"))
        self._write((sample.index, repr(sample.accuracy), sample.images, text))

    def _write(self, fields: Iterable[object]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(fields)
        try:
            self._file.write(line.getvalue().encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __enter__(self) -> _Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
