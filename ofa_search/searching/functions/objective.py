"""`FunctionObjective`: whatever a user's function returns, for example the accuracy after a short training."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_search.searching.functions.asking import Batch, answers
from ofa_search.searching.functions.calling import Answer, Function, NamedFunction, batch_size
from ofa_search.searching.functions.journal import ScoreJournal, key_of
from ofa_search.searching.objectives import Objective

if TYPE_CHECKING:
    from concurrent.futures import Executor


class FunctionObjective(Objective):
    """The values of a function of an architecture; the higher, the better. Use it in a `with`, if it has a journal.

    Each distinct architecture is evaluated once. With a `journal`, a file, the values outlast the process: a search
    with the same arguments goes on where another one was killed, and finds the same network.

    The function takes an `Architecture` and returns a number; if it is marked by `in_batches`, it takes and returns
    lists. It runs in this process, or where the `executor` runs it. A value from 0 to 1 counts as an accuracy.
    """

    #: An evaluation may take minutes, so an engine may take a second to choose the next ones.
    default_evaluations = 256
    default_engine = "smbo"

    def __init__(
        self,
        function: Function,
        *,
        name: str | None = None,
        executor: Executor | None = None,
        journal: Path | str | None = None,
        fresh: bool = False,
        progress: Reporter | None = None,
    ) -> None:
        loaded = function.load() if isinstance(function, NamedFunction) else function
        self.function = function
        self.name = name or (function.text if isinstance(function, NamedFunction) else _name_of(function))
        self.executor, self.progress = executor, progress
        #: How many evaluations a search may ask for, for the estimate of the time left; None if it is unknown.
        self.expected: int | None = None
        #: How many architectures were asked for, and how many of them the function has evaluated here.
        self.asked = self.evaluated = 0
        self._seconds, self._best = 0.0, -math.inf
        self._batch_size = batch_size(loaded)
        self._scores: dict[str, float] = {}
        self.journal: ScoreJournal | None = None
        if journal is not None:
            self.journal = ScoreJournal(Path(journal), self.name, code=_code_of(loaded), fresh=fresh)
            self._scores = self.journal.scores

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
        architectures = space.decode(genomes)
        keys = [key_of(architecture) for architecture in architectures]
        unknown = {
            key: architecture for key, architecture in zip(keys, architectures, strict=True) if key not in self._scores
        }
        self.asked += len(keys) - len(unknown)
        began, problem = time.perf_counter(), ""
        batches = _batches(list(unknown.values()), self._batch_size or 1)
        try:
            for batch, answer in answers(self.function, batches, self.executor, as_list=self._batch_size is not None):
                self._keep(batch, answer)
                now = time.perf_counter()
                self._seconds, began = self._seconds + now - began, now
                self._report()
                if answer.problem is not None and not problem:
                    problem = f"{self.name}, for {_words(batch[len(answer.scores) :])}: {answer.problem}"
        except DeviceError as error:
            raise DeviceError(f"{error}{self._kept}") from error
        if problem:
            raise UsageError(f"{problem}{self._kept}")
        scores = np.array([self._scores[key] for key in keys])
        self._best = max(self._best, scores.max(initial=self._best))
        return scores

    def accuracy(self, score: float) -> float | None:
        return score if 0 <= score <= 1 else None

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "space": None, "learned_from": None, "metrics": None, "offset": 0.0}

    def close(self) -> None:
        """Close the journal."""
        if self.journal is not None:
            self.journal.close()

    def __enter__(self) -> FunctionObjective:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep(self, batch: Batch, answer: Answer) -> None:
        for architecture, score in zip(batch, answer.scores, strict=False):
            self._scores[key_of(architecture)] = score
            self._best = max(self._best, score)
            if self.journal is not None:
                self.journal.append(architecture.to_json(), score, answer.seconds / len(batch))
        self.asked += len(batch)
        self.evaluated += len(batch)

    @property
    def _kept(self) -> str:
        return "" if self.journal is None else f"; earlier evaluations are kept in {self.journal.path}"

    def _report(self) -> None:
        left_s = None
        if self.expected is not None and self.evaluated:
            left_s = max(0, self.expected - self.asked) * self._seconds / self.evaluated
        report(self.progress, "evaluate", self.asked, self.expected, left_s, f"best {self._best:.6g}")


def _batches(architectures: Batch, size: int) -> list[Batch]:
    return [architectures[start : start + size] for start in range(0, len(architectures), size)]


def _words(batch: Batch) -> str:
    """The architecture, or the first of several, as JSON."""
    more = f"a batch of {len(batch)} from " if len(batch) > 1 else ""
    return f"{more}{json.dumps(batch[0].to_json(), separators=(',', ':'))}"


def _name_of(function: Function) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _code_of(function: Function) -> str | None:
    """A hash of the file of a function; None if it has none."""
    with suppress(OSError, TypeError):
        file = inspect.getsourcefile(inspect.unwrap(function))
        if file is not None:
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    return None
