"""The request to `ofa-search`: its arguments, checked before the search."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ofa_profiler.base.units import parse_bytes, parse_count, parse_duration_ms
from ofa_profiler.base.user_code import is_module_name
from ofa_profiler.cli.lending import Lending, lending_of
from ofa_profiler.cli.options import device_options
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import MIXED as MIXED_SUFFIX
from ofa_profiler.networks.ranges import MADE_UP
from ofa_profiler.protocol.target import MIXED
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.spaces.narrowing import narrowed
from ofa_profiler.tables.corrections.intervals import checked_level
from ofa_profiler.tables.mixed import AnyTable
from ofa_search.artifacts.shipped import shipped_predictor, shipped_supernet, ships
from ofa_search.cli.fix import read_fixed
from ofa_search.cli.functions import function_objective, refuse_function_options
from ofa_search.cli.ladder import ladder_ms
from ofa_search.cli.named_file import named_file
from ofa_search.cli.tables import Loader, plain_space, read_tables, table_count
from ofa_search.predictor import AccuracyPredictor
from ofa_search.results.deployments import precision_of
from ofa_search.results.weight_source import WeightSource, in_mixed_precision, weight_source
from ofa_search.searching.engines import Engine, get_engine
from ofa_search.searching.objectives import Macs, Objective, predicted_accuracy
from ofa_search.searching.problem import SizeLimit

if TYPE_CHECKING:
    from ofa_profiler.devices import Device

DEFAULT_OUT = Path("out") / "search"
#: The value of `--predictor` that maximises MACs.
MACS = "macs"
_MAX_PARETO = 1000


@dataclass(frozen=True)
class Request:
    """The arguments of `ofa-search`, checked before the search."""

    space: SearchSpace
    tables: list[AnyTable]
    budgets_ms: list[list[float]]
    #: Whether the budgets are those of --pareto.
    is_front: bool
    #: Whether the budgets are those of --ladder.
    is_ladder: bool
    objective: Objective
    jobs: int
    dask: str | None
    precision: str
    #: None: the one that suits the objective.
    engine: Engine | None
    evaluations: int | None
    seed: int
    max_macs: float | None
    max_params: float | None
    max_bytes: float | None
    #: The limit that follows from `max_bytes`.
    max_size: SizeLimit | None
    confidence: float | None
    source: WeightSource
    predictor_ships: bool
    supernet_ships: bool
    device: Device | None
    lending: Lending
    out: Path | None
    export: bool
    explain: bool
    json: bool

    def with_tables(self, tables: list[AnyTable], budgets_ms: list[list[float]]) -> Request:
        """The same for tables of another device. Raises `UsageError` if they do not fit."""
        precision_of(tables, self.precision)
        _confidence(self.confidence, tables)
        return replace(self, tables=tables, budgets_ms=budgets_ms)


def read_request(arguments: argparse.Namespace, loader: Loader | None = None) -> Request:
    """Raises `UsageError` and `InputFileError`. A `loader` may know tables already."""
    # Options first, then files, large files last.
    budgets_ms = _budgets_ms(arguments)
    max_macs = parse_count(arguments.max_macs, "--max-macs") if arguments.max_macs is not None else None
    max_params = parse_count(arguments.max_params, "--max-params") if arguments.max_params is not None else None
    max_bytes = parse_bytes(arguments.max_size, "--max-size") if arguments.max_size is not None else None
    fixed = read_fixed(arguments.fix)
    out = out_folder(arguments)
    engine = None if arguments.engine is None else get_engine(arguments.engine)
    lending = lending_of(arguments, used=arguments.verify is not None)
    if arguments.space is not None:
        get_space(arguments.space)  # raises for an unknown name
    tables = read_tables(arguments.lut, arguments.precision, loader)
    precision = precision_of(tables, arguments.precision)
    plain = plain_space(arguments.space, tables, precision)
    is_function = is_module_name(arguments.predictor or "")
    if not is_function:
        refuse_function_options(arguments)
    predictor = None if is_function else _predictor(arguments, plain, precision)
    supernet = _supernet(arguments, plain)
    space = _fixed(MixedSpace.of(plain) if precision == MIXED else plain, fixed)
    if is_function:
        objective: Objective = function_objective(arguments, out or DEFAULT_OUT)
    else:
        objective = _objective(predictor, space, precision)
    source = _source(arguments, plain, supernet, precision)
    return Request(
        space=space,
        tables=tables,
        budgets_ms=budgets_ms,
        is_front=arguments.pareto is not None,
        is_ladder=arguments.ladder is not None,
        objective=objective,
        jobs=arguments.jobs or 1,
        dask=arguments.dask,
        precision=precision,
        engine=engine,
        evaluations=arguments.evaluations,
        seed=arguments.seed,
        max_macs=max_macs,
        max_params=max_params,
        max_bytes=max_bytes,
        max_size=None,
        confidence=_confidence(arguments.confidence, tables),
        device=_device(arguments, tables[0]),
        lending=lending,
        source=in_mixed_precision(source) if precision == MIXED else source,
        predictor_ships=predictor is not None and ships(predictor),
        supernet_ships=supernet is not None and ships(supernet),
        out=out,
        export=not arguments.no_export,
        explain=arguments.explain,
        json=arguments.json,
    )


def out_folder(arguments: argparse.Namespace) -> Path | None:
    """The folder for the files; None if no files are wanted."""
    given: Path | None = arguments.out
    out = given if given is not None or arguments.no_export else DEFAULT_OUT
    if out is not None:
        _check_folder(out)
    return out


def _check_folder(path: Path) -> None:
    """Raise `UsageError` if a folder cannot be made here, before a long search."""
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise UsageError(f"--out {path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--out {path}: nothing can be written in {there}")


def _fixed(space: SearchSpace, fixed: Mapping[str, Sequence[str]]) -> SearchSpace:
    try:
        return narrowed(space, fixed)
    except UsageError as error:
        raise UsageError(f"--fix: {error}") from None


def _confidence(level: float | None, tables: Sequence[AnyTable]) -> float | None:
    if level is not None:
        for table in tables:
            table.interval_factors(checked_level(level, "--confidence"))  # raises if the table has no such interval
    return level


def _budgets_ms(arguments: argparse.Namespace) -> list[list[float]]:
    """A row per search, with a budget for each table."""
    budgets = [parse_duration_ms(text, "--budget") for text in arguments.budget]
    tables = table_count(arguments.lut, arguments.precision)
    what = "--lut" if arguments.precision != MIXED else "pairs of --lut"
    if not tables:
        raise UsageError("no latency table: give --lut CSV and --budget T, for example 20ms")
    option, firsts_ms = _firsts_ms(arguments)
    if firsts_ms is None:
        if tables != len(budgets):
            raise UsageError(
                f"{tables} {what} but {len(budgets)} --budget: give one --budget per table or pair, "
                "for example --lut phone.csv --budget 20ms"
            )
        return [budgets]
    if len(budgets) == tables:
        say(f"warning: {option} sets the budgets of the first table; --budget {arguments.budget[0]} is ignored")
        budgets = budgets[1:]
    if tables != len(budgets) + 1:
        raise UsageError(
            f"{tables} {what} but {len(budgets)} --budget with {option}: "
            "give one --budget per table or pair except the first"
        )
    return [[first, *budgets] for first in firsts_ms]


def _firsts_ms(arguments: argparse.Namespace) -> tuple[str, list[float] | None]:
    """The option that gives the budgets of the first table in place of --budget, if one does, and these budgets."""
    if arguments.ladder is not None and arguments.pareto is not None:
        raise UsageError("give --pareto for a front or --ladder for a ladder, not both")
    if arguments.ladder is not None:
        return "--ladder", ladder_ms(arguments.ladder)
    return "--pareto", None if arguments.pareto is None else _pareto_ms(arguments.pareto)


def _pareto_ms(text: str) -> list[float]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"--pareto {text!r} is not LOW:HIGH:N, for example 15ms:40ms:6")
    low, high = (parse_duration_ms(part, "--pareto") for part in parts[:2])
    if low >= high:
        raise UsageError(f"--pareto {text!r}: LOW must be below HIGH")
    count = int(parts[2]) if parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 9 else 0
    if not 2 <= count <= _MAX_PARETO:
        raise UsageError(f"--pareto {text!r}: N must be a whole number from 2 to {_MAX_PARETO}")
    return [float(budget) for budget in np.linspace(low, high, count)]


def _predictor(arguments: argparse.Namespace, space: SearchSpace, precision: str) -> Path | None:
    """The file of the predictor; None to maximise MACs."""
    if arguments.predictor == MACS:
        return None
    shipped = shipped_predictor(arguments.predictor or space.name, precision)
    if arguments.predictor is not None:
        return shipped or named_file("predictor", arguments.predictor)
    if shipped is not None and arguments.supernet in (None, space.name):
        return shipped
    from ofa_search.artifacts.ofa_files import PUBLISHED  # with urllib and ssl, which few searches need

    problem = (
        f"this version contains no accuracy predictor for {space.name}"
        if shipped is None
        else f"the included predictor is not for the supernet {arguments.supernet}"
    )
    published = (
        f", --predictor {space.name} to download the published one" if space.name in PUBLISHED["predictor"] else ""
    )
    raise UsageError(
        f"{problem}: give --predictor FILE{published}, or --predictor {MACS} to maximise MACs instead of accuracy"
    )


def _objective(predictor: Path | None, space: SearchSpace, precision: str) -> Objective:
    if predictor is None:
        return Macs()
    loaded = AccuracyPredictor.load(predictor)
    objective = predicted_accuracy(loaded, space, precision)  # raises if it is for another kind of network
    if loaded.space.removesuffix(MIXED_SUFFIX) != space.name.removesuffix(MIXED_SUFFIX):
        say(
            f"warning: the predictor {loaded.name} was trained on {loaded.space}; it can rank networks of "
            f"{space.name}, but their accuracies will differ"
        )
    if precision == MIXED and not loaded.knows_bits:
        say(
            f"warning: the predictor {loaded.name} gives networks of all precisions the accuracy of fp32, so int8 "
            "costs nothing here; ofa-train predictor --precision mixed makes one that knows what it costs"
        )
    return objective


def _supernet(arguments: argparse.Namespace, space: SearchSpace) -> Path | None:
    """The file of the supernet; None for untrained weights."""
    if arguments.supernet is None:
        return shipped_supernet(space.name)
    return shipped_supernet(arguments.supernet) or named_file("supernet", arguments.supernet)


def _source(arguments: argparse.Namespace, space: SearchSpace, supernet: Path | None, precision: str) -> WeightSource:
    calibration: Path | None = arguments.calibration
    if calibration is not None and supernet is None:
        raise UsageError(
            f"--calibration needs a supernet, and this version contains none for {space.name}: give --supernet FILE"
        )
    if calibration is not None and not calibration.exists():
        raise UsageError(f"--calibration {calibration}: no such file")
    needed = not arguments.no_export or arguments.verify is not None
    source = weight_source(space, supernet, arguments.seed, calibration=calibration, needed=needed)
    if needed and not source.calibrated:
        say(
            f"warning: {source.supernet} has no BatchNorm statistics for its subnets, so the models use those of "
            "the supernet and are less accurate: give --calibration IMAGES, some training images"
        )
    if needed and precision != "fp32" and source.ranges == MADE_UP and source.supernet is not None:
        say(
            f"warning: {source.supernet} has no ranges for int8, so those of the models are made up and the models "
            "are useless but for timing: give --calibration IMAGES, some training images"
        )
    return source


def _device(arguments: argparse.Namespace, table: AnyTable) -> Device | None:
    if arguments.verify is None:
        return None
    from ofa_profiler.devices import open_device
    from ofa_profiler.verification.conditions import settings_of

    settings = settings_of(table)  # raises if the table has no settings
    return open_device(arguments.verify, device_options(arguments, settings, table))
