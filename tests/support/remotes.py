"""Measuring on a board that is this machine: what tests of boards share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.remote.device import RemoteDevice
from ofa_profiler.export import Model
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.protocol.journal import read_journal
from support.kits import QUICK
from support.sshd import Sshd

#: Enough visits to have a middle.
SETTINGS = replace(QUICK, min_rounds=4, max_rounds=4, visit_s=0.02)
SYSTEM = DeviceOptions(runtime_on_board="system")
TESTS = Path(__file__).resolve().parents[1]


def quick(spec: str) -> RemoteDevice:
    """A device whose agent brings its own runtime, and that is tried again soon."""
    device = open_device(spec, SYSTEM)
    assert isinstance(device, RemoteDevice)
    device.waits_s = (0.2, 0.5, 1, 1, 2, 2)
    return device


def agents_of(server: Sshd) -> list[int]:
    """The processes on the device that run an agent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if any(word.startswith(f"{server.home}/.ofa-profiler/agents/".encode()) for word in words):
                found.append(int(path.parent.name))
    return found


def at(visits: int, act: Callable[[], object]) -> Callable[[MeasuringProgress], None]:
    """A progress function that acts once, when so many visits are done."""
    done = []

    def progress(state: MeasuringProgress) -> None:
        if state.visits >= visits and not done:
            done.append(state)
            act()

    return progress


def results_on(store: Path) -> Path:
    (path,) = store.glob("kits/*/results.jsonl")
    return path


def check(journal: Path, store: Path, models: list[Model], settings=SETTINGS) -> None:
    """Everything is there once, here and on the device. (A journal with a visit twice cannot be read.)"""
    replay, lines = read_journal(journal)
    assert {key: len(visits) for key, visits in replay.visits.items()} == {m.key: settings.min_rounds for m in models}
    assert all(visit.ok for visits in replay.visits.values() for visit in visits)
    assert results_on(store).read_bytes() == lines
    assert replay.end is not None
