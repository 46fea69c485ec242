"""Where `ofa-prune` has its milliseconds from: a device that is measured, or the grid of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ofa_profiler.base.progress import Reporter
from ofa_profiler.cli.terminal import say
from ofa_profiler.devices import Device
from ofa_profiler.tables.table import LatencyTable
from ofa_search.cli.prune_request import Request
from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.groups import Kept
from ofa_search.pruning.latency.chooser import LatencyChooser, chooser
from ofa_search.pruning.latency.model import LatencyModel, measured_model, model_of_table
from ofa_search.results.pruned import Latency
from ofa_search.results.pruned_build import WholeNetwork, check_exports

_SETTINGS = ("runtime", "runtime_version", "precision", "provider", "threads", "runtime_options")


@dataclass(frozen=True, eq=False)
class Latencies:
    """The latency of the network by what it keeps, and the chooser for the budget."""

    model: LatencyModel
    choose: LatencyChooser
    latency: Latency
    #: Predicted milliseconds of the network as it is.
    whole_ms: float
    #: Whether the network needs no pruning.
    whole_is_within: bool

    def predicted_ms(self, kept: Kept) -> float:
        """The predicted milliseconds of a network that the chooser chose."""
        return self.model.predicted_ms({group: len(units) for group, units in kept.items()})


def find_latencies(
    request: Request, whole: WholeNetwork, device: Device | None, reporter: Reporter | None
) -> Latencies:
    """Measure, or read the table. The device must be open.

    Raises `InfeasibleError` if no pruned network can keep the budget, and `UsageError` if the network cannot be
    exported, which is known before anything is measured.
    """
    model = _model(request, whole, device, reporter)
    path = model.path
    assert path is not None, "both kinds of model have a table"
    choose = chooser(model, request.budget_ms)
    if device is None:  # after what is known at once
        check_exports(whole, request.settings.target.runtime)
    whole_ms = model.whole_ms if device is None else model.measure_networks([{}])[0][0]
    low_ms, _ = model.attainable_ms
    how = "predicted" if device is None else "measured"
    say(f"the network takes {whole_ms:.4g} ms ({how}); pruned networks take {low_ms:.4g} ms or more")
    measured, possible = model.grid.n_points
    missing = possible - measured if device is None else 0
    if missing:
        say(f"note: {path.name} lacks {missing} of {possible} points, which are not used; nothing is measured")
    metadata = LatencyTable.load(path).metadata
    settings = {name: metadata.get(name) for name in _SETTINGS}
    latency = Latency(path.stem, _device_name(metadata.get("device")), settings, request.budget_ms, missing)
    return Latencies(model, choose, latency, model.whole_ms, whole_ms <= request.budget_ms)


def _model(request: Request, whole: WholeNetwork, device: Device | None, reporter: Reporter | None) -> LatencyModel:
    shapes = ["x".join(map(str, request.shape))]
    if device is None:
        assert request.lut is not None, "the request has a device or a table"
        return model_of_table(whole.dependencies, shapes, request.lut, request.settings.target.runtime)
    check_exports(whole, request.settings.target.runtime)
    return measured_model(
        whole.module,
        whole.dependencies,
        shapes,
        cut,
        device,
        request.settings,
        request.out,
        name=f"{request.name}-grid",
        progress=reporter,
    )


def _device_name(device: Any) -> str:
    return str(device.get("model") or "unknown") if isinstance(device, dict) else "unknown"
