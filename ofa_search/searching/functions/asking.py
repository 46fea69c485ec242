"""Asking a function for many answers: one after the other in this process, or at the same time through an executor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ofa_profiler.base.user_code import one_line
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_search.searching.functions.calling import Answer, Function, ask

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

Batch = Sequence[Architecture]


def answers(
    function: Function, batches: Sequence[Batch], executor: Executor | None, *, as_list: bool
) -> Iterator[tuple[Batch, Answer]]:
    """The answers for batches as they come, until one has a problem, with those that came at the same time.

    Raises `DeviceError` if the executor is lost, `UsageError` if it takes no jobs.
    """
    if executor is not None:
        yield from _through(executor, function, batches, as_list=as_list)
        return
    for batch in batches:
        answer = ask(function, batch, as_list=as_list)
        yield batch, answer
        if answer.problem is not None:
            return


def _through(
    executor: Executor, function: Function, batches: Sequence[Batch], *, as_list: bool
) -> Iterator[tuple[Batch, Answer]]:
    from concurrent.futures import BrokenExecutor, CancelledError, as_completed

    waiting: dict[Future[Answer], Batch] = {}
    try:
        for batch in batches:
            waiting[executor.submit(ask, function, batch, as_list=as_list)] = batch
        for future in as_completed(list(waiting)):
            try:
                answer = future.result()
            except CancelledError as error:  # not by this search
                raise DeviceError(f"the executor was lost, with its jobs ({one_line(error)})") from error
            except Exception as error:  # the function's own errors are in its answer
                answer = Answer((), 0.0, f"its process ended, or did not get it ({one_line(error)})")
                if isinstance(error, BrokenExecutor):  # of all that wait, the first was being evaluated
                    future = next(each for each in waiting if not _has_answer(each))
            yield waiting.pop(future), answer
            if answer.problem is not None:
                break
        for future in [each for each in waiting if _has_answer(each)]:
            yield waiting.pop(future), future.result()
    except RuntimeError as error:  # of an executor that takes no more jobs
        raise UsageError(f"the executor takes no evaluations: {error}") from error
    finally:
        for future in waiting:
            future.cancel()


def _has_answer(future: Future[Answer]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
