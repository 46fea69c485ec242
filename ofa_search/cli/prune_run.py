"""What `ofa-prune` does, in order; each phase finds what an interrupted run has left."""

from __future__ import annotations

import copy
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ofa_profiler.base.progress import Reporter
from ofa_profiler.cli.lending import lending_of
from ofa_profiler.cli.terminal import say
from ofa_profiler.devices import Device
from ofa_profiler.errors import OverBudgetError
from ofa_profiler.models.image_input import image_input
from ofa_profiler.models.torch_export import load_network
from ofa_search.cli import train_options as common
from ofa_search.cli.prune_latency import Latencies, find_latencies
from ofa_search.cli.prune_request import Request, claim_folder, open_requested
from ofa_search.data.images import DataSplit
from ofa_search.evaluation.networks import check_classes, is_chance, outputs_of, unfreeze
from ofa_search.evaluation.subnets import network_accuracy
from ofa_search.evaluation.world import World, join_world
from ofa_search.pruning.graph.find import find_groups
from ofa_search.pruning.groups import Kept
from ofa_search.results.pruned import PrunedResult, write_document
from ofa_search.results.pruned_build import WholeNetwork, cut_network, uncut, write_network
from ofa_search.results.pruned_measure import measure_for_budget
from ofa_search.results.pruned_report import comparison_rows, latency_words, write_report
from ofa_search.training.loop import LOG
from ofa_search.training.pruning_trainer import PrunableNetwork, PruningOptions, train_pruned

#: A trained network needs small steps, as in `ofa-train subnet`.
_RATES = {"adamw": 1e-3, "sgd": 1e-2}
#: The networks that are measured in turns.
_BEFORE, _AFTER = "before", "after"

_Accuracies = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class _Trained:
    """The network after training, with zeros where units go, what is kept, and how it was trained: None if not."""

    module: nn.Module
    kept: Kept
    training: Mapping[str, Any] | None


def prune_network(request: Request, arguments: Namespace, epochs: float) -> int:
    """Do all of it and report -> the exit code. Raises `OverBudgetError` when all is written."""
    device = open_requested(request, arguments)
    lending = lending_of(arguments, used=device is not None)
    common.prepare_process(arguments.train_threads)
    with (
        join_world(arguments.train_device, "--train-device") as world,
        common.progress(world) as reporter,
        ExitStack() as stack,
    ):
        if world.leads and device is not None:
            stack.enter_context(lending.lent(device))
        result = _Run(request, arguments, epochs, world, device, reporter).result()
    if result is None:
        return lending.exit_code(0)
    common.report(arguments, result.to_json(), _lines(request, result))
    ms = result.after.measured_ms
    if ms is not None and ms > request.budget_ms:
        raise OverBudgetError(f"{latency_words(result)}; all files are written to {request.out}")
    return lending.exit_code(0)


