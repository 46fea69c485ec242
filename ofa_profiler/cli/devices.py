"""The devices of `ofa-profile --device`: opened together, measured at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from ofa_profiler.base.fleet import Fleet, fleet
from ofa_profiler.base.parallel import Check, run_all
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.cli.lending import Lending
from ofa_profiler.cli.terminal import labelled
from ofa_profiler.devices import Device, DeviceOptions, ElsewhereDevice, open_device
from ofa_profiler.errors import OfaError
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.verification.cells import Comparison

#: What came of a device: its table, its tables and their comparison, or why there is none.
Outcome = Profile | Comparison | OfaError
#: Measures a device, which the user calls so. It must call the check regularly, which the reporter does each time.
Measure = Callable[[str, Device, Reporter, Check], Profile | Comparison]


class Devices(NamedTuple):
    """The opened devices by their names, and the errors of the others."""

    opened: dict[str, Device]
    failed: dict[str, OfaError]


@contextmanager
def opened_devices(
    specs: Sequence[str], options: DeviceOptions, lending: Lending, dask: str | None = None
) -> Iterator[Devices]:
    """Acquire and open all devices, as this process or the workers of a Dask scheduler reach them.

    Those that cannot be opened do not stop the others.
    """
    devices = Devices({}, {})
    with ExitStack() as stack:
        workers = None if dask is None else stack.enter_context(fleet(dask))
        for spec in specs:
            try:
                devices.opened[spec] = stack.enter_context(lending.lent(_device(spec, options, workers)))
            except OfaError as error:  # noqa: PERF203
                devices.failed[spec] = error
        yield devices


def _device(spec: str, options: DeviceOptions, workers: Fleet | None) -> Device:
    if workers is None:
        return open_device(spec, options)
    return ElsewhereDevice(spec, workers.executor_at(spec), options)


def measure_devices(
    devices: Mapping[str, Device], measure: Measure, reporter: Reporter, *, labels: bool
) -> dict[str, Outcome]:
    """Measure all devices at the same time. One that fails does not stop the others.

    With `labels`, the progress of each has its name.
    """

    def job(spec: str, check: Check) -> Profile | Comparison:
        show = labelled(reporter, f"{spec}: ") if labels else reporter

        def progress(state: Progress) -> None:
            check()
            show(state)

        return measure(spec, devices[spec], progress, check)

    return dict(run_all({spec: partial(job, spec) for spec in devices}))
