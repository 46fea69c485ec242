"""Searches by other packages on our problems: NSGA-II of pymoo, TPE of optuna, and the finder of PyPI's `ofa`.

Each gives the scores of the distinct networks that it scored, in order. To their advantage, only networks under the
budgets count as evaluations: their latency is looked up before.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.spaces import Genomes
from ofa_search import AccuracyPredictor
from ofa_search.searching.engines import get_engine
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.latency import Latency
from ofa_search.searching.objectives import PredictedAccuracy
from ofa_search.searching.problem import Problem

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """A problem, and the files from which the published code reads the same one."""

    problem: Problem
    budget_ms: float
    lut: Path
    predictor: Path


def task_of(lut: Path, predictor: Path, space_name: str, budget_ms: float) -> Task:
    """The problem that `search` solves for a table, a predictor and a budget."""
    table, objective = LatencyTable.load(lut), PredictedAccuracy(AccuracyPredictor.load(predictor))
    space = get_space(space_name)
    known = set(objective.resolutions(space)) & set(table.complete_resolutions(space))
    space = space.with_resolutions(sorted(known))
    constraints = (Latency.of(table, space, None).constraint(budget_ms),)
    anchor = find_anchor(space, constraints, np.random.default_rng(0))
    return Task(Problem(space, objective, constraints, anchor), budget_ms, lut, predictor)


def engine_run(task: Task, name: str, seed: int, evaluations: int | None) -> tuple[float, int, float]:
    """The score, the evaluations and the seconds of processor time of one of our engines."""
    began = time.process_time()
    with threadpool_limits(1, "blas"):
        found = get_engine(name).search(task.problem, np.random.default_rng(seed), evaluations=evaluations)
    return found.score, found.evaluations, time.process_time() - began


@dataclass(frozen=True)
class Run:
    """The scores of the distinct networks under the budgets, in order, and the seconds of processor time."""

    scores: Scores
    seconds: float


@dataclass(frozen=True)
class Peer:
    """How another package searches; `package` is what must be installed."""

    name: str
    package: str
    run: Callable[[Task, int, int], Iterator[float]]

    def missing(self, task: Task) -> str | None:
        """Why it cannot run here; None if it can."""
        if find_spec(self.package) is None:
            return f"{self.name}: not run, {self.package} is not installed"
        if self.package == "ofa" and not list(task.lut.glob("*_lookup_table.yaml")):
            return f"{self.name}: not run, it reads only a folder of published tables"
        return None

    def searched(self, task: Task, seed: int, evaluations: int) -> Run:
        """Search with a limited number of evaluations."""
        began = time.process_time()
        scores = list(self.run(task, seed, evaluations))
        return Run(np.array(scores), time.process_time() - began)


class _Enough(Exception):
    """All evaluations are made."""


class _Ledger:
    """Scores networks, each distinct one under the budgets once; others have no score."""

    def __init__(self, problem: Problem, evaluations: int) -> None:
        self.problem, self.evaluations = problem, evaluations
        self.scores: dict[bytes, float] = {}

    def of(self, genomes: Genomes) -> Scores:
        """The scores of genomes (N, G), 0 for those over a budget."""
        genomes = self.problem.space.canonical(genomes)
        keys = [genome.tobytes() for genome in genomes]
        feasible = self.problem.feasible(genomes)
        new = [row for row, key in enumerate(keys) if feasible[row] and key not in self.scores]
        new = [row for place, row in enumerate(new) if keys[row] not in [keys[other] for other in new[:place]]]
        new = new[: self.evaluations - len(self.scores)]
        if new:
            found = self.problem.objective.scores(self.problem.space, genomes[new])
            self.scores.update(zip([keys[row] for row in new], found.tolist(), strict=True))
        if len(self.scores) >= self.evaluations:
            raise _Enough
        return np.array([self.scores.get(key, 0.0) for key in keys])


def _pymoo(task: Task, seed: int, evaluations: int) -> Iterator[float]:
    """With the operators of its documentation for whole numbers; objectives are the score and each cost."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    problem, ledger = task.problem, _Ledger(task.problem, evaluations)
    limits = problem.constraints

    class Asked(PymooProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                n_var=len(problem.space.genes),
                n_obj=1 + len(limits),
                n_ieq_constr=len(limits),
                xl=0,
                xu=problem.space.n_choices - 1,
                vtype=int,
            )

        def _evaluate(self, x: Any, out: Any, *_: Any, **__: Any) -> None:
            genomes = problem.space.canonical(np.asarray(x).astype(np.int8))
            costs = np.array([each.cost.evaluate(genomes) for each in limits]).T
            out["F"] = np.column_stack([-ledger.of(genomes), costs])
            out["G"] = costs - [each.budget for each in limits]

    operators = {"prob": 1.0, "eta": 3.0, "vtype": float, "repair": RoundingRepair()}
    algorithm = NSGA2(
        pop_size=100,
        sampling=IntegerRandomSampling(),
        crossover=SBX(**operators),
        mutation=PM(**operators),
        eliminate_duplicates=True,
    )
    with contextlib.suppress(_Enough):
        minimize(Asked(), algorithm, ("n_gen", 20 * evaluations // 100 + 20), seed=seed)
    yield from ledger.scores.values()


def _optuna(task: Task, seed: int, evaluations: int) -> Iterator[float]:
    """With a category per gene, which is asked only where it has an effect, and the budgets as constraints."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem, ledger = task.problem, _Ledger(task.problem, evaluations)
    genes = problem.space.genes
    order = sorted(range(len(genes)), key=lambda gene: genes[gene].switch is not None)

    def scored(trial: Any) -> float:
        genome = np.zeros((1, len(genes)), dtype=np.int8)
        for number in order:
            gene = genes[number]
            if gene.switch is None or genome[0, gene.switch] >= gene.switch_from:
                genome[0, number] = trial.suggest_categorical(gene.name, list(range(len(gene.choices))))
        excess = [float(each.cost.evaluate(genome)[0] / each.budget - 1) for each in problem.constraints]
        for number, value in enumerate(excess):
            trial.set_constraint(f"limit {number}", value)
        return float(ledger.of(genome)[0])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    with contextlib.suppress(_Enough):
        study.optimize(scored, n_trials=3 * evaluations)
    yield from ledger.scores.values()


def _ofa(task: Task, seed: int, evaluations: int) -> Iterator[float]:
    """The finder of the tutorial, with its own predictor and tables."""
    finder, scores = _finder(task), dict[str, float]()
    predict = finder.accuracy_predictor.predict_accuracy

    def recorded(samples: list[dict[str, Any]]) -> Any:
        found = predict(samples)
        for sample, accuracy in zip(samples, found[:, 0].tolist(), strict=True):
            scores.setdefault(_active(sample), accuracy)
        if len(scores) >= evaluations:
            raise _Enough
        return found

    finder.accuracy_predictor.predict_accuracy = recorded
    random.seed(seed)
    np.random.seed(seed)
    with contextlib.suppress(_Enough):
        _quietly(finder.run_evolution_search)
    yield from list(scores.values())[:evaluations]


def _active(sample: dict[str, Any]) -> str:
    """A network of the finder without what has no effect."""
    blocks = [
        (sample["ks"][4 * stage + block], sample["e"][4 * stage + block])
        for stage, depth in enumerate(sample["d"])
        for block in range(depth)
    ]
    return str((sample["r"], sample["d"], blocks))


def _finder(task: Task) -> Any:
    """The published finder, from files in place of downloads."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from support.reference import do_without_torchvision

    do_without_torchvision()
    import torch
    from ofa.tutorial import accuracy_predictor, evolution_finder

    torch.set_num_threads(1)
    tables = _published_tables(task.lut)
    predictor = accuracy_predictor.AccuracyPredictor(pretrained=False, device="cpu")
    predictor.model.load_state_dict(torch.load(task.predictor, map_location="cpu", weights_only=True))
    return evolution_finder.EvolutionFinder("note10", task.budget_ms, tables, predictor)


@functools.cache
def _published_tables(folder: Path) -> Any:
    import yaml
    from ofa.tutorial import latency_table

    tables = object.__new__(latency_table.LatencyTable)
    tables.latency_tables = {}
    for resolution in (160, 176, 192, 208, 224):
        estimator = object.__new__(latency_table.LatencyEstimator)
        text = (folder / f"{resolution}_lookup_table.yaml").read_text(encoding="utf-8")
        estimator.lut = yaml.load(text, Loader=yaml.CSafeLoader)
        tables.latency_tables[resolution] = estimator
    return tables


def _quietly(function: Callable[[], Any]) -> Any:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return function()


def whole_finder(task: Task, seed: int) -> tuple[float, float]:
    """The accuracy that the published finder ends with, and its seconds of processor time without loading."""
    finder = _finder(task)
    random.seed(seed)
    np.random.seed(seed)
    began = time.process_time()
    _, best = _quietly(finder.run_evolution_search)
    return float(best[0]), time.process_time() - began


PEERS = (
    Peer("NSGA-II (pymoo)", "pymoo", _pymoo),
    Peer("TPE (optuna)", "optuna", _optuna),
    Peer("finder (ofa)", "ofa", _ofa),
)
