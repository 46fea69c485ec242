"""Measures points and whole networks on a device, into journals beside the table."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.measuring.expectation import milliseconds
from ofa_profiler.measuring.model_request import cached_models, in_network
from ofa_profiler.measuring.profile import check_same_device
from ofa_profiler.measuring.session import MeasuringReporter, measure, measure_into
from ofa_profiler.models.base import TimedModel
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol import records
from ofa_profiler.protocol.identity import request_difference
from ofa_profiler.protocol.journal import Journal, read_journal
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.model_file import Model
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.steady import noise_of, steady_times
from ofa_profiler.verification.conditions import network_settings
from ofa_search.pruning.groups import Counts
from ofa_search.pruning.latency.exporters import EXPORTERS
from ofa_search.pruning.latency.grid import Point
from ofa_search.pruning.latency.slots import CutNetwork
from ofa_search.pruning.latency.space import Place, point_key

#: Of one visit.
_FEWEST_SAMPLES = 3


def settings_for(settings: Settings) -> Settings:
    """The settings of points. Raises `UsageError` for a runtime or precision for which nothing can be exported here."""
    target = settings.target
    if target.runtime not in EXPORTERS or target.precision != "fp32" or target.batch != 1:
        raise UsageError(f"networks are pruned for {' or '.join(EXPORTERS)} in fp32 with batch 1, not for {target}")
    return replace(settings, min_visit_samples=min(settings.min_visit_samples, _FEWEST_SAMPLES))


@dataclass(frozen=True, eq=False)
class Asked:
    """Points to measure: each once, and one of several whose models differ in the values of weights alone."""

    ops: Mapping[str, Op]
    #: Those that are measured, as files.
    models: tuple[Model, ...]
    #: Point -> the point that is measured for it.
    measured_as: Mapping[str, str]
    #: The settings under which blocks of a network of middle size find their data where the network leaves them.
    settings: Settings

    def to_json(self) -> list[dict[str, Any]]:
        """The points in a journal."""
        return [{"op": op.to_json(), "measured": self.measured_as[key]} for key, op in self.ops.items()]


def points_of(replay: Replay) -> dict[str, Point]:
    """The points of a journal, as far as they were measured. Raises `DeviceError` if all failed."""
    measured = replay.measurements()
    if measured and not any(found.ok for found in measured.values()):
        raise DeviceError(f"the device runs no block: {next(iter(measured.values())).error}")
    points = {}
    for each in replay.run.about["points"]:
        if (found := measured.get(each["measured"])) is not None:
            op = Op.from_json(each["op"])
            points[op.key] = Point(op, found.median_ms if found.ok else None)
    return points


@dataclass(frozen=True, eq=False)
class Measuring:
    """Measures on `device`, into journals `folder/NAME*.jsonl`."""

    device: Device
    settings: Settings
    folder: Path
    name: str
    #: What the journals say about the network, in plain JSON types.
    about: Mapping[str, Any]
    cache_dir: Path | None = None
    progress: MeasuringReporter | None = None

    def asked(self, places: Sequence[Place], networks: Iterable[CutNetwork], known: Container[str]) -> Asked:
        """The points of `networks` that are not `known`. The networks pass one by one, because they can be large."""
        ops: dict[str, Op] = {}
        first: dict[str, str] = {}
        measured_as: dict[str, str] = {}
        models: list[Model] = []
        spread = []
        for network in networks:
            spread.append(in_network(self.settings, network.blocks))
            for place, block in zip(places, network.blocks, strict=True):
                key = place.key(network.counts)
                if key in known or key in ops:
                    continue
                ops[key] = replace(block.op, key=key, kind=place.kind)
                measured_as[key] = first.setdefault(block.signature, key)
                if measured_as[key] == key:
                    models += cached_models(self.settings.target.runtime, {key: block.model}, self.cache_dir)
        spread.sort(key=lambda settings: (settings.weight_bytes, settings.spread_bytes))
        settings = spread[len(spread) // 2] if spread else self.settings
        return Asked(ops, tuple(models), measured_as, settings)

    def design(self, asked: Asked) -> Replay:
        """The points of the design. Raises `UsageError` if the journal is of another network, device or settings."""
        return self._measured(self.folder / f"{self.name}.jsonl", asked, asked.settings)

    def more(self, asked: Asked, design: Replay) -> Replay:
        """Points beyond the design, in a journal of their own. One that exists and has other points stays."""
        settings = replace(design.run.settings, time_limit_s=self.settings.time_limit_s)
        number, path = 1, self._more(1)
        while path.exists() and not self._continues(path, asked, settings):
            number, path = number + 1, self._more(number + 1)
        return self._measured(path, asked, settings)

    def journals(self) -> Iterator[Replay]:
        """The journals of further points that there are."""
        number = 1
        while (path := self._more(number)).exists():
            try:
                replay = read_journal(path)[0]
            except InputFileError:
                replay = None
            if replay is not None and replay.run.about.get("pruning") == self.about:
                yield replay
            number += 1

    def _more(self, number: int) -> Path:
        return self.folder / f"{self.name}-more-{number}.jsonl"

    def _run(self, asked: Asked, settings: Settings) -> records.Run:
        about = {"spaces": [], "pruning": self.about, "points": asked.to_json()}
        return run_record(asked.models, settings, about, [asked.ops[model.key] for model in asked.models])

    def _continues(self, path: Path, asked: Asked, settings: Settings) -> bool:
        try:
            found = read_journal(path)[0].run
        except InputFileError:
            return False
        return not request_difference(found, self._run(asked, settings))

    def _measured(self, path: Path, asked: Asked, settings: Settings) -> Replay:
        self.device.prepare_runtime(settings.target.runtime)
        described = self.device.describe()
        expected = {
            key: milliseconds(int(op.attributes["macs"]), int(op.attributes["bytes"])) for key, op in asked.ops.items()
        }
        with Journal(path, self._run(asked, settings)) as journal:
            check_same_device(journal.replay, described, path)
            measure_into(journal, self.device, asked.models, settings, self.progress, expected)
            return journal.replay

    def networks(
        self, networks: Iterable[tuple[Counts, TimedModel]], journal: str | None = None
    ) -> tuple[list[float], float]:
        """The milliseconds of whole networks that are measured in turns, and their noise as a fraction.

        With the name of a `journal`, an interrupted measurement is resumed. Raises `DeviceError` if one fails.
        """
        settings = network_settings(self.settings)
        keys, units = [], []
        models: list[Model] = []
        for counts, whole in networks:
            keys.append(point_key("network", list(counts.values())))
            units.append(dict(counts))
            models += cached_models(settings.target.runtime, {keys[-1]: whole}, self.cache_dir)
        self.device.prepare_runtime(settings.target.runtime)
        about = {"spaces": [], "pruning": self.about, "units": units}
        path = None if journal is None else self.folder / f"{self.name}-{journal}.jsonl"
        found = measure(self.device, models, settings, journal=path, about=about, progress=self.progress)
        for measurement in found.values():
            if not measurement.ok:
                raise DeviceError(f"a pruned network failed on the device: {measurement.error}")
        times = steady_times(found.values())
        noise = noise_of(times.values())
        return [times[key].ms for key in keys], 0.0 if noise != noise else noise


def fingerprint(values: object) -> str:
    """A short name of plain values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
