"""A function as the objective: what it gets and returns, its cache, its journal, and executors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.problems import CIFAR, work_ms

from ofa_profiler import Architecture, LatencyTable
from ofa_profiler.base.progress import Progress
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.tables.table import Row
from ofa_search import AccuracyPredictor, FunctionObjective, Macs, in_batches, search
from ofa_search.artifacts.shipped import FOLDER

GENOMES = CIFAR.canonical(CIFAR.sample_genomes(np.random.default_rng(0), 12))
ARCHITECTURES = CIFAR.decode(GENOMES)


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    ops = CIFAR.unique_ops()
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[work_ms(op)] * 3) for op in ops]
    return LatencyTable("made", tuple(rows), {"spaces": [CIFAR.name]})


class Asked:
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.architectures: list[Architecture] = []

    def __call__(self, architecture: Architecture) -> float:
        self.architectures.append(architecture)
        return CIFAR.macs(architecture) / 1e9


def test_each_architecture_is_evaluated_once() -> None:
    asked = Asked()
    objective = FunctionObjective(asked)
    scores = objective.scores(CIFAR, np.vstack([GENOMES[:8], GENOMES[4:]]))
    assert asked.architectures == ARCHITECTURES
    assert scores.tolist() == [CIFAR.macs(a) / 1e9 for a in (*ARCHITECTURES[:8], *ARCHITECTURES[4:])]
    objective.scores(CIFAR, GENOMES[::-1])
    assert len(asked.architectures) == len(ARCHITECTURES)


def test_a_search_finds_the_same_through_an_executor(table: LatencyTable) -> None:
    asked = Asked()
    budget_ms = 1.2 * table.cost(CIFAR).minimum()[0]
    found = search(CIFAR, [(table, budget_ms)], asked, evaluations=60)
    assert found.evaluations == len(asked.architectures) == 60
    assert found.score == found.predicted_accuracy == max(CIFAR.macs(a) for a in asked.architectures) / 1e9
    assert CIFAR.macs(found.architecture) / 1e9 == found.score
    assert found.gap is None
    assert "no bound" in (found.no_bound or "")
    with ThreadPoolExecutor(3) as executor:
        elsewhere = search(CIFAR, [(table, budget_ms)], asked, executor=executor, evaluations=60)
    assert elsewhere.architecture == found.architecture


def test_a_function_has_a_default_limit(table: LatencyTable) -> None:
    asked = Asked()
    found = search(CIFAR, [(table, 1.3 * table.cost(CIFAR).minimum()[0])], asked)
    assert found.evaluations == len(asked.architectures) == FunctionObjective.default_evaluations
    assert found.engine == "smbo"


@pytest.mark.slow
def test_with_so_few_evaluations_the_default_engine_is_better_than_evolution(table: LatencyTable) -> None:
    """The included predictor as a function, which has no gradients."""
    predictor = AccuracyPredictor.load(FOLDER / "cifar-mbv3-predictor.safetensors")

    def accuracy(architecture: Architecture) -> float:
        return float(predictor.predict([architecture])[0])

    limits = [(table, 2 * table.cost(CIFAR).minimum()[0])]
    best = search(CIFAR, limits, predictor).score
    losses = [
        best - np.mean([search(CIFAR, limits, accuracy, engine=engine, seed=seed).score for seed in range(3)])
        for engine in (None, "evolutionary", "random")
    ]
    assert 3 * losses[0] < losses[1] < losses[2]


def test_an_executor_needs_a_function(table: LatencyTable) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match="give a function"):
        search(CIFAR, [(table, 1.0)], Macs(), executor=executor)


def test_batches() -> None:
    sizes = []

    @in_batches(5)
    def work(architectures: Sequence[Architecture]) -> list[int]:
        sizes.append(len(architectures))
        return [CIFAR.macs(architecture) for architecture in architectures]

    objective = FunctionObjective(work)
    assert objective.scores(CIFAR, GENOMES).tolist() == [CIFAR.macs(a) for a in ARCHITECTURES]
    assert sizes == [5, 5, 2]
    assert objective.accuracy(2.0) is None
    short = FunctionObjective(in_batches(5)(lambda architectures: [0.5]))
    with pytest.raises(UsageError, match=r"a batch of 5 from .*returned 1 numbers for 5 architectures"):
        short.scores(CIFAR, GENOMES)


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        (math.nan, "returned nan, not a finite number"),
        (math.inf, "returned inf, not a finite number"),
        (None, "returned None, not a number"),
        ("0.9", "returned '0.9', not a number"),
        ([0.9], "returned a list, not a number"),
        (True, "returned True, not a number"),
    ],
)
def test_what_is_no_number_is_refused_with_the_architecture(returned: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as failed:
        FunctionObjective(lambda architecture: returned).scores(CIFAR, GENOMES[:1])
    assert json.dumps(ARCHITECTURES[0].to_json(), separators=(",", ":")) in str(failed.value)


def test_what_it_raises_is_one_line_and_other_answers_are_kept(tmp_path: Path) -> None:
    def failing(architecture: Architecture) -> np.float64:
        if architecture == ARCHITECTURES[3]:
            raise SystemExit("no\nGPU")
        return np.float64(0.5)

    path = tmp_path / "scores.jsonl"
    with FunctionObjective(failing, journal=path) as objective, pytest.raises(UsageError, match="SystemExit: no GPU"):
        objective.scores(CIFAR, GENOMES)
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 20])
def test_a_journal_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path, cut: int) -> None:
    asked, path = Asked(), tmp_path / "scores.jsonl"
    with FunctionObjective(asked, journal=path) as objective:
        first = objective.scores(CIFAR, GENOMES[:6])
    path.write_bytes(path.read_bytes()[:-cut])
    with FunctionObjective(asked, journal=path) as objective:
        assert objective.scores(CIFAR, GENOMES)[:6].tolist() == first.tolist()
    assert asked.architectures == [*ARCHITECTURES[:6], *ARCHITECTURES[5:]]
    assert len(path.read_text().splitlines()) == len(ARCHITECTURES)


def test_a_journal_belongs_to_one_search_and_each_function_has_its_own_lines(tmp_path: Path) -> None:
    path, asked = tmp_path / "scores.jsonl", Asked()
    with FunctionObjective(asked, name="first", journal=path) as first:
        first.scores(CIFAR, GENOMES)
        with pytest.raises(UsageError, match="is being written by another search"):
            FunctionObjective(asked, journal=path)
    with FunctionObjective(lambda architecture: 3.0, name="second", journal=path) as second:
        assert set(second.scores(CIFAR, GENOMES)) == {3.0}
    with FunctionObjective(asked, name="first", journal=path, fresh=True) as again:
        again.scores(CIFAR, GENOMES)
    assert len(asked.architectures) == 2 * len(ARCHITECTURES)
    assert (tmp_path / "scores.jsonl.old").exists()


def test_a_damaged_journal_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"objective":"f","score":1,"architecture":{}}\n[1]\n')
    with pytest.raises(InputFileError, match=r"scores.jsonl, row 2: not a line .* give --fresh"):
        FunctionObjective(Asked(), journal=path)


@pytest.mark.parametrize("content", ["notes of mine", '{"a":1}', '{"objective":"f","score":1}\nmine'])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(content)
    with pytest.raises(InputFileError, match=r"not a line of a journal of scores"):
        FunctionObjective(Asked(), name="other", journal=path)
    assert path.read_text() == content


class _Lost(ThreadPoolExecutor):
    """Cancels its jobs after the third, as the client of a scheduler that is gone."""

    taken = 0

    def submit(self, *job: Any, **options: Any) -> Future[Any]:
        self.taken += 1
        if self.taken <= 3:
            return super().submit(*job, **options)
        lost: Future[Any] = Future()
        lost.cancel()
        lost.set_running_or_notify_cancel()
        return lost


def test_an_executor_that_is_lost_is_no_fault_of_the_function(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    said = r"the executor was lost, .*CancelledError\); earlier .* are kept in "
    with (
        _Lost(1) as executor,
        FunctionObjective(Asked(), executor=executor, journal=path) as objective,
        pytest.raises(DeviceError, match=said),
    ):
        objective.scores(CIFAR, GENOMES)


def test_the_progress_has_an_estimate() -> None:
    shown: list[Progress] = []
    objective = FunctionObjective(Asked(), progress=shown.append)
    objective.expected = 24
    objective.scores(CIFAR, GENOMES)
    assert [progress.done for progress in shown] == list(range(1, 13))
    assert {progress.total for progress in shown} == {24}
    assert all(progress.left_s is not None and progress.left_s >= 0 for progress in shown)
    assert shown[-1].words.startswith("best 0.0")
