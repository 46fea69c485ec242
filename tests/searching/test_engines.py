"""The contract that every search engine keeps."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.marks import marked
from support.mixed_problems import mixed_problem
from support.problems import CIFAR, Bumpy, Sloped, constraint, problem, work_ms
from support.small_spaces import ONE_STAGE, everything

from ofa_profiler import LatencyTable, get_space, space_names
from ofa_profiler.errors import InfeasibleError, UsageError
from ofa_profiler.spaces import Genomes
from ofa_profiler.spaces.costs import AdditiveCost, Cost
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.spaces.narrowing import narrowed
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.tables.row import Row
from ofa_search import Macs, search
from ofa_search.searching.engines import (
    DEFAULT_ENGINE,
    Engine,
    engine_names,
    get_engine,
    register_engine,
    registry,
)
from ofa_search.searching.engines.annealing import Annealing
from ofa_search.searching.engines.base import Evaluator, pull_to_anchor
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.exact import Exact
from ofa_search.searching.engines.mcts import Mcts
from ofa_search.searching.engines.moves import neighbours
from ofa_search.searching.engines.nsga2 import Nsga2
from ofa_search.searching.engines.random import Random
from ofa_search.searching.engines.smbo import Smbo
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.problem import Constraint, Problem, Result
from ofa_search.searching.pure import best_of_each

#: Settings that keep these tests short, for engines that have such.
SMALL: dict[str, Engine] = {
    "evolutionary": Evolutionary(
        population=96,
        parents=24,
        generations=12,
        polish_rounds=1,
        annealing=Annealing(chains=8, proposals=4, rounds=40, renewal_rounds=10),
    ),
    "mcts": Mcts(batch=16, batches=20),
    "nsga2": Nsga2(population=32, generations=15),
    "random": Random(batch=64, rounds=6),
    "smbo": Smbo(evaluations=130, first=40, batch=45, candidates=100, rounds=1),
}
SMALL["exact"] = Exact(start=SMALL["evolutionary"], seconds=60.0, steps=3)


class Climber(Engine):
    """An engine as somebody else would write it: from random genomes, it walks to the best neighbours."""

    name = "climber"

    def _search(
        self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: NDArray[np.float64]
    ) -> None:
        problem = evaluator.problem
        for _ in range(2):
            drawn = evaluator.fresh(evaluator.under_budgets(problem.space.sample_genomes(rng, 8), rng))
            genomes, found = np.vstack([known, drawn]), np.concatenate([scores, evaluator.score(drawn)])
            for _ in range(6):
                if len(genomes):
                    genomes = evaluator.fresh(neighbours(problem.space, genomes[found.argmax()]))
                    found = evaluator.score(genomes)


@pytest.fixture(params=(*engine_names(), Climber.name))
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Every engine that is registered, and one that a test registers."""
    monkeypatch.setattr(registry._ENGINES, "_entries", dict(registry._ENGINES._entries))
    register_engine(Climber)
    made = get_engine(request.param)
    assert made.name == request.param
    return SMALL.get(request.param, made)


def test_an_engine_is_registered_once() -> None:
    assert engine_names()[0] == DEFAULT_ENGINE == "evolutionary"
    with pytest.raises(UsageError, match="engine 'random' is already registered"):
        register_engine(Random)


