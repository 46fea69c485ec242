"""Calls of a user's function: in this process, or in another one that gets a `NamedFunction`.

Whatever the function does, the answer is plain data, so that it can travel between processes and hosts.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ofa_profiler.base.user_code import import_named, one_line, users_code
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture

#: Takes an architecture, or a list of them if it is marked by `in_batches`; returns a number, or one for each.
Function = Callable[[Any], Any]
F = TypeVar("F", bound=Function)

_BATCH_SIZE = "ofa_batch_size"
#: By name; a process imports a function once.
_imported: dict[str, Function] = {}


def in_batches(size: int) -> Callable[[F], F]:
    """Mark a function that takes a list of up to `size` architectures and returns a number for each.

    @in_batches(16)
    def accuracy(architectures): ...
    """
    if size < 1:
        raise UsageError(f"in_batches({size}): a batch has 1 architecture or more")

    def mark(function: F) -> F:
        setattr(function, _BATCH_SIZE, size)
        return function

    return mark


def batch_size(function: Function) -> int | None:
    """How many architectures it takes at once; None if it takes one, and no list."""
    return getattr(function, _BATCH_SIZE, None)


@dataclass(frozen=True)
class NamedFunction:
    """`package.module:function`. A process that calls it imports it first; the current folder is searched first."""

    text: str

    def load(self) -> Function:
        """Raises `UsageError` if it cannot be imported, or is no function."""
        if self.text not in _imported:
            with users_code(self.text):
                found = import_named(self.text)
            if not callable(found):
                raise UsageError(f"{self.text} is {type(found).__name__}, not a function of an architecture")
            _imported[self.text] = found
        return _imported[self.text]

    def __call__(self, argument: Any) -> Any:
        folder = str(Path.cwd())
        if folder not in sys.path:  # for what the function imports when it is called
            sys.path.insert(0, folder)
        return self.load()(argument)


class Answer(NamedTuple):
    """The scores of architectures; with a `problem`, there are scores only for those before it."""

    scores: tuple[float, ...]
    seconds: float
    problem: str | None = None


def ask(function: Function, architectures: Sequence[Architecture], *, as_list: bool) -> Answer:
    """Score architectures by a function, which gets all of them as a list, or one."""
    began = time.perf_counter()
    scores: list[float] = []
    problem = None
    try:
        argument: Any = list(architectures) if as_list else architectures[0]
        values = function(argument)
        scores.extend(_number(value) for value in (_listed(values, len(architectures)) if as_list else [values]))
    except BaseException as error:  # anything can happen in a user's code, also an exit
        if isinstance(error, KeyboardInterrupt):
            raise
        problem = one_line(error)
    return Answer(tuple(scores), time.perf_counter() - began, problem)


def _listed(values: Any, count: int) -> list[Any]:
    try:
        listed = list(values)
    except TypeError:
        raise UsageError(f"returned {_shown(values)}, not a list of {count} numbers") from None
    if len(listed) != count:
        raise UsageError(f"returned {len(listed)} numbers for {count} architectures")
    return listed


def _number(value: Any) -> float:
    """A number, also of numpy or torch. Raises `UsageError` for anything else."""
    if isinstance(value, str | bytes | bool) or not hasattr(value, "__float__"):
        raise UsageError(f"returned {_shown(value)}, not a number")
    number = float(value)
    if not math.isfinite(number):
        raise UsageError(f"returned {number}, not a finite number")
    return number


def _shown(value: Any) -> str:
    return f"{value!r:.60}" if value is None or isinstance(value, str | bool) else f"a {type(value).__name__}"
