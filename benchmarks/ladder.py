"""Does a ladder keep its target under load? `python benchmarks/ladder.py LADDER.json --target 10ms [--repeats 5]`.

Serves frames back to back on one core: first alone, then beside busy loops on the same core (child processes), then
alone again. The ladder and each of its networks alone serve the same numbers of frames, in random order, and that
several times. Printed are the share of frames within the target in each phase, the mean predicted accuracy of all
frames, how long it takes to switch, and how many frames were late until the ladder had followed the load.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from ofa_profiler.base.units import parse_duration_ms
from ofa_search.ladder import Ladder, Served, Switch
from ofa_search.ladder.sessions import Array

PHASES = ("alone", "loaded", "alone again")


@dataclass
class Contender:
    """The ladder, or one of its networks: a ladder that cannot switch."""

    name: str
    ladder: Ladder
    #: The frames of each phase of each repetition.
    runs: list[tuple[str, list[Served]]] = field(default_factory=list)

    def kept(self, *phases: str) -> float:
        """The share of frames within the target, in all phases if none is given."""
        return float(np.mean([frame.kept for phase, run in self.runs for frame in run if phase in (phases or PHASES)]))

    @property
    def accuracy(self) -> float:
        """The mean over all frames."""
        return float(np.mean([frame.rung.accuracy or 0.0 for _, run in self.runs for frame in run]))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Busy loops beside this process, on the same core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.3)  # until they are loops
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def serve(ladder: Ladder, images: dict[tuple[int, ...], Array], count: int) -> list[Served]:
    """So many frames, one after the other."""
    return [ladder.run(images[ladder.shape]) for _ in range(count)]


def contenders(path: Path, target_ms: float) -> tuple[list[Contender], float]:
    """The ladder and each of its networks, and the seconds that loading and warming up all of them took."""
    began = time.perf_counter()
    whole = Ladder.load(path, target_ms)
    seconds = time.perf_counter() - began
    alone = [
        Contender(f"rung {rung.number} alone", Ladder([rung], [session], target_ms, warm_up=0))
        for rung, session in zip(whole.rungs, whole.sessions, strict=True)
    ]
    return [Contender("ladder", whole), *alone], seconds


def late_frames(whole: Contender) -> list[int]:
    """In each run under load, the frames before the first five in a row that kept the target."""
    found = []
    for phase, run in whole.runs:
        kept = [frame.kept for frame in run]
        if phase == "loaded":
            found.append(next((i for i in range(len(kept) - 4) if all(kept[i : i + 5])), len(kept)))
    return found


def first_frames(whole: Contender) -> list[float]:
    """The latency of each first frame after a switch, relative to the median of its rung in the same run."""
    ratios = []
    for _, run in whole.runs:
        for before, after in pairwise(run):
            if before.rung is not after.rung:
                usual = float(np.median([frame.ms for frame in run if frame.rung is after.rung]))
                ratios.append(after.ms / usual)
    return ratios


def decision_us(ladder: Ladder) -> float:
    """The median microseconds that it takes to learn a latency and to choose the next rung."""
    expected_ms = [rung.expected_ms for rung in ladder.rungs]
    switch, times = Switch(expected_ms, ladder.target_ms), []
    for number in range(2000):
        began = time.perf_counter_ns()
        switch.observe(expected_ms[switch.rung] * (3.0 if number // 100 % 2 else 1.0))
        times.append(time.perf_counter_ns() - began)
    return float(np.median(times)) / 1e3


def report(found: list[Contender], load_s: float) -> None:
    """Print the table and what a switch costs."""
    print(f"| | expected (ms) | {' | '.join(PHASES)} | all frames | mean accuracy |")
    print("| --- " * (len(PHASES) + 4) + "|")
    for each in found:
        expected = f"{each.ladder.rungs[0].expected_ms:.2f}" if len(each.ladder.rungs) == 1 else ""
        shares = " | ".join(f"{each.kept(phase):.1%}" for phase in PHASES)
        print(f"| {each.name} | {expected} | {shares} | {each.kept():.1%} | {each.accuracy:.2%} |")
    whole = found[0]
    print(f"to decide: {decision_us(whole.ladder):.0f} us a frame; to load all networks: {1e3 * load_s:.0f} ms")
    ratios = first_frames(whole)
    if ratios:
        print(f"{len(ratios)} switches; the first frame after one took {np.median(ratios):.2f} times its rung's median")
    print(f"late frames until the ladder had followed the load: {', '.join(map(str, late_frames(whole)))}")


def main() -> int:
    """Serve, and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("ladder", type=Path)
    parser.add_argument("--target", required=True, help="for example 10ms")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200, help="of each phase")
    parser.add_argument("--loops", type=int, default=1, help="busy loops")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, [arguments.core])
    target_ms = parse_duration_ms(arguments.target, "--target")
    found, load_s = contenders(arguments.ladder, target_ms)
    rng = np.random.default_rng(0)
    images = {
        session.shape: rng.random(session.shape, np.float32) for each in found for session in each.ladder.sessions
    }
    order = random.Random(0)
    for _ in range(arguments.repeats):
        for each in order.sample(found, len(found)):
            for phase in PHASES:
                with busy(arguments.loops if phase == "loaded" else 0):
                    run = serve(each.ladder, images, arguments.frames)
                each.runs.append((phase, run))
    report(found, load_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