@pytest.mark.parametrize("objective", [Bumpy, Sloped])
class TestContract:
    @pytest.mark.parametrize("name", marked(space_names(), pytest.mark.slow, but=[CIFAR.name, "ofa-resnet50"]))
    @pytest.mark.parametrize("shares", [(), (0.0,), (0.02,), (0.3, 0.3)])
    def test_the_result_is_feasible_and_not_worse_than_the_anchor(
        self, engine: Engine, objective: type[Bumpy], name: str, shares: tuple[float, ...]
    ) -> None:
        asked = problem(get_space(name), shares, objective=objective)
        skip_if_refused(engine, asked)
        result = engine.search(asked, np.random.default_rng(0))
        assert asked.feasible(result.genome[np.newaxis]).all()
        assert (asked.space.canonical(result.genome[np.newaxis]) == result.genome).all()
        assert result.score >= asked.objective.scores(asked.space, asked.anchor[np.newaxis])[0]
        assert result.score == asked.objective.scores(asked.space, result.genome[np.newaxis])[0]
        asked.space.validate(asked.space.decode(result.genome[np.newaxis])[0])

    def test_evaluations_are_counted_honestly(self, engine: Engine, objective: type[Bumpy]) -> None:
        asked = problem(objective=objective)
        skip_if_refused(engine, asked)
        result = engine.search(asked, np.random.default_rng(0))
        assert isinstance(asked.objective, Bumpy)
        assert result.evaluations == len(asked.objective.asked) == len(set(asked.objective.asked))
        assert result.evaluations > 100

    @pytest.mark.parametrize("limit", [1, 2, 60])
    def test_evaluations_are_limited(self, engine: Engine, objective: type[Bumpy], limit: int) -> None:
        asked = problem(shares=(0.3, 0.3), objective=objective)
        skip_if_refused(engine, asked)
        start = find_starts(asked, 3)
        result = engine.search(asked, np.random.default_rng(0), start, evaluations=limit)
        assert isinstance(asked.objective, Bumpy)
        assert result.evaluations == len(asked.objective.asked) == len(set(asked.objective.asked)) <= limit
        assert limit // 2 <= result.evaluations
        known = start[-limit:]
        assert result.score >= asked.objective.scores(asked.space, known).max()
        with pytest.raises(UsageError, match="at least one evaluation, not 0"):
            engine.search(asked, np.random.default_rng(0), evaluations=0)

    def test_it_scores_only_what_is_feasible(self, engine: Engine, objective: type[Bumpy]) -> None:
        asked = problem(shares=(0.1, 0.2), objective=objective)
        skip_if_refused(engine, asked)
        engine.search(asked, np.random.default_rng(0))
        assert isinstance(asked.objective, Bumpy)
        scored = np.frombuffer(b"".join(asked.objective.asked), np.int8).reshape(-1, len(CIFAR.genes))
        assert asked.feasible(scored).all()

    @pytest.mark.parametrize("mixed", [False, True])
    def test_fixed_choices_are_kept(self, engine: Engine, objective: type[Bumpy], mixed: bool) -> None:
        space = narrowed(
            MixedSpace.of(CIFAR) if mixed else CIFAR, {"resolution": 24, "depth": 3, "stage1.kernel_size": 5}
        )
        asked = problem(space, shares=(0.3,), objective=objective)
        skip_if_refused(engine, asked)
        result = engine.search(asked, np.random.default_rng(0))
        (found,) = space.decode(result.genome[np.newaxis])
        assert asked.feasible(result.genome[np.newaxis]).all()
        assert found.resolution == 24
        assert {stage.depth for stage in found.stages} == {3}
        assert set(found.stages[1].kernel_sizes) == {5}

    def test_same_seed_same_result_and_other_seed_other_search(self, engine: Engine, objective: type[Bumpy]) -> None:
        skip_if_refused(engine, problem(objective=objective))
        first, again, other = (
            engine.search(problem(objective=objective), np.random.default_rng(seed)) for seed in (5, 5, 6)
        )
        assert same(first, again)
        assert not same(first, other)

    def test_never_worse_than_where_it_starts(self, engine: Engine, objective: type[Bumpy]) -> None:
        asked = problem(objective=objective)
        skip_if_refused(engine, asked)
        best = max(
            (SMALL["evolutionary"].search(problem(), np.random.default_rng(seed)) for seed in range(3)),
            key=lambda r: r.score,
        )
        started = engine.search(asked, np.random.default_rng(3), best.genome[np.newaxis])
        assert started.score >= best.score

    def test_finds_better_than_chance(self, engine: Engine, objective: type[Bumpy]) -> None:
        asked = problem(objective=objective)
        skip_if_refused(engine, asked)
        drawn = CIFAR.sample_genomes(np.random.default_rng(1), 200)
        drawn = drawn[asked.feasible(drawn)]
        assert engine.search(asked, np.random.default_rng(0)).score > np.quantile(
            Bumpy(CIFAR).scores(CIFAR, drawn), 0.9
        )


def board(name: str, per_op: float, constant: float) -> LatencyTable:
    """A calibrated table with intervals."""
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[work_ms(op)] * 3) for op in CIFAR.unique_ops()]
    coefficients = {"ms": 1.05, "ops": per_op, "boundary": 0.01, "inside": 0.0, "parameters": 0.1}
    correction = Regression(coefficients, constant, held_out_errors=(0.04,) * 40)
    return LatencyTable(name, rows, {"spaces": ["cifar-mbv3"], "correction": correction.to_json()})


