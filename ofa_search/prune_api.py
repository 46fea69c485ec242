"""Pruning as a Python function: any module, loss and loader.

pruned = prune(network, torch.zeros(1, 3, 32, 32), budget_ms=1.5, table="resnet20-grid.csv",
               loss=torch.nn.CrossEntropyLoss(), loader=loader, epochs=10)
pruned.module, pruned.report
pruned.save("out/pruned")                 # for load_pruned
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor, nn

from ofa_profiler.base.files import write_text
from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.devices import Device, open_device
from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import DEFAULT_TARGET, Target
from ofa_profiler.tables.table import LatencyTable
from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.graph.find import find_groups
from ofa_search.pruning.groups import Dependencies, Kept
from ofa_search.pruning.latency.chooser import LatencyChooser, chooser
from ofa_search.pruning.latency.model import LatencyModel, measured_model, model_of_table
from ofa_search.pruning.optimizers import (
    DEFAULT_PRUNING_OPTIMIZER,
    PruningOptimizer,
    get_pruning_optimizer,
    pruning_steps,
)
from ofa_search.results.pruned_build import cut_network
from ofa_search.results.pruned_files import parameters_of, write_weights
from ofa_search.supernet.depthwise import fast_depthwise
from ofa_search.supernet.recalibration import recalibrate

#: The share of the training in which the learning rate rises, as in the command.
_WARM_UP = 0.05
_CALIBRATION_BATCHES = 20

_Path = Union[str, "os.PathLike[str]"]
#: What a function makes of the module: what trains its parameters.
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True, eq=False)
class Pruned:
    """The pruned module, in eval mode, and what was done, as JSON."""

    module: nn.Module
    report: Mapping[str, Any]

    def save(self, folder: _Path, name: str = "pruned") -> Path:
        """Write `NAME.safetensors` and `NAME.json` for `load_pruned(folder, module=...)`. Raises `UsageError`."""
        path = Path(folder) / f"{name}.json"
        weights = write_weights(self.module, path.with_suffix(".safetensors"), {})
        document = {**self.report, "files": {"weights": weights.name}}
        write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")
        return path


def prune(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    budget_ms: float,
    table: _Path | LatencyTable | None,
    loss: Callable[[Any, Any], Tensor],
    loader: Iterable[tuple[Any, Any]],
    *,
    epochs: float = 10.0,
    method: str = DEFAULT_PRUNING_OPTIMIZER,
    optimizer: MakeOptimizer | None = None,
    device: str | Device | None = None,
    out: _Path | None = None,
    runtime: str | None = None,
    provider: str | None = None,
    threads: int = 1,
    time_limit_s: float | None = 720.0,
    progress: Reporter | None = None,
) -> Pruned:
    """Prune a trained module to a latency while it is trained, like `ofa-prune`. `model` itself stays as it is.

    `example_inputs` have a batch of 1. `loader` gives batches (inputs, target) and has a length; the training goes over
    it `epochs` times and minimises `loss(outputs, target)`, on the device of the parameters. `table` is a grid that
    `ofa-prune` or this function wrote. With None, `device` is measured, `out` gets the grid, and the budget is checked
    by measuring, with `runtime` (`onnxruntime` or `litert`; default: the first), `provider` and `threads`. A table is
    for one runtime. `optimizer(module)` makes what trains the weights (default: SGD with a learning rate of 0.01 and
    momentum); its learning rate rises for a short time and then falls to zero.

    Raises `InfeasibleError` with the attainable range before any training, `OverBudgetError` if no network keeps the
    budget when measured, `UsageError` for what is impossible.
    """
    steps = _steps(loader, epochs)
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    module = copy.deepcopy(model)
    dependencies = find_groups(module, inputs)
    shapes = _shapes(model, inputs)
    with ExitStack() as stack:
        if table is not None:
            latencies = model_of_table(dependencies, shapes, _path_of(table), runtime)
        else:
            target = DEFAULT_TARGET if runtime is None else Target(runtime)
            settings = Settings(target, provider=provider, threads=threads, time_limit_s=time_limit_s)
            latencies = _measured(stack, module, dependencies, shapes, device, out, settings, progress)
        choose = chooser(latencies, budget_ms)
        phase = pruning_steps(steps)
        make = get_pruning_optimizer(method)
        trained = make((optimizer or _sgd)(module), module, dependencies, choose, steps=phase)
        with fast_depthwise(module):
            _train(module, trained, loss, loader, steps, progress)
    params, kept = parameters_of(module), trained.kept()
    pruned = cut_network(module, dependencies, kept)
    _calibrate(module, loader)
    how = {"method": method, "budget_ms": budget_ms, "training": {"epochs": epochs, "steps": steps}}
    before = {"predicted_ms": latencies.whole_ms, "params": params}
    found = {"before": before, "after": _after(module, latencies, choose, kept), **pruned.to_json()}
    unprunable = [asdict(each) for each in dependencies.unprunable]
    return Pruned(pruned.module, {**how, **found, "unprunable": unprunable})


def _after(module: nn.Module, latencies: LatencyModel, choose: LatencyChooser, kept: Kept) -> dict[str, Any]:
    return {
        "predicted_ms": latencies.predicted_ms({name: len(units) for name, units in kept.items()}),
        "measured_ms": None if choose.decision is None else choose.decision.measured_ms,
        "params": parameters_of(module),
    }


def _measured(
    stack: ExitStack,
    module: nn.Module,
    dependencies: Dependencies,
    shapes: list[str],
    device: str | Device | None,
    out: _Path | None,
    settings: Settings,
    progress: Reporter | None,
) -> LatencyModel:
    if device is None or out is None:
        raise UsageError("no latencies: give table, or device to measure and out, a folder for the grid")
    opened = open_device(device) if isinstance(device, str) else device
    stack.enter_context(opened)
    whole = copy.deepcopy(module).cpu().eval()
    return measured_model(whole, dependencies, shapes, cut, opened, settings, Path(out), name="grid", progress=progress)


def _steps(loader: Iterable[Any], epochs: float) -> int:
    if not isinstance(loader, Sized) or not len(loader):
        raise UsageError("the loader has no length, or no batches: give a DataLoader, or a list of batches")
    return max(1, math.ceil(epochs * len(loader)))


def _shapes(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """The inputs as values of `--shape`."""
    sizes = ["x".join(map(str, each.shape)) for each in inputs]
    if len(inputs) == 1:
        return sizes
    names = list(inspect.signature(model.forward).parameters)
    return [f"{name}={size}" for name, size in zip(names, sizes, strict=False)]


def _path_of(table: _Path | LatencyTable) -> Path:
    if not isinstance(table, LatencyTable):
        return Path(table)
    if table.path is None:
        raise UsageError(f"the table {table.name} is in no file; give the path of the CSV")
    return table.path


def _sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), 0.01, momentum=0.9, nesterov=True)


def _train(
    module: nn.Module,
    optimizer: PruningOptimizer,
    loss: Callable[[Any, Any], Tensor],
    loader: Iterable[tuple[Any, Any]],
    steps: int,
    progress: Reporter | None,
) -> None:
    device = next(module.parameters()).device
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer.base, lambda step: _rate(step / steps))
    module.train()
    done = 0
    while done < steps:
        for inputs, target in islice(loader, steps - done):
            outputs = (
                module(*_moved(inputs, device)) if isinstance(inputs, tuple | list) else module(_moved(inputs, device))
            )
            value = loss(outputs, _moved(target, device))
            if not torch.isfinite(value):
                raise UsageError(f"the training has diverged: the loss of step {done + 1} is not finite")
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rates.step()
            done += 1
            report(progress, "train", done, steps, None, f"loss {value.item():.3f}")


def _rate(done: float) -> float:
    """A factor of the learning rate."""
    return max(0.1, done / _WARM_UP) if done < _WARM_UP else max(0.0, (1 - done) / (1 - _WARM_UP))


def _moved(values: Any, device: torch.device) -> Any:
    """Tensors in tuples, lists and dicts, on the device."""
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, tuple | list):
        return type(values)(_moved(each, device) for each in values)
    return {name: _moved(each, device) for name, each in values.items()} if isinstance(values, dict) else values


def _calibrate(module: nn.Module, loader: Iterable[tuple[Any, Any]]) -> None:
    """New BatchNorm statistics, where a batch is one tensor."""
    batches = [inputs for inputs, _ in islice(loader, _CALIBRATION_BATCHES)]
    if all(isinstance(inputs, Tensor) for inputs in batches):
        recalibrate(module, batches)
