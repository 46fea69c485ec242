"""The latency model of a network on a device: a grid that grows by the points that are asked for.

design -> points and whole networks measured -> interpolated -> choice -> its points measured -> chosen again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.devices.base import Device
from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.errors import UsageError
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
from ofa_search.pruning.latency.exporting import Cut, Exporter
from ofa_search.pruning.latency.grid import Grid
from ofa_search.pruning.latency.measuring import Asked, Measuring, fingerprint, points_of, settings_for
from ofa_search.pruning.latency.slots import Blocks, CutNetwork, check_prunable, find_places
from ofa_search.pruning.latency.space import PruningSpace
from ofa_search.pruning.latency.table import load_grid, save_grid

if TYPE_CHECKING:
    import torch

#: Whole networks for the correction.
CORRECTION_NETWORKS = 8
#: Times that the points of a choice are measured before it is taken as it is.
_MOST_ROUNDS = 3
#: A network of this share of levels tells where the blocks of pruned networks find their tensors and weights.
_USUAL_SHARE = 0.7

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
    #: The cut networks of this session, by their units.
    _networks: dict[tuple[tuple[str, int], ...], CutNetwork] = field(default_factory=dict)

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
        key = tuple(sorted(self._all(counts).items()))
        if key not in self._networks:
            self._networks[key] = self.blocks.network(self._all(counts))
        return self._networks[key]

    def measure(self, genomes: Sequence[Genomes]) -> None:
        """Measure the points of these networks that are missing. One that is cut differently is left out."""
        assert self.measuring is not None
        assert self.design_replay is not None
        networks = []
        for genome in genomes:
            counts = self.space.counts(genome)
            if self.grid.missing(counts):
                with suppress(UsageError):
                    networks.append(self.network(counts))
        asked = Asked.of(self.space.places, networks, self.grid.points)
        if asked.blocks:
            self.grid = self.grid.with_points(points_of(self.measuring.more(asked, self.design_replay)))
            self._save()

    def measure_networks(self, several: Sequence[Counts]) -> tuple[list[float], float]:
        """The measured milliseconds of whole networks, in turns, and their noise as a fraction."""
        assert self.measuring is not None
        assert self.blocks is not None
        return self.measuring.networks([(counts, self.blocks.whole(self._all(counts))) for counts in several])

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
    blocks = Blocks(Exporter(module, dependencies, shapes, cut), device.spec == LocalDevice.spec)
    places = find_places(blocks, dependencies.groups)
    check_prunable(places)
    space = PruningSpace.of(dependencies.groups, places)
    about = {"fingerprint": network_fingerprint(dependencies, shapes), "shapes": list(shapes), "levels": levels}
    measuring = Measuring(device, settings, out, name, about, cache_dir, progress)
    unit_channels = {group.name: group.unit_channels for group in dependencies.groups}
    model = LatencyModel(dependencies, Grid(space, unit_channels, {}), blocks, measuring)
    genomes, cut_networks = _cut(model, design(space, levels))
    middle = model.network(space.counts(np.round(_USUAL_SHARE * space.full).astype(np.int8)))
    asked = Asked.of(places, cut_networks, {})
    model.design_replay = measuring.design(asked, middle)
    for replay in (model.design_replay, *measuring.journals()):
        model.grid = model.grid.with_points(points_of(replay))
    model.path = out / f"{name}.csv"
    chosen = networks_for_correction(model.grid.sums.evaluate(genomes), networks)
    several = [(cut_networks[i].counts, cut_networks[i].whole) for i in chosen]
    ms, _ = measuring.networks(several, "networks")
    correction = Correction.fitted(model.grid.sums.evaluate(genomes[chosen]), np.array(ms))
    model.grid = replace(model.grid, correction=correction)
    model._save()
    return model


def _cut(model: LatencyModel, genomes: Genomes) -> tuple[Genomes, list[CutNetwork]]:
    """The genomes of networks that have the blocks of the whole network, and these. Raises `UsageError` if few have."""
    kept, networks, why = [], [], ""
    for genome in genomes:
        try:
            networks.append(model.network(model.space.counts(genome)))
            kept.append(genome)
        except UsageError as error:  # noqa: PERF203 (each takes long)
            why = str(error)
    if 2 * len(kept) < len(genomes):
        raise UsageError(f"{len(genomes) - len(kept)} of {len(genomes)} pruned networks have other blocks: {why}")
    return np.array(kept, dtype=np.int8), networks


def model_of_table(dependencies: Dependencies, shapes: Sequence[str], path: Path) -> LatencyModel:
    """The model of a table that `measured_model` wrote. Raises `InputFileError` if it is of another network."""
    grid = load_grid(path, dependencies, network_fingerprint(dependencies, shapes))
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