def test_calibrated_tables_with_confidence(engine: Engine) -> None:
    first, second = board("first", 0.01, 0.3), board("second", 0.05, -0.1)
    limits = [(first, 8.0), (second, 9.0)]
    result, again = (
        search("cifar-mbv3", limits, Macs(), engine=engine, confidence=0.95, evaluations=300) for _ in range(2)
    )
    ends = {name: interval[1] for name, interval in result.latency_interval_ms.items() if interval is not None}
    assert ends["first"] <= 8.0
    assert ends["second"] <= 9.0
    assert 1 <= result.evaluations <= 300
    assert result.gap is not None
    assert 0 <= result.gap < 0.5 * result.score
    assert again.architecture == result.architecture


def test_mixed_precision(engine: Engine) -> None:
    asked = mixed_problem(MixedSpace.of(CIFAR), 0.3)
    skip_if_refused(engine, asked)
    starts, before = best_of_each(asked, engine, np.random.default_rng(0), 400)
    assert before <= 200
    result = engine.search(asked, np.random.default_rng(0), starts, evaluations=200)
    assert asked.feasible(result.genome[np.newaxis]).all()
    assert result.evaluations <= 200
    assert result.score >= asked.objective.scores(asked.space, starts).max()


def find_starts(asked: Problem, count: int) -> Genomes:
    """Feasible genomes to begin from."""
    drawn = asked.space.sample_genomes(np.random.default_rng(2), 2000)
    return drawn[asked.feasible(drawn)][:count]


@pytest.mark.parametrize("share", [1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3])
def test_a_few_networks_keep_the_limits(share: float) -> None:
    """Fewer than the chains of the default engine."""
    asked = problem(shares=(share,), objective=Sloped)
    for engine in (Evolutionary(), Evolutionary().quick):
        result = engine.search(asked, np.random.default_rng(0))
        assert asked.feasible(result.genome[np.newaxis]).all()
        assert result.score >= asked.objective.scores(asked.space, asked.anchor[np.newaxis])[0]


def skip_if_refused(engine: Engine, asked: Problem) -> None:
    """Not every engine takes every problem; those that do not say why in one line."""
    why = engine.refusal(asked)
    if why is None:
        return
    with pytest.raises(UsageError, match=re.escape(why)):
        engine.search(asked, np.random.default_rng(0))
    pytest.skip(why)


def same(first: Result, second: Result) -> bool:
    return (
        (first.genome == second.genome).all()
        and first.score == second.score
        and first.evaluations == second.evaluations
    )


