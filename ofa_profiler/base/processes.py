"""Worker processes on this machine: a `concurrent.futures.Executor` whose processes never outlive it.

The usual pool waits at its end for jobs that run, and after a kill of this process its workers remain. Jobs here can
take hours, so each worker watches a pipe, and ends at once when this process closes it or is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, InvalidStateError, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection


@contextmanager
def worker_processes(count: int) -> Iterator[Executor]:
    """Start up to `count` processes, when there are jobs for them. At the end, they are ended, with their jobs."""
    context = get_context("spawn")  # a fork would copy locks that threads of this process hold
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, _begin, (watched,))
    with _silent_about_cancelled_jobs():
        try:
            yield pool
        finally:
            held.close()
            pool.shutdown(cancel_futures=True)  # at once, as all workers end
            watched.close()


@contextmanager
def _silent_about_cancelled_jobs() -> Iterator[None]:
    """The thread of a pool whose workers end fails to say so to jobs that are cancelled, and nobody waits for these."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_type is not InvalidStateError:
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _begin(watched: Connection) -> None:
    """Prepare a worker. Ctrl-C is for its parent; stdout is for the results of the parent."""
    for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdout = sys.stderr
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()


def _end_with_parent(watched: Connection) -> None:
    with suppress(EOFError, OSError):
        watched.recv()
    os.kill(os.getpid(), signal.SIGTERM)  # whatever the job does