@dataclass(frozen=True, eq=False)
class _Run:
    request: Request
    arguments: Namespace
    epochs: float
    world: World
    #: Open in the leading process; None with a table.
    device: Device | None
    reporter: Reporter | None

    def result(self) -> PrunedResult | None:
        """All phases. The leading process returns the result."""
        request, world = self.request, self.world
        where = f"--model {request.model}"
        module, said = load_network(request.model)
        takes = image_input(said, request.resolution, where)
        outputs = outputs_of(module, takes, where)
        frozen = unfreeze(module)
        if world.leads:
            claim_folder(request)
        data = common.load_data(self.arguments, request.resolution, world, self.reporter)
        labels = data.training.classes
        check_classes(outputs, labels, data.training.name, where)
        groups = find_groups(module, torch.zeros(takes.shape))
        whole = WholeNetwork(request.model, copy.deepcopy(module), takes, labels, groups)
        latencies = None
        before: _Accuracies = {}
        if world.leads:
            _say_groups(whole)
            if frozen:
                say(f"note: {frozen} tensors of weights are frozen (requires_grad is False); they are trained, too")
            latencies = find_latencies(request, whole, self.device, self.reporter)
            before = self._accuracies(module, whole, data)
            _say_before(before, data)
        trained = self._train(module, whole, latencies, data)
        return None if latencies is None else self._write(whole, trained, latencies, data, before)

    def _train(self, module: nn.Module, whole: WholeNetwork, latencies: Latencies | None, data: DataSplit) -> _Trained:
        """Train, unless the network is within the budget. All processes take part."""
        within = torch.tensor([latencies is not None and latencies.whole_is_within], device=self.world.device)
        self.world.broadcast([within])
        if within:
            if self.world.leads:
                say(f"note: the network is within the budget of {self.request.budget_ms:g} ms: nothing is pruned")
            return _Trained(module, {}, None)
        network = PrunableNetwork(
            module,
            whole.dependencies,
            whole.image_input.preprocessing,
            whole.image_input.resolution,
            {"model": whole.model},
        )
        rate = _RATES[self.arguments.optimizer]
        found = train_pruned(
            network,
            latencies.choose if latencies is not None else _asked_of_another,
            common.training_options(self.arguments, epochs=self.epochs, learning_rate=rate),
            PruningOptions(optimizer=self.request.method),
            data,
            self.request.out,
            self.world,
            fresh=self.request.fresh,
            progress=self.reporter,
        )
        return _Trained(found.module, found.kept, found.description)

    def _accuracies(self, module: nn.Module, whole: WholeNetwork, data: DataSplit) -> dict[str, dict[str, Any]]:
        """Top-1 on held-out and test images."""
        takes = whole.image_input
        module.to(self.world.device).eval()
        return {
            kind: {
                "images": len(images),
                "top1": round(
                    network_accuracy(module, images.to(self.world.device), takes.preprocessing, takes.resolution), 4
                ),
            }
            for kind, images in data.measured().items()
        }

    def _write(
        self, whole: WholeNetwork, trained: _Trained, latencies: Latencies, data: DataSplit, before: _Accuracies
    ) -> PrunedResult:
        """Cut, export and measure, and write the document and the report."""
        request, latency = self.request, latencies.latency
        pruned = cut_network(trained.module.cpu(), whole.dependencies, trained.kept)
        after = self._accuracies(pruned.module, whole, data)
        pruned.module.cpu()
        predicted_ms = latencies.whole_ms, latencies.predicted_ms(trained.kept)
        with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
            stems = Path(folder) / request.name, request.out / request.name
            old = write_network(whole, uncut(whole), stems[0], before, latency, predicted_ms[0])
            new = write_network(whole, pruned.module, stems[1], after, latency, predicted_ms[1])
            measured: Mapping[str, float] = {}
            if self.device is not None:
                runtime = request.settings.target.runtime
                models = {_BEFORE: old.file_for(runtime), _AFTER: new.file_for(runtime)}
                measured = measure_for_budget(
                    self.device,
                    models,
                    request.shape,
                    request.settings,
                    _AFTER,
                    request.budget_ms,
                    progress=self.reporter,
                )
            facts = old.facts(before, measured.get(_BEFORE), predicted_ms[0])
        result = PrunedResult(
            whole.model,
            whole.image_input,
            whole.labels,
            request.method,
            pruned,
            facts,
            new.facts(after, measured.get(_AFTER), predicted_ms[1]),
            whole.dependencies.unprunable,
            latency,
            trained.training,
            {**new.files, **self._more_files(latencies, trained)},
            new.tflite_reason,
        )
        report = write_report(result, request.path(".html"))
        return write_document(result, request.path(".json"), report)

    def _more_files(self, latencies: Latencies, trained: _Trained) -> dict[str, Path]:
        files = {} if latencies.model.path is None else {"table": latencies.model.path}
        if trained.training is None:
            return files
        plot = common.draw_log(self.request.out, LOG, f"{self.request.name}, pruned")
        return files | {"log": self.request.out / LOG} | ({} if plot is None else {"plot": plot})


def _asked_of_another(*_: object) -> Kept:
    raise AssertionError("the leading process alone chooses")


# --- words -------------------------------------------------------------------------------------------


def _say_groups(whole: WholeNetwork) -> None:
    groups, others = whole.dependencies.groups, whole.dependencies.unprunable
    units = sum(group.n_units for group in groups)
    line = f"{units} units in {len(groups)} groups can be pruned"
    if others:
        places = "1 place cannot," if len(others) == 1 else f"{len(others)} places cannot, like"
        line += f"; {places} {others[0].layer}: {others[0].reason}"
    say(line)


def _say_before(before: _Accuracies, data: DataSplit) -> None:
    top1 = before["held_out"]["top1"]
    say(f"before pruning: {top1:.2%} of {len(data.held_out)} held-out images")
    if is_chance(top1, data.held_out):
        names = ", ".join(data.held_out.classes[:5]) + (", ..." if len(data.held_out.classes) > 5 else "")
        say(
            f"warning: the network is no better than chance before it is pruned: are its outputs the classes {names} "
            "in this order, is the preprocessing right, and is it trained?"
        )


def _lines(request: Request, result: PrunedResult) -> list[str]:
    lines = [
        f"{name}: {before} -> {after}{f' ({change})' if change else ''}"
        for name, before, after, change in comparison_rows(result)
    ]
    lines.append(latency_words(result))
    if result.tflite_reason is not None:
        lines.append(f"note: no TFLite file: {result.tflite_reason}")
    return [*lines, f"written to {request.out}"]
