"""The latency model of a network on a device: a grid that grows by the points that are asked for.

design -> points and whole networks measured -> interpolated -> choice -> its points measured -> chosen again
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.devices.base import Device
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.model_request import runs_on_this_cpu
from ofa_profiler.measuring.session import MeasuringReporter
from ofa_profiler.measuring.table_from_journal import table_metadata
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.genes import Genomes
from ofa_search.pruning.groups import Counts, Dependencies
from ofa_search.pruning.latency.choice import MEGA_MACS, MILLISECONDS, Choice, choose, value_of
from ofa_search.pruning.latency.correction import Correction
from ofa_search.pruning.latency.design import DESIGN_LEVELS, design, networks_for_correction
from ofa_search.pruning.latency.exporters import EXPORTERS
from ofa_search.pruning.latency.exporting import Cut
from ofa_search.pruning.latency.grid import Grid
from ofa_search.pruning.latency.measuring import Measuring, fingerprint, points_of, settings_for
from ofa_search.pruning.latency.slots import Blocks, CutNetwork, check_prunable, find_places
from ofa_search.pruning.latency.space import PruningSpace
from ofa_search.pruning.latency.table import load_grid, save_grid

if TYPE_CHECKING:
    import torch

#: Whole networks for the correction.
CORRECTION_NETWORKS = 12
#: Times that the points of a choice are measured before it is taken as it is.
_MOST_ROUNDS = 3

Saliencies = Mapping[str, NDArray[np.float64]]


@dataclass(eq=False)
class LatencyModel:
    """Predicts the latency of a network from the units that it keeps, and measures what it does not know.

    Without `measuring` it has a table alone: then networks with points that were not measured are not used.
    """

    dependencies: Dependencies
    grid: Grid
    blocks: Blocks | None = None
    measuring: Measuring | None = None
    design_replay: Replay | None = None
    #: The CSV of the table.
    path: Path | None = None

    @property
    def space(self) -> PruningSpace:
        """The networks."""
        return self.grid.space

    @property
    def cost(self) -> AdditiveCost:
        """The milliseconds of all networks, as far as they may be used."""
        return self.grid.interpolated if self.measuring is not None else self.grid.measured_only

    @property
    def whole_ms(self) -> float:
        """The predicted milliseconds of the whole network."""
        return float(self.cost.evaluate(self.space.full[np.newaxis])[0])

    @property
    def attainable_ms(self) -> tuple[float, float]:
        """The lowest and the highest predicted milliseconds."""
        return self.cost.minimum()[0], self.cost.maximum()[0]

    def predicted_ms(self, counts: Counts) -> float:
        """The predicted milliseconds of a network whose units are levels. Groups without a count are whole."""
        return float(self.cost.evaluate(self.space.genome(self._all(counts))[np.newaxis])[0])

    def choose(self, saliencies: Saliencies, budget_ms: float, *, exactly: bool = False) -> Choice:
        """The most valuable network within a budget. Raises `InfeasibleError` with the attainable range.

        With `exactly`, points of the choice that are interpolated are measured, and it is chosen again.
        """
        value = value_of(self.space, saliencies)
        found = choose(self.cost, value, budget_ms, MILLISECONDS)
        for _ in range(_MOST_ROUNDS if exactly and self.measuring is not None else 0):
            if not self.grid.missing(self.space.counts(found.genome)):
                break
            self.measure([found.genome, *_neighbours(found.genome, self.space)])
            found = choose(self.cost, value, budget_ms, MILLISECONDS)
        return found

    def choose_by_macs(self, saliencies: Saliencies, budget_macs: float) -> Choice:
        """The most valuable network within a budget of multiply-accumulates. Raises `InfeasibleError`."""
        return choose(self.grid.macs, value_of(self.space, saliencies), budget_macs, MEGA_MACS)

    # --- measuring -----------------------------------------------------------------------------------

    def network(self, counts: Counts) -> CutNetwork:
        """The network cut to `counts`, and its blocks. Raises `UsageError` without a module."""
        assert self.blocks is not None, "a model of a table alone has no module"
        return self.blocks.network(self._all(counts))

    def measure(self, genomes: Sequence[Genomes]) -> None:
        """Measure the points of these networks that are missing. One that is cut differently is left out."""
        assert self.measuring is not None
        assert self.design_replay is not None
        asked = self.measuring.asked(self.space.places, self._cut(genomes), self.grid.points)
        if asked.models:
            self.grid = self.grid.with_points(points_of(self.measuring.more(asked, self.design_replay)))
            self._save()

    def _cut(self, genomes: Iterable[Genomes]) -> Iterator[CutNetwork]:
        """The networks with missing points that can be cut as the whole network is."""
        for genome in genomes:
            counts = self.space.counts(genome)
            if self.grid.missing(counts):
                with suppress(UsageError):
                    yield self.network(counts)

    def measure_networks(self, several: Sequence[Counts]) -> tuple[list[float], float]:
        """The measured milliseconds of whole networks, in turns, and their noise as a fraction."""
        assert self.measuring is not None
        assert self.blocks is not None
        whole = self.blocks.whole
        return self.measuring.networks([(self._all(counts), whole(self._all(counts))) for counts in several])

    def _all(self, counts: Counts) -> dict[str, int]:
        return {group.name: counts.get(group.name, group.n_units) for group in self.dependencies.groups}

    def _save(self) -> None:
        assert self.path is not None
        assert self.design_replay is not None
        assert self.measuring is not None
        metadata = {**table_metadata(self.design_replay), "pruning": dict(self.measuring.about)}
        save_grid(self.grid, self.path, metadata, self.design_replay.run.settings.target)


def measured_model(
    module: torch.nn.Module,
    dependencies: Dependencies,
    shapes: Sequence[str],
    cut: Cut,
    device: Device,
    settings: Settings,
    out: Path,
    *,
    name: str = "pruning",
    levels: int = DESIGN_LEVELS,
    networks: int = CORRECTION_NETWORKS,
    cache_dir: Path | None = None,
    progress: MeasuringReporter | None = None,
) -> LatencyModel:
    """Measure a design of `levels` levels on `device` into `out/NAME.{csv,json,jsonl}`, and `networks` whole networks.

    `shapes` are values of `--shape`. An interrupted call with the same arguments is resumed. Raises `UsageError` if
    the network cannot be exported, cut or pruned, or if the journals are of another one; `DeviceError` when the device
    fails.
    """
    settings = settings_for(settings)
    exporter = EXPORTERS[settings.target.runtime](module, dependencies, shapes, cut)
    blocks = Blocks(exporter, this_machine=runs_on_this_cpu(device.spec, settings))
    places = find_places(blocks, dependencies.groups)
    check_prunable(places)
    space = PruningSpace.of(dependencies.groups, places)
    about = {"fingerprint": network_fingerprint(dependencies, shapes), "shapes": list(shapes), "levels": levels}
    measuring = Measuring(device, settings, out, name, about, cache_dir, progress)
    unit_channels = {group.name: group.unit_channels for group in dependencies.groups}
    model = LatencyModel(dependencies, Grid(space, unit_channels, {}), blocks, measuring)
    genomes = design(space, levels)
    model.design_replay = measuring.design(measuring.asked(places, model._cut(genomes), ()))
    for replay in (model.design_replay, *measuring.journals()):
        model.grid = model.grid.with_points(points_of(replay))
    model.path = out / f"{name}.csv"
    genomes = _measured_ones(model, genomes)
    chosen = genomes[networks_for_correction(model.grid.sums.evaluate(genomes), networks)]
    several = [space.counts(genome) for genome in chosen]
    ms, _ = measuring.networks([(counts, blocks.whole(counts)) for counts in several], "networks")
    sums_ms, megabytes = (cost.evaluate(chosen) for cost in (model.grid.sums, model.grid.megabytes))
    correction = Correction.fitted(sums_ms, megabytes, np.array(ms))
    model.grid = replace(model.grid, correction=correction)
    model._save()
    return model


def _measured_ones(model: LatencyModel, genomes: Genomes) -> Genomes:
    """The networks all of whose points are measured. Raises `UsageError` if most are cut differently."""
    found = [genome for genome in genomes if not model.grid.missing(model.space.counts(genome))]
    if 2 * len(found) < len(genomes):
        raise UsageError(
            f"{len(genomes) - len(found)} of {len(genomes)} pruned networks have other blocks than the whole network, "
            "so their latency cannot be added up"
        )
    return np.array(found, dtype=np.int8)


def model_of_table(
    dependencies: Dependencies, shapes: Sequence[str], path: Path, runtime: str | None = None
) -> LatencyModel:
    """The model of a table that `measured_model` wrote.

    Raises `InputFileError` if it is of another network, or of another runtime than this one.
    """
    grid = load_grid(path, dependencies, network_fingerprint(dependencies, shapes), runtime)
    return LatencyModel(dependencies, grid, path=path)


def network_fingerprint(dependencies: Dependencies, shapes: Sequence[str]) -> str:
    """What two networks with equal times for equal units have in common: sizes and names, no values."""
    groups: list[Any] = [
        (
            group.name,
            group.n_units,
            group.unit_channels,
            [(axis.tensor, axis.axis, len(axis.units)) for axis in (*group.made, *group.read)],
        )
        for group in dependencies.groups
    ]
    return fingerprint((groups, list(shapes)))


def _neighbours(genome: Genomes, space: PruningSpace) -> list[Genomes]:
    """The networks one level up and down in all genes."""
    moved = [np.clip(genome.astype(int) + step, 0, space.full).astype(np.int8) for step in (1, -1)]
    return [other for other in moved if not np.array_equal(other, genome)]
