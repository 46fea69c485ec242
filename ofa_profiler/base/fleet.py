"""Workers of Dask on many hosts, as executors: `pip install 'ofa-profiler[fleet]'`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.extras import need
from ofa_profiler.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

_CONNECT_S = 10


class Fleet:
    """The workers of a scheduler."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self.address = client, address

    def executor(self) -> Executor:
        """Runs jobs on any of the workers."""
        executor: Executor = self._client.get_executor()
        return executor

    def executor_at(self, device: str) -> Executor:
        """Runs jobs on workers with the resource `device`, one at a time if one worker has 1 of it.

        Raises `UsageError` if there is no such worker.
        """
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        if not any(worker["resources"].get(device) for worker in workers):
            how = f'dask worker {self.address} --nthreads 1 --resources "{device}=1"'
            raise UsageError(f"no worker of {self.address} has the resource {device}: start one where it is, {how}")
        executor: Executor = self._client.get_executor(resources={device: 1})
        return executor


@contextmanager
def fleet(address: str) -> Iterator[Fleet]:
    """The workers of the scheduler at `address`, such as `tcp://host:8786`. Raises `UsageError`, `DeviceError`."""
    need("distributed", extra="fleet", purpose="--dask")
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise DeviceError(f"no answer from the Dask scheduler {address}: {error}") from error
    except ValueError as error:
        raise UsageError(f"--dask {address!r:.100}: {error}; expected an address like tcp://host:8786") from error
    with _without_log(), client:
        yield Fleet(client, address)


@contextmanager
def _without_log() -> Iterator[None]:
    """Dask logs the tracebacks of a lost scheduler; its jobs tell of it, too."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed.")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in zip(loggers, before, strict=True):
            logger.disabled = was_disabled