@pytest.mark.parametrize("name", ["evolutionary", "random"])
@pytest.mark.parametrize("blas_threads", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_same_result_in_a_fresh_process(name: str, blas_threads: str) -> None:
    here = get_engine(name).search(problem(objective=Sloped), np.random.default_rng(7))
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import numpy
from support.problems import Sloped, problem
from ofa_search.searching.engines import get_engine
result = get_engine({name!r}).search(problem(objective=Sloped), numpy.random.default_rng(7))
print(result.genome.tobytes().hex(), repr(result.score), result.evaluations)
"""
    environment = {"OPENBLAS_NUM_THREADS": blas_threads, "PYTHONHASHSEED": blas_threads}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.split() == [here.genome.tobytes().hex(), repr(here.score), str(here.evaluations)], done.stderr


@pytest.mark.parametrize("count", [1, 2, 3, 6, 20])
def test_few_networks_under_the_budget_make_few_chains(count: int) -> None:
    cost = constraint(ONE_STAGE, 1.0).cost
    every = everything(ONE_STAGE)
    limit = Constraint("t", "ms", cost, float(np.sort(cost.evaluate(every))[count - 1]))
    objective = Sloped(ONE_STAGE)
    asked = Problem(ONE_STAGE, objective, (limit,), find_anchor(ONE_STAGE, [limit], np.random.default_rng(0)))
    result = Evolutionary().search(asked, np.random.default_rng(0))
    assert result.score == objective.scores(ONE_STAGE, every[asked.feasible(every)]).max()


def test_evolution_beats_random_search() -> None:
    scores = {
        name: [SMALL[name].search(problem(seed=s), np.random.default_rng(s)).score for s in range(4)]
        for name in ("evolutionary", "random")
    }
    assert (np.array(scores["evolutionary"]) > np.array(scores["random"])).all()


def test_unknown_engine() -> None:
    with pytest.raises(UsageError, match="evolutionary, exact, mcts, nsga2, random, smbo"):
        get_engine("quantum")


# --- their tools ---------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_pulling_to_the_anchor_gives_feasible_genomes(share: float, seed: int) -> None:
    asked = problem(shares=(share,))
    rng = np.random.default_rng(seed)
    drawn = CIFAR.sample_genomes(rng, 64)
    pulled = pull_to_anchor(asked, drawn, rng)
    assert asked.feasible(pulled).all()
    fine = asked.feasible(drawn)
    assert (pulled[fine] == drawn[fine]).all()
    assert (CIFAR.canonical(pulled) == pulled).all()


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 1000), mixed=st.booleans())
def test_random_genomes_become_a_sample_of_what_keeps_the_budgets(share: float, seed: int, mixed: bool) -> None:
    asked = mixed_problem(MixedSpace.of(CIFAR), share) if mixed else problem(shares=(share, 0.5))
    rng = np.random.default_rng(seed)
    drawn = asked.space.canonical(asked.space.sample_genomes(rng, 64))
    found = Evaluator(asked).under_budgets(drawn, rng)
    assert asked.feasible(found).all()
    fine = asked.feasible(drawn)
    assert (found[fine] == drawn[fine]).all()
    assert (asked.space.canonical(found) == found).all()


def test_under_tight_budgets_they_have_every_resolution_that_can_keep_them() -> None:
    asked, gene = problem(shares=(0.03,)), CIFAR.resolution_gene
    assert gene is not None
    fastest_ms = [constraint(CIFAR.with_resolutions([each]), 0.0).budget for each in CIFAR.resolutions]
    able = [number for number, fastest in enumerate(fastest_ms) if fastest <= asked.constraints[0].budget]
    assert len(able) > 1
    rng = np.random.default_rng(0)
    drawn = CIFAR.sample_genomes(rng, 200)
    found = Evaluator(asked).under_budgets(drawn, rng)
    assert np.unique(found[:, gene]).tolist() == able
    assert len(np.unique(found, axis=0)) > 50
    # Pulled to the anchor, nearly all would have its resolution.
    assert (pull_to_anchor(asked, drawn, rng)[:, gene] == asked.anchor[gene]).mean() > 0.9


def test_neighbours_are_all_single_changes() -> None:
    genome = CIFAR.sample_genomes(np.random.default_rng(0), 1)[0]
    found = neighbours(CIFAR, genome)
    active = [i for i, gene in enumerate(CIFAR.genes) if gene.switch is None or genome[gene.switch] >= gene.switch_from]
    assert len(found) == sum(len(CIFAR.genes[i].choices) - 1 for i in active)
    assert len(np.unique(found, axis=0)) == len(found)
    assert (CIFAR.canonical(found) == found).all()


# --- what can be met at all ----------------------------------------------------------------------------


def test_a_budget_below_the_lowest_names_the_exact_range() -> None:
    base = constraint(CIFAR, 0.5)
    low, high = base.cost.minimum()[0], base.cost.maximum()[0]
    drawn = base.cost.evaluate(CIFAR.sample_genomes(np.random.default_rng(0), 20_000))
    assert low <= drawn.min()
    assert high >= drawn.max()
    with pytest.raises(InfeasibleError, match="attainable") as caught:
        find_anchor(CIFAR, [Constraint("x", "ms", base.cost, np.nextafter(low, 0))], np.random.default_rng(0))
    assert caught.value.attainable == (low, high)
    anchor = find_anchor(CIFAR, [Constraint("x", "ms", base.cost, low)], np.random.default_rng(0))
    assert base.cost.evaluate(anchor[np.newaxis])[0] == low


def opposed(shares: tuple[float, float]) -> list[Constraint]:
    """Two costs, one low where the other is high: big kernels are cheap on one device, dear on the other."""
    costs = (
        AdditiveCost.from_ops(CIFAR, lambda op: op.attributes["kernel_size"]),
        AdditiveCost.from_ops(CIFAR, lambda op: 10 - op.attributes["kernel_size"]),
    )
    constraints = []
    for number, (cost, share) in enumerate(zip(costs, shares, strict=True)):
        low, high = cost.minimum()[0], cost.maximum()[0]
        constraints.append(Constraint(f"t{number}", "ms", cost, low + share * (high - low)))
    return constraints


def test_limits_that_exclude_each_other_are_proven_to() -> None:
    with pytest.raises(InfeasibleError, match="together") as caught:
        find_anchor(CIFAR, opposed((0.01, 0.01)), np.random.default_rng(0))
    assert "proven" in str(caught.value)


@pytest.mark.parametrize("shares", [(0.3, 0.5), (0.5, 0.3), (0.9, 0.1)])
def test_limits_that_can_be_met_together_are(shares: tuple[float, float]) -> None:
    constraints = opposed(shares)
    drawn = CIFAR.sample_genomes(np.random.default_rng(0), 200_000)
    known = np.all([c.met(drawn) for c in constraints], axis=0)
    try:
        anchor = find_anchor(CIFAR, constraints, np.random.default_rng(0))
    except InfeasibleError:
        assert not known.any(), "a random architecture meets them"
    else:
        assert all(c.met(anchor[np.newaxis]).all() for c in constraints)


class Opaque(Cost):
    """A cost of which only values are known."""

    def __init__(self, cost: Cost) -> None:
        self.space, self._cost = cost.space, cost

    def evaluate(self, genomes: Genomes) -> NDArray[np.float64]:
        return self._cost.evaluate(genomes)


def opaque(constraint: Constraint) -> Constraint:
    return replace(constraint, cost=Opaque(constraint.cost))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_without_an_exact_minimum_a_search_finds_the_anchor(share: float) -> None:
    limit = opaque(constraint(CIFAR, share))
    anchor = find_anchor(CIFAR, [limit], np.random.default_rng(0))
    assert limit.met(anchor[np.newaxis]).all()
    assert (CIFAR.canonical(anchor[np.newaxis]) == anchor).all()


def test_without_an_exact_minimum_nothing_is_claimed_to_be_proven() -> None:
    limit = constraint(CIFAR, 0.0)
    below = opaque(replace(limit, budget=limit.budget * 0.99))
    with pytest.raises(InfeasibleError, match=r"\(none found in \d+ tries\); the closest one has") as caught:
        find_anchor(CIFAR, [below], np.random.default_rng(0))
    assert caught.value.attainable is None
    assert "alone" not in str(caught.value)


def test_exact_bounds_are_used_where_there_are_some() -> None:
    """Two additive limits that exclude each other are proven to, whatever a third one is."""
    third = opaque(constraint(CIFAR, 0.9))
    with pytest.raises(InfeasibleError, match=r"together.*proven"):
        find_anchor(CIFAR, [*opposed((0.01, 0.01)), third], np.random.default_rng(0))
    below = constraint(CIFAR, 0.0)
    below = replace(below, budget=below.budget * 0.99)
    with pytest.raises(InfeasibleError, match="attainable"):
        find_anchor(CIFAR, [third, below], np.random.default_rng(0))


@pytest.mark.parametrize("shares", [(0.3, 0.5), (0.9, 0.1)])
def test_limits_of_both_sorts_are_met_together(shares: tuple[float, float]) -> None:
    first, second = opposed(shares)
    constraints = [first, opaque(second)]
    assert find_anchor(CIFAR, [first, second], np.random.default_rng(0)) is not None
    anchor = find_anchor(CIFAR, constraints, np.random.default_rng(0))
    assert all(c.met(anchor[np.newaxis]).all() for c in constraints)


def test_networks_that_cannot_be_used_are_no_answer() -> None:
    """Every network with a kernel of 3 in the first block, as all the known ones have, costs infinity."""
    base_cost = AdditiveCost.from_ops(CIFAR, work_ms)

    class Unusable(Opaque):
        def evaluate(self, genomes: Genomes) -> NDArray[np.float64]:
            gene = CIFAR.position("kernel_size", stage=0, block=0)
            return np.where(genomes[:, gene] == 0, np.inf, super().evaluate(genomes))

    limit = Constraint("t", "ms", Unusable(base_cost), base_cost.maximum()[0])
    anchor = find_anchor(CIFAR, [limit], np.random.default_rng(0))
    assert limit.met(anchor[np.newaxis]).all()


def test_each_engine_is_found_by_its_name() -> None:
    assert [get_engine(name).name for name in engine_names()] == list(engine_names())
